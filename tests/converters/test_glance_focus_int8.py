"""int8 encoders of Glance and Focus, and the gate on the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_training import write_pictures
from test_glance_focus import checkpoint

from converters import glance_focus_build
from converters.build_choices import needs_reduced_range
from converters.errors import ConversionError
from converters.glance_focus import Part, step_parts, to_onnx
from converters.glance_focus_build import FocusRequest, build_focus
from converters.glance_focus_int8 import (
    Attempt,
    Int8Part,
    attempts,
    describe,
    int8_to_onnx,
    largest_drop,
    quantize_part,
)
from converters.int8_graph import QuantSpec
from converters.select_points import select_points
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.self_check import require_passed, verify_bundle
from zoo.gfnet_checkpoint import build_gfnet
from zoo.pictures import PictureSource

QUANT = QuantSpec(reduce_range=needs_reduced_range(), max_drop=1.0)
STRICT = QuantSpec(reduce_range=needs_reduced_range(), max_drop=0.0, max_float_layers=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def glance(source: PictureSource) -> Part:
    return step_parts(build_gfnet(checkpoint(source))[0])[0]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.standard_normal((1, 3, 12, 12)).astype(np.float32) for _ in range(24)]


@pytest.fixture(scope="module")
def graph(glance: Part) -> bytes:
    """The float graph; exporting it is slow."""
    return to_onnx(glance)


@pytest.fixture(autouse=True)
def export_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bundles are built of one network here; its parts need to be exported once."""
    monkeypatch.setitem(
        glance_focus_build.CONVERSIONS, "onnxruntime",
        lambda part: EXPORTED.get(part.name) or EXPORTED.setdefault(part.name, to_onnx(part)),
    )  # fmt: skip


EXPORTED: dict[str, bytes] = {}


def answers(content: bytes, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["vector"], {"image": image})[0] for image in images])


def test_selected_points_keep_the_float_parts_that_they_look_with(source: PictureSource, tmp_path: Path) -> None:
    request = FocusRequest(
        checkpoint(source), source, tmp_path / "both.bundle", precisions=("fp32", "int8"), quant=QUANT, budgets=1
    )  # fmt: skip
    both = Bundle.load(build_focus(request))
    kept = {"one-look-int8", "budget-1-int8", "safe-int8", "all-int8"}
    small = Bundle.load(select_points(both.root, tmp_path / "int8.bundle", precision="int8")[0])
    assert {p.name for p in small.manifest.points} == kept
    assert both.manifest.exits is not None
    assert small.manifest.exits is not None
    assert {s.name for s in small.manifest.exits.settings} == {p.exit for p in small.manifest.points}
    assert small.manifest.exits.parts == tuple(p for p in both.manifest.exits.parts if "int8" in p.glance)
    on_disk = sorted(p.name.partition(".")[0] for p in (small.root / "programs").iterdir())
    assert on_disk == ["classifier-fp32", "focus-int8", "glance-int8", "policy-fp32"]
    require_passed(verify_bundle(small))
    for name, values in small.vectors.items():
        assert np.array_equal(values, both.vectors[name])

    alone = Bundle.load(select_points(both.root, tmp_path / "float.bundle", precision="fp32", pattern="safe*")[0])
    assert alone.manifest.exits is not None
    assert [s.name for s in alone.manifest.exits.settings] == [p.exit for p in alone.manifest.points]
    assert {p.precision for p in alone.manifest.programs} == {"fp32"}


def test_an_int8_encoder_says_nearly_what_the_float_one_says(
    glance: Part, graph: bytes, images: list[np.ndarray]
) -> None:
    found = quantize_part(glance, graph, images, QUANT)
    quantized = [n for n in found.graph.graph.node if n.op_type == "Conv" and "Dequantize" in n.input[1]]
    assert len(quantized) > 20
    exact, rounded = answers(graph, images), answers(int8_to_onnx(found), images)
    similarity = np.corrcoef(exact.ravel(), rounded.ravel())[0, 1]
    assert similarity > 0.97  # full range on x86 without VNNI gives 0.7: the sums saturate
    assert (exact != rounded).any()
    assert [o.name for o in found.graph.graph.output] == ["vector", "map"]


