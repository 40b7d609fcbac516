"""From a training of a detector to a bundle whose boxes a stream gets: rows, precision, integers, thresholds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from built_bundle import Built
from click.testing import CliRunner
from small_box_training import RECIPE, SIDE, train_detector, write_plain_colours

from converters.__main__ import main
from converters.box_task import Detection
from converters.build import BuildRequest, build
from converters.errors import ConversionError
from converters.int8_graph import QuantSpec
from converters.select_points import select_points
from converters.self_test import rounded_rows
from converters.verification import require_parity
from edge_runtime import Budget, Frame, Runtime
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.preprocess import preprocess
from edge_runtime.self_check import require_passed, verify_bundle
from edge_runtime.sensor_loop import NoSensors
from zoo import materialise
from zoo.box_checkpoint import build_detector
from zoo.box_metrics import Boxes, average_precision, mean_precision, overlaps
from zoo.box_scenes import BoxSceneSet
from zoo.calibrate import to_tensor
from zoo.checkpoint import Checkpoint
from zoo.efficientdet_boxes import anchor_boxes, decode_boxes, flatten_maps, suppress
from zoo.pictures import PictureSource

QUANT = QuantSpec(reduce_range=True, calib_pictures=3, max_drop=0.2)
NAME = f"w0.50-r{SIDE:03d}"
COARSEST = 9
"""Anchors of the last level, whose integers are its own."""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_plain_colours(tmp_path_factory.mktemp("colours")))


@pytest.fixture(scope="module")
def detector(colours: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    return train_detector(colours, tmp_path_factory.mktemp("detector"))


def only(held: Checkpoint, widths: tuple[float, ...], resolutions: tuple[int, ...]) -> Checkpoint:
    """The checkpoint with these points alone: exporting one takes some seconds."""
    return dataclasses.replace(held, recipe={**held.recipe, "widths": widths, "resolutions": resolutions})


@pytest.fixture(scope="module")
def boxes_built(detector: Checkpoint, colours: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One point, narrower than the full net, in two precisions."""
    lines: list[str] = []
    target, held = tmp_path_factory.mktemp("bundles") / "boxes.bundle", only(detector, (0.5,), (SIDE,))
    request = BuildRequest(held, colours, target, "boxes", ("fp32", "int8"), QUANT, kind=Detection)
    return Built(*build(request, lines.append), lines)


@pytest.fixture(scope="module")
def task(detector: Checkpoint, colours: PictureSource) -> Detection:
    return Detection(detector, colours)


def run_point(bundle: Bundle, name: str, pictures: list[np.ndarray]) -> np.ndarray:
    """Rows (pictures, anchors, 4 + classes) of the point's own engine."""
    point = bundle.point(name)
    runner = open_backend("onnxruntime", bundle, BackendOptions(1)).load(point)
    rows = []
    for picture in pictures:
        preprocess(picture, bundle.spec, point.size, out=runner.input)
        rows.append(runner.run()[0].copy())
    runner.close()
    return np.stack(rows)


def answer(rows: np.ndarray, least: float = 0.01) -> Boxes:
    """The boxes of one picture by the zoo's suppression."""
    scores = 1.0 / (1.0 + np.exp(-rows[:, 4:].astype(np.float64)))
    row, label = np.nonzero(scores >= least)
    sides = np.clip(rows[row][:, [1, 0, 3, 2]], 0, SIDE)
    good = (sides[:, 2:] > sides[:, :2]).all(1)
    sides, score, label = sides[good], scores[row, label][good], label[good]
    kept = suppress(sides, score, label, 0.5, 100)
    return Boxes(sides[kept], label[kept], score[kept])


def scenes_of(held: Checkpoint, colours: PictureSource, split: str) -> BoxSceneSet:
    recipe = build_detector(held)[1]
    splits = colours.splits(recipe.calib_pictures, recipe.select_pictures)
    return BoxSceneSet(colours, splits[split], recipe.scene_spec, recipe.evaluation_seed)


