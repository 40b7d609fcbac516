"""Checkpoint to bundle, for real: export, verification with the device's engine, packing; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from built_bundle import Built
from small_training import CLASSES, RESOLUTIONS, WIDTHS

import converters.build as build_module
import converters.point_choice as point_choice
import zoo
from converters.build import BuildRequest, build
from converters.errors import ConversionError
from converters.int8_graph import QuantSpec
from converters.subnets import Subnet, channel_divisor
from edge_runtime import Budget, Runtime
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError
from edge_runtime.preprocess import preprocess
from edge_runtime.sensor_loop import NoSensors
from zoo import materialise
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource

PICTURES = [
    np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    for seed, shape in enumerate([(24, 24, 3), (50, 41, 3), (17, 90, 3)])
]


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_there_is_a_point_for_each_width_and_resolution(built: Built) -> None:
    manifest = Bundle.load(built.path).manifest
    assert {(p.width, p.size_hw) for p in manifest.points} == {(w, (r, r)) for w in WIDTHS for r in RESOLUTIONS}
    assert manifest.labels == tuple(CLASSES)
    assert [p.name for p in manifest.programs] == ["w0.50-fp32", "w1.00-fp32"]
    assert manifest.provenance["commit"] == "abc"
    folder = manifest.splits["test"].partition(", ")[0]  # pictures0, or another number after other tests' folders
    assert folder.startswith("pictures")
    assert manifest.splits == {"select": f"{folder}, 9 pictures", "test": f"{folder}, 12 pictures"}
    assert left_in(built.path.parent) == ["small.bundle"]
    assert all(p.latency_ms is not None and p.latency_ms > 0 for p in manifest.points)


def test_the_points_carry_the_checkpoints_calibration(built: Built) -> None:
    for point in Bundle.load(built.path).manifest.points:
        assert (point.temperature, point.unsure_below) == (1.0 + point.width, 0.25)


@torch.no_grad()
def test_every_point_computes_what_torch_computes(built: Built, checkpoint: Checkpoint) -> None:
    bundle, model = Bundle.load(built.path), checkpoint.build()
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    for point in bundle.manifest.points:
        plain, runner = materialise(model, width=point.width, resolution=point.size_hw), backend.load(point)
        for picture in PICTURES:
            x = preprocess(picture, bundle.spec, point.size_hw, out=runner.input)
            expected = plain(torch.from_numpy(x.copy())).numpy()
            rounding = 0.03 * np.abs(expected).max()  # of the stored statistics
            np.testing.assert_allclose(runner.run(), expected, rtol=0, atol=rounding)
        runner.close()
    assert max(check.max_relative_error for check in built.checks) < 1e-4  # against torch with the stored statistics


def test_the_accuracy_is_that_of_the_engine_on_the_splits(built: Built, source: PictureSource) -> None:
    bundle = Bundle.load(built.path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    splits = source.splits(6, 9)
    for point in bundle.manifest.points:
        runner = backend.load(point)
        for name in ("select", "test"):
            best = []
            for picture in splits[name].names:
                preprocess(source.picture(picture), bundle.spec, point.size_hw, out=runner.input)
                best.append(int(runner.run().argmax()))
            assert point.accuracy[name] == pytest.approx(np.mean(np.array(best) == splits[name].labels))
        runner.close()


def test_every_weight_is_stored_once(built: Built, checkpoint: Checkpoint) -> None:
    bundle = Bundle.load(built.path)
    full = {n: p.detach().numpy() for n, p in checkpoint.build().named_parameters()}
    assert set(bundle.weights) <= set(full)
    for name, array in bundle.weights.items():
        np.testing.assert_array_equal(array, full[name])
    needed = {n for n in full if n.endswith("weight") and full[n].ndim > 1}
    assert needed <= set(bundle.weights)


def test_the_graphs_hold_no_weights(built: Built) -> None:
    bundle = Bundle.load(built.path)
    for path in (program.file for program in bundle.manifest.programs):
        proto = onnx.load_from_string(bundle.content(path))
        inside = [t for t in proto.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
        assert all(np.prod(t.dims) <= 16 for t in inside), path
        height, width = (d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim[2:])
        assert (height, width) == ("height", "width")


def test_the_self_test_holds_what_the_engine_says(built: Built) -> None:
    bundle = Bundle.load(built.path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    assert bundle.vectors["pixels"].shape[1:] == (64, 64, 3)
    for point in bundle.manifest.points:
        runner = backend.load(point)
        for pixels, expected in zip(bundle.vectors["pixels"], bundle.vectors[f"logits/{point.name}"], strict=True):
            preprocess(pixels, bundle.spec, point.size_hw, out=runner.input)
            np.testing.assert_allclose(runner.run()[0], expected, rtol=1e-4, atol=1e-4)
        runner.close()


def test_the_converter_reports_each_step(built: Built) -> None:
    assert sum(line.startswith("exported width") for line in built.lines) == len(WIDTHS)
    assert sum("agreement 100.00%" in line for line in built.lines) == len(WIDTHS) * len(RESOLUTIONS)
    assert len(built.checks) == len(WIDTHS) * len(RESOLUTIONS)


def test_the_runtime_answers_and_switches_with_it(built: Built) -> None:
    with Runtime.load(built.path, threads=1, budget=Budget(1000.0), sensors=NoSensors()) as runtime:
        assert runtime.wait_ready(60)
        answers = {}
        for point in runtime.points:
            runtime.pin(point.name)
            result = runtime.infer(PICTURES[0])
            assert result.decision.point == point.name
            answers[point.name] = result.outputs[0]
        for point in runtime.points:  # again, in order: sessions do not share their buffers
            runtime.pin(point.name)
            np.testing.assert_array_equal(runtime.infer(PICTURES[0]).outputs[0], answers[point.name])


def test_an_engine_refuses_labels_that_do_not_fit_the_graph(built: Built) -> None:
    bundle = Bundle.load(built.path)
    other = replace(bundle, manifest=replace(bundle.manifest, labels=("one", "two")))
    backend = open_backend("onnxruntime", other, BackendOptions(threads=1))
    with pytest.raises(BackendError, match=r"ONNX Runtime"):
        backend.load(bundle.manifest.points[0]).run()


def test_an_engine_refuses_what_is_no_graph(built: Built, tmp_path: Path) -> None:
    bundle = Bundle.load(built.path)
    program = replace(bundle.manifest.programs[0], file="weights.npz", tensors=None)
    point = bundle.manifest.points[0]
    other = replace(bundle, manifest=replace(bundle.manifest, programs=(program,), points=(point,)))
    with pytest.raises(BackendError, match=rf"point '{point.name}': ONNX Runtime .* refuses 'weights.npz'"):
        open_backend("onnxruntime", other, BackendOptions(threads=1)).load(point)


def test_a_point_that_differs_from_torch_is_refused_and_nothing_is_left(
    narrow: Checkpoint, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = build_module.convert_width

    def wrong(*arguments: object) -> list[Subnet]:
        [subnet] = right(*arguments)  # type: ignore[arg-type]
        return [replace(subnet, tables={k: a ^ 8 if k.endswith("mean") else a for k, a in subnet.tables.items()})]

    monkeypatch.setattr(build_module, "convert_width", wrong)
    with pytest.raises(ConversionError, match=r"point w0.50-r016-fp32: the engine agrees .* bundle is not written"):
        build(BuildRequest(narrow, source, tmp_path / "a.bundle", "a"))
    assert left_in(tmp_path) == []


def test_int8_points_stand_beside_the_float_ones_and_an_existing_bundle_is_replaced_only_by_force(
    narrow: Checkpoint, source: PictureSource, tmp_path: Path
) -> None:
    target = tmp_path / "a.bundle"
    target.mkdir()
    (target / "mine").write_text("kept")
    request = BuildRequest(narrow, source, target, "a", ("fp32", "int8"), QuantSpec(max_drop=1.0))
    with pytest.raises(ConversionError, match="already exists; choose another name or give --force"):
        build(request)
    assert left_in(target) == ["mine"]
    build(replace(request, overwrite=True))
    assert left_in(tmp_path) == ["a.bundle"]
    bundle = Bundle.load(target)
    assert [p.name for p in bundle.manifest.points] == ["w0.50-r016-fp32", "w0.50-r016-int8"]
    assert [bundle.program(p).precision for p in bundle.manifest.points] == ["fp32", "int8"]
    assert {a.dtype.name for a in bundle.weights.values()} == {"float32", "int8"}
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    logits = []
    for point in bundle.manifest.points:
        runner = backend.load(point)
        preprocess(PICTURES[0], bundle.spec, point.size_hw, out=runner.input)
        logits.append(runner.run().copy())
        runner.close()
    # near (its weights are random, and three layers of 8 bits do not average out), and truly quantized
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.25 * np.abs(logits[0]).max()


def test_points_beyond_the_limit_leave_with_their_tables_and_programs(
    checkpoint: Checkpoint, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_width_is_cheapest(bundle: Bundle, *arguments: object) -> dict[str, float]:
        return {p.name: float(i + 1) for i, p in enumerate(bundle.manifest.points)}

    monkeypatch.setattr(build_module, "measure_latency_ms", first_width_is_cheapest)
    monkeypatch.setattr(
        point_choice, "thin_out", lambda points, limit: ([p for p in points if p.width == 0.5][:limit], ["thinned"])
    )
    path, _ = build(BuildRequest(checkpoint, source, tmp_path / "few.bundle", "few", max_points=2))
    bundle = Bundle.load(path)
    assert [p.name for p in bundle.manifest.points] == ["w0.50-r016-fp32", "w0.50-r024-fp32"]
    assert {key.partition("/")[0] for key in bundle.tables} == {"w0.50"}
    assert left_in(path / "programs") == ["w0.50-fp32.onnx.z", "w0.50-fp32.tensors.json.z"]
    assert {key.partition("/")[2] for key in bundle.vectors if "/" in key} == {p.name for p in bundle.manifest.points}
    assert "thinned" in bundle.manifest.notes


def test_a_checkpoint_without_statistics_is_refused(narrow: Checkpoint, source: PictureSource, tmp_path: Path) -> None:
    model = {k: ({} if k.startswith("norm_bank") else v) for k, v in narrow.model.items()}
    with pytest.raises(ConversionError, match="the checkpoint is not calibrated; finish its training"):
        build(BuildRequest(replace(narrow, model=model), source, tmp_path / "a.bundle", "a"))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("name", "divisor"), [("mobilenet_v1", 8), ("mobilenet_v2", 8), ("resnet50", 2)])
def test_the_manifest_states_the_networks_own_divisor(name: str, divisor: int) -> None:
    assert channel_divisor(zoo.create(name, num_classes=3, width_mult=0.25)) == divisor