def test_the_most_sensitive_layers_can_stay_float_and_are_named(
    glance: Part, graph: bytes, images: list[np.ndarray]
) -> None:
    found = quantize_part(glance, graph, images, QUANT, float_layers=2)
    assert len(found.spec.float_layers) == 2
    weights = {n.input[1] for n in found.graph.graph.node if n.op_type == "Conv"}
    assert {f"{layer}.weight" for layer in found.spec.float_layers} <= weights
    text = describe({"glance": found}, ["glance", "policy", "focus", "classifier"])
    assert text.startswith("glance; policy, focus, classifier, net.")
    assert text.endswith("stay float")


def test_a_part_without_calibration_pictures_is_refused(glance: Part) -> None:
    with pytest.raises(ConversionError, match="glance saw no calibration pictures"):
        quantize_part(glance, b"", [], QUANT)


def test_attempts_go_from_all_to_the_glance_alone() -> None:
    both = ("glance", "focus")
    assert attempts(QuantSpec(max_float_layers=3)) == [Attempt(both), Attempt(both, 3), Attempt(("glance",), 3)]
    assert attempts(QuantSpec(max_float_layers=0)) == [Attempt(both), Attempt(("glance",))]


def test_the_gate_looks_at_every_look_and_every_exit() -> None:
    floats = {"look 1": 0.5, "look 2": 0.6, "all": 0.6}
    assert largest_drop(floats, {"look 1": 0.5, "look 2": 0.55, "all": 0.61}) == ("look 2", pytest.approx(0.05))


def test_an_int8_bundle_has_points_of_its_own_and_names_the_float_parts(source: PictureSource, tmp_path: Path) -> None:
    request = FocusRequest(
        checkpoint(source), source, tmp_path / "a.bundle", precisions=("int8",), quant=QUANT, budgets=1
    )  # fmt: skip
    bundle = Bundle.load(build_focus(request))
    manifest = bundle.manifest
    assert [p.name for p in manifest.points] == ["one-look-int8", "budget-1-int8", "safe-int8", "all-int8"]
    precision = {p.name.removesuffix("-onnxruntime"): p.precision for p in manifest.programs}
    assert precision == {"glance-int8": "int8", "focus-int8": "int8", "policy": "fp32", "classifier": "fp32"}
    assert "int8: glance and focus; policy, classifier stay float" in manifest.notes
    on_disk = {str(p.relative_to(bundle.root)) for p in (bundle.root / "programs").iterdir()}
    assert on_disk == {p.file for p in manifest.programs}  # the float encoders are gone
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    runner = backend.load(bundle.point("all-int8"))
    runner.input[:] = 0.5
    assert np.isfinite(runner.run()).all()
    assert runner.last.looks == 3
    backend.close()


def wrong(found: Int8Part) -> bytes:
    """An encoder whose every picture looks alike: what a broken quantization does."""
    graph = onnx.ModelProto()
    graph.CopyFrom(found.graph)
    for node in graph.graph.node:
        node.input[:] = [name if name != "image" else "nothing" for name in node.input]
    zeros = np.zeros(found.part.examples[0].shape, np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(zeros, "nothing"))
    return graph.SerializeToString()


def test_a_sequence_that_loses_too_much_stays_float_and_says_so(
    source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: dict[str, Callable[[Int8Part], bytes]] = {"onnxruntime": wrong}
    monkeypatch.setattr(glance_focus_build, "INT8_CONVERSIONS", broken)
    lines: list[str] = []
    request = FocusRequest(
        checkpoint(source), source, tmp_path / "a.bundle", precisions=("int8",), quant=STRICT, budgets=0
    )  # fmt: skip
    manifest = Bundle.load(build_focus(request, lines.append)).manifest
    tried = [line for line in lines if line.startswith("int8, ")]
    assert [line.partition(";")[0] for line in tried] == ["int8, glance and focus"] * 2 + ["int8, glance"]
    assert {p.precision for p in manifest.programs} == {"fp32"}
    assert [p.name for p in manifest.points] == ["one-look", "safe", "all"]
    assert any("int8 is left out" in note and "all parts stay float" in note for note in manifest.notes)