def test_the_manifest_says_how_rows_become_boxes(boxes_built: Built, detector: Checkpoint) -> None:
    manifest = Bundle.load(boxes_built.path).manifest
    assert (manifest.schema_version, manifest.task, manifest.labels) == (3, "detection", ("blue", "green", "red"))
    assert manifest.boxes is not None
    assert (manifest.boxes.overlap, manifest.boxes.most, manifest.clip) == (0.5, 100, None)
    assert [p.name for p in manifest.points] == [f"{NAME}-fp32", f"{NAME}-int8"]
    row = next(r for r in detector.accuracy if (r["width"], r["resolution"]) == (0.5, SIDE))
    for point in manifest.points:
        assert point.anchors == 9 * (6 * 6 + 3 * 3 + 2 * 2 + 1 + 1)
        assert (point.size, point.madds, point.temperature) == ((SIDE, SIDE), row["madds"], 1.0)
    assert [text.partition(", ")[2] for text in manifest.splits.values()] == ["6 scenes", "18 scenes"]
    assert manifest.provenance["recipe"] == "tf_efficientdet_lite0 boxes, 7 epochs"


@torch.no_grad()
def test_rows_are_the_boxes_and_logits_that_the_zoo_decodes(
    boxes_built: Built, detector: Checkpoint, colours: PictureSource
) -> None:
    bundle, scenes = Bundle.load(boxes_built.path), scenes_of(detector, colours, "test")
    pictures = [scenes.picture(name) for name in scenes.split.names[:4]]
    model = build_detector(detector)[0]
    plain = materialise(model, width=0.5, resolution=SIDE)
    logits, codes = flatten_maps(plain(to_tensor(np.stack(pictures), RECIPE.mean, RECIPE.std)))
    boxes = decode_boxes(codes, anchor_boxes((SIDE, SIDE), model.settings.anchor_scale))[..., [1, 0, 3, 2]]
    found = run_point(bundle, f"{NAME}-fp32", pictures)
    np.testing.assert_allclose(found[..., 4:], logits, rtol=0, atol=0.03 * float(logits.abs().max()))
    np.testing.assert_allclose(found[..., :4], boxes, rtol=0, atol=0.05 * SIDE)  # of the stored statistics
    check = boxes_built.checks[0]  # against torch with the stored statistics
    assert check.agreement == 1.0
    assert max(check.max_relative_error, check.max_relative_box_error) < 1e-5
    assert check.box_error_px is not None
    assert 0.0 < check.box_error_px < 1e-3
    assert f"boxes within {check.box_error_px:.1e} px, AP50 select {check.accuracy['select']:.3f}" in check.summary()
    assert check.summary() in boxes_built.lines


def test_every_weight_is_stored_once_though_five_levels_read_it(boxes_built: Built, detector: Checkpoint) -> None:
    bundle = Bundle.load(boxes_built.path)
    full = {n: p.detach().numpy() for n, p in build_detector(detector)[0].named_parameters()}
    floats = {name: array for name, array in bundle.weights.items() if "/" not in name}
    own = "class_head.levels.3.0.pointwise.weight"  # see FLIPPED
    assert set(floats) - set(full) == {own}
    np.testing.assert_array_equal(floats.pop(own), full["class_head.convolutions.0.pointwise.weight"])
    for name, array in floats.items():
        np.testing.assert_array_equal(array, full[name])
    shared = [n for n in full if n.startswith(("class_head", "box_head")) and full[n].ndim == 4]
    assert len(shared) == 8
    assert set(shared) <= set(floats)
    integers = {name.removesuffix("/int8") for name in bundle.weights if name.endswith("/int8")}
    every = {name for name, array in full.items() if array.ndim == 4} | {own}
    assert every - integers == {"class_head.predictor.pointwise.weight"}  # stays float


def test_graphs_are_of_one_size_and_hold_anchors_but_no_weights(boxes_built: Built) -> None:
    bundle = Bundle.load(boxes_built.path)
    for program in bundle.manifest.programs:
        proto = onnx.load_from_string(bundle.content(program.file))
        assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, SIDE, SIDE]
        inside = [
            t for t in proto.graph.initializer
            if t.data_location != onnx.TensorProto.EXTERNAL and t.data_type == onnx.TensorProto.FLOAT
        ]  # fmt: skip
        assert {np.prod(t.dims) for t in inside if np.prod(t.dims) > 16} == {2 * 459}
    assert {key.partition("/")[0] for key in bundle.tables} == {NAME}


