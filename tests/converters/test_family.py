"""Anybody's ONNX models become one bundle: every form that exporters give, accuracy on pictures, int8 with a gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from colour_models import LABELS, save, write_pictures
from onnx import TensorProto

from converters import family
from converters.activation_ranges import ActivationRange
from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.family import FamilyRequest, FamilyResult, Measured, build_family
from converters.family_net import read_net
from converters.family_pictures import PictureFiles, label_pictures, split_pictures
from converters.int8_graph import QuantSpec
from converters.onnx_levels import graph_madds, specialise
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Preprocessing
from edge_runtime.runtime import Runtime

PLAIN = Preprocessing((127.0,) * 3, (128.0,) * 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def request_for(
    paths: list[Path], data: Path, target: Path, sizes: tuple[int, ...] = (16,), **more: Any
) -> FamilyRequest:
    nets = tuple(read_net(path, channels=more.pop("channels", "rgb")) for path in paths)
    source = PictureFiles(data)
    splits, _ = split_pictures(label_pictures(source, LABELS))
    wanted = {net.name: tuple((s, s) for s in sizes) for net in nets}
    return FamilyRequest(nets, wanted, LABELS, PLAIN, target, source, splits, **more)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> FamilyResult:
    """A small net that takes blue for green, and a larger one that does not; two sizes, of which one is odd."""
    folder = tmp_path_factory.mktemp("family")
    paths = [save(folder, "small", blind=True, layers=0), save(folder, "large", layers=3, softmax=True)]
    return build_family(request_for(paths, pictures, folder / "f.bundle", (16, 33), drop_dominated=False))


def test_each_model_size_and_precision_is_a_point_and_the_better_model_ranks_above(built: FamilyResult) -> None:
    points = {p.name: p for p in Bundle.load(built.path).manifest.points}
    assert set(points) == {f"{n}-r{s}-{p}" for n in ("small", "large") for s in (16, 33) for p in ("fp32", "int8")}
    for precision in ("fp32", "int8"):
        assert points[f"large-r33-{precision}"].accuracy["test"] == 1.0
        assert points[f"small-r33-{precision}"].accuracy["test"] < 0.8
    assert points["large-r33-fp32"].madds > points["large-r16-fp32"].madds > points["small-r16-fp32"].madds
    assert points["large-r16-fp32"].width == 1.0 > points["small-r16-fp32"].width


def test_the_same_controller_and_runtime_use_the_bundle(built: FamilyResult) -> None:
    blue = np.full((40, 60, 3), (0, 140, 200), np.uint8)
    with Runtime.load(built.path, threads=1) as runtime:
        runtime.wait_ready(60)
        answers = {}
        for point in runtime.points:
            runtime.pin(point.name)
            answers[point.name] = runtime.infer(blue).answer.label
    assert {label for name, label in answers.items() if name.startswith("large")} == {"blue"}
    assert {label for name, label in answers.items() if name.startswith("small")} == {"green"}


def test_weights_are_stored_once_for_all_sizes(built: FamilyResult) -> None:
    bundle = Bundle.load(built.path)
    shapes = sorted((a.dtype.name, a.shape) for a in bundle.weights.values())
    kernels = [s for s in shapes if s == ("float32", (40, 40, 1, 1))]
    assert len(kernels) == 1  # at two sizes
    for kernel in ((40, 40, 1, 1), (40, 3, 3, 3)):  # the second has a channel whose weights are almost zero
        assert shapes.count(("int8", kernel)) == 1
    used = {
        t["source"] for p in bundle.manifest.programs for t in json.loads(bundle.read(str(p.tensors)))["tensors"]
    }  # fmt: skip
    assert used == set(bundle.weights)


def test_int8_programs_hold_integers_of_each_output_channel(built: FamilyResult) -> None:
    bundle = Bundle.load(built.path)
    model = onnx.ModelProto.FromString(bundle.read("programs/large-r16-int8.onnx"))
    operators = [n.op_type for n in model.graph.node]
    assert operators.count("DequantizeLinear") >= 8
    scales = next(t for t in model.graph.initializer if t.name == "first_scale")
    assert tuple(scales.dims) == (40,)


@pytest.mark.parametrize(
    "form",
    [
        {"layout": "nhwc"},
        {"channels": "bgr"},
        {"layout": "nhwc", "channels": "bgr", "softmax": True},
        {"size": 20, "batch": 1},
        {"kind": TensorProto.FLOAT16},
        {"output_axes": 4},
    ],
    ids=str,
)
def test_every_form_of_a_model_is_understood(tmp_path: Path, pictures: Path, form: dict[str, Any]) -> None:
    path = save(tmp_path, "a", **form)
    order = form.get("channels", "rgb")
    request = request_for([path], pictures, tmp_path / "a.bundle", (20,), channels=order, precisions=("fp32",))
    points = Bundle.load(build_family(request).path).manifest.points
    assert [(p.name, p.accuracy["all"]) for p in points] == [("a-r20-fp32", 1.0)]


def test_a_model_of_raw_pixels_is_understood(tmp_path: Path, pictures: Path) -> None:
    path = save(tmp_path, "raw", kind=TensorProto.UINT8)
    request = request_for([path], pictures, tmp_path / "a.bundle", precisions=("fp32",))
    request = replace(request, preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3))
    assert Bundle.load(build_family(request).path).manifest.points[0].accuracy["all"] == 1.0


@pytest.mark.parametrize("side", [15, 16])
def test_padding_that_depends_on_the_size_becomes_numbers_that_are_exact(tmp_path: Path, side: int) -> None:
    import onnxruntime

    net = read_net(save(tmp_path, "a"))
    level = specialise(net.proto, (side, side), "a")
    first = next(n for n in level.graph.node if n.op_type == "Conv")
    pads = {a.name: list(a.ints) for a in first.attribute}["pads"]
    assert pads == ([1, 1, 1, 1] if side % 2 else [0, 0, 1, 1])
    image = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
    found, wanted = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {name: image}
        )[0]
        for m, name in ((level, "image"), (net.original, "input"))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_multiply_adds_equal_a_hand_count(tmp_path: Path) -> None:
    level = specialise(read_net(save(tmp_path, "a", layers=2)).proto, (16, 16), "a")
    assert graph_madds(level) == 8 * 8 * 40 * 27 + 2 * 8 * 8 * 40 * 40 + 40 * 3


def test_wrong_channel_order_is_noticed_and_named(tmp_path: Path, pictures: Path) -> None:
    path = save(tmp_path, "a", channels="bgr")
    lines: list[str] = []
    result = build_family(request_for([path], pictures, tmp_path / "a.bundle", precisions=("fp32",)), lines.append)
    warnings = [line for line in lines if "WARNING" in line]
    assert len(warnings) == 1
    assert "--channels bgr is right on 100.0% of" in warnings[0]
    assert any("--channels bgr" in note for note in Bundle.load(result.path).manifest.notes)


def test_right_preprocessing_raises_no_warning(built: FamilyResult) -> None:
    assert not [note for note in built.notes if note.startswith("large: --")]


def test_an_int8_point_that_loses_too_much_is_left_out_with_a_note(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless = ActivationRange(1e3, 128)  # everything becomes zero
    monkeypatch.setattr(family, "calibrate", lambda level, names, inputs: dict.fromkeys(names, useless))
    request = request_for([save(tmp_path, "a")], pictures, tmp_path / "a.bundle", drop_dominated=False)
    manifest = Bundle.load(build_family(request).path).manifest
    assert [p.name for p in manifest.points] == ["a-r16-fp32"]
    assert [p.name for p in manifest.programs] == ["a-r16-fp32"]
    assert any("a-r16-int8 is left out: int8 loses" in note for note in manifest.notes)
    assert not [name for name in manifest.files if "int8" in name]


def test_sensitive_layers_become_float_again_where_that_helps(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless, real, calls = ActivationRange(1e3, 128), family.calibrate, []

    def first_useless(level: onnx.ModelProto, names: list[str], inputs: list[np.ndarray]) -> dict[str, ActivationRange]:
        calls.append(names)
        return dict.fromkeys(names, useless) if len(calls) == 1 else real(level, names, inputs)

    monkeypatch.setattr(family, "calibrate", first_useless)
    quant = QuantSpec(max_float_layers=1)
    request = request_for([save(tmp_path, "a")], pictures, tmp_path / "a.bundle", drop_dominated=False, quant=quant)
    bundle = Bundle.load(build_family(request).path)
    note = next(note for note in bundle.manifest.notes if "stay float" in note)
    layer = note.removeprefix("a-r16-int8: ").partition(" stay float")[0]
    model = onnx.ModelProto.FromString(bundle.read("programs/a-r16-int8.onnx"))
    integers = {t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8}
    kept = next(n for n in model.graph.node if n.name == layer)
    assert not any(name.startswith(kept.input[1]) for name in integers)
    assert any(t.data_type == TensorProto.INT8 and len(t.dims) == 4 for t in model.graph.initializer)


def test_a_dominated_point_leaves_with_a_note_and_its_files(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency_ms = {"cheap-r16-fp32": 1.0, "dear-r16-fp32": 2.0}
    monkeypatch.setattr(family, "measure_latency_ms", lambda bundle, threads: latency_ms)
    paths = [save(tmp_path, "cheap"), save(tmp_path, "dear", layers=2)]
    result = build_family(request_for(paths, pictures, tmp_path / "a.bundle", precisions=("fp32",)))
    manifest = Bundle.load(result.path).manifest
    assert [p.name for p in manifest.points] == ["cheap-r16-fp32"]
    assert any("dear-r16-fp32 is left out: cheap-r16-fp32 takes 1.00 ms" in note for note in manifest.notes)
    assert not [name for name in manifest.files if "dear" in name]
    assert {p.name for p in result.points} == set(latency_ms)  # for the table


def test_figures_measured_elsewhere_take_the_place_of_pictures_and_are_labelled(
    tmp_path: Path, built: FamilyResult, pictures: Path
) -> None:
    accuracy = {p.name: p.accuracy for p in built.points if p.name != "small-r16-int8"}
    paths = [model_again(tmp_path, name) for name in ("small", "large")]
    request = replace(
        request_for(paths, pictures, tmp_path / "f.bundle", (16, 33)),
        source=None, splits={}, drop_dominated=False, measured=Measured("measured before", accuracy, built.ranges),
    )  # fmt: skip
    manifest = Bundle.load(build_family(request).path).manifest
    assert {p.name: p.accuracy for p in manifest.points} == accuracy
    assert set(manifest.splits.values()) == {"measured before"}


def model_again(folder: Path, name: str) -> Path:
    return save(folder, name, **({"blind": True, "layers": 0} if name == "small" else {"layers": 3, "softmax": True}))


def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = BundleWriter.write

    def full(self: BundleWriter, name: str, content: bytes) -> str:
        if name.endswith("selftest.npz"):
            raise OSError(28, "No space left on device")
        return write(self, name, content)

    monkeypatch.setattr(BundleWriter, "write", full)
    request = request_for([save(tmp_path, "a")], pictures, tmp_path / "out" / "a.bundle", precisions=("fp32",))
    with pytest.raises(ConversionError, match="No space left on device; nothing was left"):
        build_family(request)
    assert list((tmp_path / "out").iterdir()) == []