def test_the_accuracy_is_average_precision_of_the_engine_on_scenes(
    boxes_built: Built, detector: Checkpoint, colours: PictureSource
) -> None:
    bundle = Bundle.load(boxes_built.path)
    row = next(r for r in detector.accuracy if (r["width"], r["resolution"]) == (0.5, SIDE))
    for name in ("select", "test"):
        scenes = scenes_of(detector, colours, name)
        pictures = [scenes.picture(n) for n in scenes.split.names]
        there = [Boxes(scenes.scene(n).boxes_xyxy, scenes.scene(n).labels) for n in scenes.split.names]
        for point in bundle.manifest.points:
            found = [answer(rows) for rows in run_point(bundle, point.name, pictures)]
            expected = mean_precision(average_precision(found, there, 3))[0]
            assert point.accuracy[name] == pytest.approx(expected, abs=1e-6)
        assert bundle.point(f"{NAME}-fp32").accuracy[name] == pytest.approx(row[f"{name}_ap50"], abs=0.1)
    assert bundle.point(f"{NAME}-fp32").accuracy["test"] > 0.2  # next to 0 by chance


def test_a_box_is_shown_from_the_score_that_gives_the_best_f1_on_select(
    boxes_built: Built, detector: Checkpoint, colours: PictureSource
) -> None:
    bundle, scenes = Bundle.load(boxes_built.path), scenes_of(detector, colours, "select")
    every = [scenes.scene(name) for name in scenes.split.names]

    def f1(found: list[Boxes], least: float) -> float:
        right = shown = 0
        for boxes, scene in zip(found, every, strict=True):
            assert boxes.scores is not None
            left = list(range(len(scene.labels)))
            for sides, label, score in zip(boxes.boxes_xyxy, boxes.labels, boxes.scores, strict=True):
                if score < least:
                    continue
                shown += 1
                shared = {i: overlaps(sides, scene.boxes_xyxy[i]) for i in left if scene.labels[i] == label}
                best = max(shared, key=lambda i: shared[i], default=None)
                if best is not None and shared[best] >= 0.5:
                    left.remove(best)
                    right += 1
        return 2 * right / (shown + sum(len(s.labels) for s in every))

    for point in bundle.manifest.points:
        found = [answer(rows) for rows in run_point(bundle, point.name, [s.pixels for s in every])]
        scores = np.concatenate([b.scores for b in found if b.scores is not None])
        best = max(f1(found, score) for score in scores[scores > 0.05])
        assert 0.05 < point.unsure_below < 0.95
        assert f1(found, point.unsure_below) == pytest.approx(best)


def test_integers_stay_near_the_float_rows_at_every_level(
    boxes_built: Built, detector: Checkpoint, colours: PictureSource
) -> None:
    bundle, scenes = Bundle.load(boxes_built.path), scenes_of(detector, colours, "test")
    pictures = [scenes.picture(name) for name in scenes.split.names]
    floats, rounded = (run_point(bundle, f"{NAME}-{precision}", pictures) for precision in ("fp32", "int8"))
    logits = np.abs(rounded - floats)[..., 4:] / np.abs(floats[..., 4:]).max()
    for level in (slice(-COARSEST), slice(-COARSEST, None)):
        assert 0.0 < logits[:, level].mean() < 0.03  # 7 bits
        assert logits[:, level].max() < 0.35
    assert np.abs(bundle.weights["class_head.levels.3.0.pointwise.weight/int8"]).max() == 63
    drop = bundle.point(f"{NAME}-fp32").accuracy["select"] - bundle.point(f"{NAME}-int8").accuracy["select"]
    assert drop <= QUANT.max_drop


def test_the_self_test_is_small_and_passes_on_the_device(boxes_built: Built) -> None:
    bundle = Bundle.load(boxes_built.path)
    assert bundle.vectors["pixels"].shape == (1, 64, 64, 3)
    for point in bundle.manifest.points:
        assert bundle.vectors[f"logits/{point.name}"].shape == (1, 459, 7)
    packed = len(bundle.content(str(bundle.manifest.vectors and bundle.manifest.vectors.file)))
    assert packed < 2 * 459 * 7 * 4  # half of it, with the picture
    require_passed(verify_bundle(bundle))


def test_the_integer_points_alone_are_a_bundle_with_all_that_they_need(boxes_built: Built, tmp_path: Path) -> None:
    whole = Bundle.load(boxes_built.path)
    path, count = select_points(boxes_built.path, tmp_path / "few.bundle", precision="int8")
    few = Bundle.load(path)
    assert (count, few.manifest.boxes) == (1, whole.manifest.boxes)
    bias = "box_head.predictor.pointwise.bias"  # of no norm: a stored one, which becomes integers on the device
    assert {bias, f"{bias.removesuffix('bias')}weight/int8"} <= set(few.weights)
    assert f"{bias.removesuffix('bias')}weight" in set(whole.weights) - set(few.weights)
    require_passed(verify_bundle(few))


def test_rows_of_a_self_test_are_rounded_by_kind() -> None:
    draw = np.random.default_rng(0)
    rows = np.concatenate((draw.uniform(0, 300, (2, 40, 4)), draw.normal(0, 2, (2, 40, 5))), -1).astype(np.float32)
    found = rounded_rows(rows)
    assert found.dtype == np.float32
    for kind in (slice(4), slice(4, None)):
        error = np.abs(found - rows)[..., kind].max() / np.abs(rows[..., kind]).max()
        assert 1e-5 < error < 0.02 / 20
    assert not rounded_rows(np.zeros((1, 2, 6), np.float32)).any()


def test_a_stream_gets_the_boxes_in_pixels_of_its_frames(
    boxes_built: Built, detector: Checkpoint, colours: PictureSource
) -> None:
    scenes = scenes_of(detector, colours, "test")
    with Runtime.load(boxes_built.path, threads=1, budget=Budget(1000.0), sensors=NoSensors()) as runtime:
        assert runtime.wait_ready(60)
        for name in ("fp32", "int8"):
            runtime.pin(f"{NAME}-{name}")
            hits = total = 0
            for index, scene in enumerate(scenes.scene(n) for n in scenes.split.names):
                frame = np.zeros((2 * SIDE, 3 * SIDE, 3), np.uint8)  # the scene twice as large, in the middle
                frame[:, SIDE // 2 : SIDE // 2 + 2 * SIDE] = scene.pixels.repeat(2, 0).repeat(2, 1)
                boxes = runtime.infer(Frame(frame, index)).boxes
                assert boxes is not None
                for sides, label in zip(scene.boxes_yxyx, scene.labels, strict=True):
                    wanted = sides * 2 + np.array([0, SIDE // 2] * 2)
                    near = [b for b in boxes if b.label == ("blue", "green", "red")[label]]
                    found = [np.array([b.top, b.left, b.bottom, b.right]) for b in near]
                    hits += any(overlaps(wanted, box) > 0.5 for box in found)
                    total += 1
            assert hits > 0.25 * total


def test_a_point_whose_rows_differ_from_torch_is_refused(boxes_built: Built, task: Detection) -> None:
    bundle = Bundle.load(boxes_built.path)
    point, pictures = bundle.point(f"{NAME}-fp32"), task.pictures("select")
    rows = run_point(bundle, point.name, pictures)
    good = task.check(point, rows, rows.copy(), ("select",))
    require_parity(good)

    def refusal(column: slice, change: float) -> str:
        found = rows.copy()
        found[-1, :, column] += change
        with pytest.raises(ConversionError) as raised:
            require_parity(task.check(point, rows, found, ("select",)))
        return str(raised.value)

    share = float(np.abs(rows[-1, :, :4]).max())
    assert "of the boxes (expected at least 99.9%) with a largest error of 2.0e-03" in refusal(slice(4), 0.002 * share)
    assert refusal(slice(4, None), 2.0).startswith(f"point {NAME}-fp32: the engine agrees with torch on ")
    assert "with a largest error of inf" in refusal(slice(0, 1), np.nan)
    assert "with a largest error of inf" in refusal(slice(6, None), np.nan)
    moved = rows.copy()
    moved[..., :4] += SIDE / 4  # at least half a side of what is to be found, both ways
    check = task.check(point, rows, moved, ("select",))
    assert check.agreement < 0.1
    assert check.accuracy["select"] < 0.2 * good.accuracy["select"]


def test_a_detectors_bundle_is_not_turned_back(boxes_built: Built, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["checkpoint", str(boxes_built.path), "--recipe", "r.toml", "--out", str(tmp_path / "a.pt")]
    )
    assert isinstance(done.exception, ConversionError)
    assert "holds a detector, which cannot be turned back; keep its model.pt" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_change_of_a_layer_counts_boxes_and_logits_alike(task: Detection) -> None:
    rows = torch.cat((torch.full((1, 5, 4), 40.0), torch.full((1, 5, 3), -4.0)), -1)
    for kind, size in ((slice(4), 40.0), (slice(4, None), 4.0)):
        moved = rows.clone()
        moved[..., kind] += 0.1 * size
        assert task.change(rows, moved) == pytest.approx(0.01)
    assert task.change(rows, rows) == 0.0


def test_pictures_of_other_classes_are_refused(detector: Checkpoint, tmp_path: Path) -> None:
    root = write_plain_colours(tmp_path / "colours")
    for part in ("train", "test"):
        (root / part / "red").rename(root / part / "violet")
    with pytest.raises(ConversionError, match=r"its classes are blue, green, violet, .*expected the detector's blue"):
        Detection(detector, PictureSource(root))


def test_a_detector_without_statistics_is_refused(detector: Checkpoint, colours: PictureSource, tmp_path: Path) -> None:
    model = {k: ({} if k.startswith("norm_bank") else v) for k, v in detector.model.items()}
    request = BuildRequest(dataclasses.replace(detector, model=model), colours, tmp_path / "a.bundle", "a")
    with pytest.raises(ConversionError, match="the checkpoint is not calibrated; finish its training"):
        build(dataclasses.replace(request, kind=Detection))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_points_of_several_widths_and_sizes_share_the_weights(colours: PictureSource, tmp_path: Path) -> None:
    held = train_detector(colours, tmp_path / "run", dataclasses.replace(RECIPE, resolutions=(SIDE, 40)))
    request = BuildRequest(held, colours, tmp_path / "all.bundle", "all", ("fp32", "int8"), QUANT, kind=Detection)
    path, _ = build(request)
    bundle = Bundle.load(path)
    floats = [p for p in bundle.manifest.points if p.name.endswith("fp32")]
    assert [(p.width, p.size_hw[0]) for p in floats] == [(0.5, 40), (0.5, SIDE), (1.0, 40), (1.0, SIDE)]
    assert [p.anchors for p in floats] == [9 * (25 + 9 + 4 + 1 + 1), 459] * 2
    full = {n for n, _ in build_detector(held)[0].named_parameters()}
    assert {n for n in bundle.weights if "/" not in n} - full == {"class_head.levels.3.0.pointwise.weight"}
    require_passed(verify_bundle(bundle))
    few = Bundle.load(select_points(path, tmp_path / "few.bundle", pattern="w1.00-r040-fp32")[0])
    assert {key.partition("/")[0] for key in few.tables} == {"w1.00-r040"}
    require_passed(verify_bundle(few))


@pytest.mark.slow
def test_a_point_that_loses_too_much_leaves_layers_float_and_then_stays_float(
    detector: Checkpoint, colours: PictureSource, tmp_path: Path
) -> None:
    lines: list[str] = []
    quant = dataclasses.replace(QUANT, max_drop=-1.0, max_float_layers=1)  # no point can gain that much
    held = only(detector, (1.0,), (SIDE,))
    request = BuildRequest(held, colours, tmp_path / "a.bundle", "a", ("fp32", "int8"), quant, kind=Detection)
    bundle = Bundle.load(build(request, lines.append)[0])
    assert [p.name for p in bundle.manifest.points] == ["w1.00-r048-fp32"]
    attempt = next(line for line in lines if "is too much; with" in line)
    predictor = "class_head.predictor.pointwise, class_head.levels.0.1.pointwise"
    assert attempt.startswith("w1.00-r048 int8: a drop of ")
    assert f"with {predictor}" in attempt
    assert any(note.startswith("w1.00-r048-int8 is left out: it loses") for note in bundle.manifest.notes)
