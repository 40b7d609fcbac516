"""Detectors through the whole road: manifest, backends, self-test, runtime, telemetry, commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import (
    DETECTOR_POINTS,
    default_files,
    detector_values,
    manifest_values,
    npz_bytes,
    point_values,
    write_bundle,
)
from exit_fakes import exits

from edge_runtime import cli
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.backends.null import NullBackend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, BudgetError, BundleError
from edge_runtime.frame import Frame
from edge_runtime.manifest import MOST_ANCHORS, MOST_OUTPUT_VALUES, Boxes, Clip, version_to_write
from edge_runtime.preprocess import preprocess
from edge_runtime.profiling.result import load_result
from edge_runtime.reporting.ladder import prepare_devices
from edge_runtime.reporting.profile_sections import profile_sections
from edge_runtime.runtime import Runtime
from edge_runtime.self_check import require_passed, verify_bundle

FAST = ("--quick", "--period-ms", "0", "--point", "w0.25-r016", "--point", "w0.50-r032")


def detector(folder: Path, **changes: Any) -> Path:
    return write_bundle(folder / "boxes.bundle", detector_values(**changes))


def changed_point(**changes: Any) -> dict[str, Any]:
    """`points` whose second one has other values; None leaves a key out."""
    points = detector_values()["points"]
    points[1] = {key: value for key, value in {**points[1], **changes}.items() if value is not None}
    return {"points": points}


# ---- manifest


def test_a_detector_is_read_with_its_defaults(tmp_path: Path) -> None:
    manifest = Bundle.load(detector(tmp_path)).manifest
    assert manifest.boxes == Boxes(0.5, 100)
    assert [point.output_shape(3) for point in manifest.points] == [(1, 20, 7), (1, 80, 7), (1, 80, 7)]
    assert Bundle.load(detector(tmp_path, boxes={"overlap": 0.7, "most": 7})).manifest.boxes == Boxes(0.7, 7)


def test_one_label_is_enough_for_a_detector_alone(tmp_path: Path) -> None:
    assert Bundle.load(detector(tmp_path, labels=["cup"])).manifest.labels == ("cup",)
    with pytest.raises(BundleError, match="labels: expected at least one"):
        Bundle.load(detector(tmp_path, labels=[]))
    with pytest.raises(BundleError, match="labels: expected at least two"):
        Bundle.load(write_bundle(tmp_path / "one.bundle", manifest_values(labels=["cup"])))


def test_a_classifier_has_no_rows(tmp_path: Path) -> None:
    manifest = Bundle.load(write_bundle(tmp_path / "plain.bundle")).manifest
    assert manifest.boxes is None
    assert {point.output_shape(3) for point in manifest.points} == {(1, 3)}


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"boxes": None}, "point 'w0.25-r016': anchors is 20, but boxes is missing; expected both, at every point"),
    ({"task": "classification"}, "task is 'classification', but boxes is given; expected boxes for detection alone"),
    ({"task": "detection", "boxes": None, "points": manifest_values()["points"]},
     "task is 'detection', but boxes is missing; expected boxes for detection alone"),
    ({"task": "segmentation"}, "task is 'segmentation', expected one of classification, detection"),
    ({"schema_version": 2}, "boxes: expected schema version 3"),
    ({"boxes": {"overlap": 0.0}}, "overlap is 0.0, expected 0 < overlap < 1"),
    ({"boxes": {"overlap": 1.0}}, "overlap is 1.0, expected 0 < overlap < 1"),
    ({"boxes": {"most": 0}}, "most is 0, expected 1 to 1000"),
    ({"boxes": {"most": 1001}}, "most is 1001, expected 1 to 1000"),
    ({"boxes": {"iou": 0.5}}, "boxes: unknown key 'iou'"),
    (changed_point(anchors=None), "point 'w0.50-r032': anchors is None, but boxes is given"),
    (changed_point(anchors=0), f"anchors is 0, expected 1 to {MOST_ANCHORS}"),
    (changed_point(anchors=MOST_ANCHORS + 1), f"anchors is {MOST_ANCHORS + 1}, expected 1 to {MOST_ANCHORS}"),
    (changed_point(anchors=2.5), "anchors: expected int, found float"),
    ({**changed_point(anchors=MOST_ANCHORS), "labels": [f"l{number}" for number in range(30)]},
     f"its output is (1, 10000000, 34), expected at most {MOST_OUTPUT_VALUES} numbers"),
    ({"clip": {"duration_ms": 800.0}}, "frames is None, but clip is given"),
    ({"clip": {"duration_ms": 800.0}, "points": [{**point_values(0.5, 16), "anchors": 4, "frames": 4}]},
     "clip: expected no boxes beside it"),
])  # fmt: skip
def test_a_bad_manifest_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(detector(tmp_path, **changes))
    assert sentence in str(caught.value)


def test_boxes_and_exits_do_not_go_together(tmp_path: Path) -> None:
    manifest = Bundle.load(detector(tmp_path)).manifest
    with pytest.raises(ValueError, match="boxes: expected no exits beside it"):
        replace(manifest, exits=exits())


def test_boxes_need_a_newer_schema() -> None:
    assert version_to_write(None, Boxes()) == 3
    assert version_to_write(None, None) == version_to_write(None) == 2
    assert version_to_write(Clip(500.0)) == 3


# ---- backends


def test_the_null_backend_makes_up_one_or_two_boxes_that_depend_on_the_picture(tmp_path: Path) -> None:
    bundle = Bundle.load(detector(tmp_path))
    runner = NullBackend(bundle, wait=lambda point: None).load(bundle.manifest.points[0])
    answers = set()
    for level in range(18):
        runner.input[:] = level / 1000 + 5e-4
        output = runner.run()
        assert (output.shape, output.dtype) == ((1, 20, 7), np.float32)
        sure = output[0, output[0, :, 4:].max(1) > 0]
        assert len(sure) == 1 + level % 2
        assert (sure[:, 2:4] > sure[:, :2]).all()
        assert sure[:, :4].min() >= 0.0
        assert sure[:, :4].max() <= 16.0
        answers.add(sure.tobytes())
    assert len(answers) == 18


def test_the_null_backend_manages_with_one_row(tmp_path: Path) -> None:
    bundle = Bundle.load(detector(tmp_path, points=[{**point_values(0.5, 16), "anchors": 1}]))
    runner = NullBackend(bundle, wait=lambda point: None).load(bundle.manifest.points[0])
    runner.input[:] = 0.0015
    assert runner.run().shape == (1, 1, 7)


def graph(rows: npt.NDArray[np.float32], side: int) -> bytes:
    """A program that adds the mean of its input to every number of these rows (1, anchors, 4 + labels)."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Add", ["rows", "mean"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(rows.shape))],
        [numpy_helper.from_array(rows, "rows")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def onnx_detector(folder: Path, rows: npt.NDArray[np.float32], **changes: Any) -> Bundle:
    """One point of 16 x 16 pixels that runs `graph`."""
    program = {"name": "p", "backend": "onnxruntime", "precision": "fp32", "file": "p.onnx"}
    point = {**point_values(1.0, 16), "program": "p", "anchors": rows.shape[1], "unsure_below": 0.5, **changes}
    values = detector_values(programs=[program], points=[point], weights=None)
    return Bundle.load(write_bundle(folder / "onnx.bundle", values, {"p.onnx": graph(rows, 16)}))


CUP, WEAKER_CUP, DOG = (
    [2.0, 4.0, 6.0, 12.0, 1.0, -9.0, -9.0], [2.0, 4.0, 6.0, 11.0, 0.9, -9.0, -9.0],
    [8.0, 0.0, 16.0, 8.0, -9.0, 3.0, -9.0],
)  # fmt: skip
ROWS = np.array([[CUP, WEAKER_CUP, DOG]], np.float32)


def test_onnxruntime_finds_boxes_in_a_frame(tmp_path: Path) -> None:
    """A grey frame of the mean colour leaves the rows as they are; it is twice as large as the input, and wider."""
    with Runtime.load(onnx_detector(tmp_path, ROWS), query_table="none", threads=1) as runtime:
        result = runtime.infer(np.full((32, 48, 3), 128, np.uint8))  # (128 - 127.5) / 64 = 0.0078
    assert result.boxes is not None
    assert [box.label for box in result.boxes] == ["dog", "cup"]
    dog, cup = ([box.top, box.left, box.bottom, box.right] for box in result.boxes)
    np.testing.assert_allclose(dog, [16.0, 8.0, 32.0, 24.0], atol=0.02)
    np.testing.assert_allclose(cup, [4.0, 16.0, 12.0, 32.0], atol=0.02)
    np.testing.assert_allclose(result.answer.confidence, 1.0 / (1.0 + np.exp(-3.0)), atol=1e-3)
    np.testing.assert_allclose(result.outputs[0], ROWS, atol=0.01)


def test_a_program_of_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    bundle = onnx_detector(tmp_path, ROWS, anchors=4)
    with pytest.raises(BackendError, match=r"(?i)shape|dimension"):
        open_backend("onnxruntime", bundle, BackendOptions(1)).load(bundle.manifest.points[0]).run()


# ---- self-test


def with_vectors(folder: Path, change: Callable[[str, npt.NDArray[np.float32]], None]) -> Bundle:
    """A bundle whose self-test has what the null backend answers, after `change` of each point's array."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    plain, arrays = Bundle.load(detector(folder)), {"pixels": pixels}
    for point in plain.manifest.points:
        runner, rows = NullBackend(plain, wait=lambda point: None).load(point), []
        for picture in pixels:
            preprocess(picture, plain.spec, point.size, out=runner.input)
            rows.append(runner.run()[0].copy())
        arrays[f"logits/{point.name}"] = np.array(rows, np.float32)
        change(point.name, arrays[f"logits/{point.name}"])
    values = detector_values(vectors={"file": "vectors.npz", "tolerance": 0.01})
    return Bundle.load(
        write_bundle(folder / "v.bundle", values, {**default_files(), "vectors.npz": npz_bytes(**arrays)})
    )


def test_the_self_test_passes_on_the_same_rows(tmp_path: Path) -> None:
    verdicts = verify_bundle(with_vectors(tmp_path, lambda name, rows: None))
    assert [verdict.error for verdict in verdicts] == [0.0, 0.0, 0.0]
    require_passed(verdicts)


@pytest.mark.parametrize(("column", "by", "kind"), [(0, 3.2, slice(4)), (5, -1.0, slice(4, None))])
def test_boxes_and_logits_are_each_compared_with_their_own_kind(
    tmp_path: Path, column: int, by: float, kind: slice
) -> None:
    """Boxes reach 32 pixels and logits 10: on one scale an error of the logits would look a third as large."""
    errors = []

    def change(name: str, rows: npt.NDArray[np.float32]) -> None:
        if name == "w0.50-r032":
            rows[0, 0, column] += by
            errors.append(abs(by) / float(np.abs(rows[0, :, kind]).max()))

    verdicts = verify_bundle(with_vectors(tmp_path, change))
    assert [verdict.error for verdict in verdicts] == [0.0, pytest.approx(errors[0], rel=1e-5), 0.0]
    with pytest.raises(BackendError, match=r"point w0.50-r032 on null: differs .* of the largest value"):
        require_passed(verdicts)


def test_vectors_of_another_number_of_rows_are_the_bundles_fault(tmp_path: Path) -> None:
    bundle = with_vectors(tmp_path, lambda name, rows: None)
    bundle.vectors["logits/w1.00-r032"] = bundle.vectors["logits/w1.00-r032"][:, :-1]
    with pytest.raises(BundleError, match=r"no vectors for point .w1\.00-r032.; make the bundle again"):
        verify_bundle(bundle)


# ---- runtime


def frames() -> list[Frame]:
    """Frames of several colours; one thirteenth of a second apart."""
    return [Frame(np.full((48, 64, 3), 20 * number, np.uint8), number, media_s=number / 13) for number in range(8)]


def test_a_detectors_results_have_boxes_in_the_frame_and_the_surest_as_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with Runtime.load(detector(tmp_path), telemetry=log, query_table="none") as runtime:
        results = [runtime.infer(frame) for frame in frames()]
    counts = []
    for result in results:
        assert result.boxes
        assert result.answer.label == result.boxes[0].label
        assert result.answer.confidence == result.boxes[0].confidence == max(box.confidence for box in result.boxes)
        assert result.outputs[0].shape[0] == 1
        for box in result.boxes:  # the input is the square in the middle, a box a third of it
            assert 0 <= box.top < box.bottom <= 48
            assert 8 <= box.left < box.right <= 56
            np.testing.assert_allclose((box.bottom - box.top, box.right - box.left), 16.0, rtol=1e-5)
        counts.append(len(result.boxes))
    assert set(counts) == {1, 2}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [line["boxes"] for line in lines if line["event"] == "frame"] == counts


def test_a_frame_without_a_box_is_answered_unsure(tmp_path: Path) -> None:
    values = detector_values()
    for point in values["points"]:
        point["unsure_below"] = 0.999
    with Runtime.load(write_bundle(tmp_path / "b.bundle", values), query_table="none") as runtime:
        result = runtime.infer(frames()[1])
    assert result.boxes == ()
    assert result.answer.label == "unsure"
    assert result.answer.confidence == pytest.approx(1.0 / (1.0 + np.exp(-5.0)))


def test_a_classifiers_results_have_no_boxes(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with Runtime.load(write_bundle(tmp_path / "b.bundle"), telemetry=log, query_table="none") as runtime:
        assert runtime.infer(frames()[1]).boxes is None
    assert '"boxes"' not in log.read_text(encoding="utf-8")


def test_averaging_the_answers_of_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        Runtime.load(detector(tmp_path), query_table="none", smooth_s=0.2)
    assert str(caught.value) == "smooth_s: 0.2 s, but 'tiny' is a detector, whose boxes are not averaged; choose 0"


# ---- commands


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Runs the command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("EDGE_RUNTIME_DATA", str(tmp_path / "data"))

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-runtime", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_inspect_says_what_the_accuracy_is(command: Any, tmp_path: Path) -> None:
    root = detector(tmp_path)
    code, out, _ = command("inspect", root)
    assert (code, out.splitlines()[0].split(",")[0]) == (0, "tiny: detection")
    assert "AP50 select 0.632" in out
    rows = json.loads(command("inspect", root, "-f", "json")[1])["points"]
    assert {row["point"]: row["anchors"] for row in rows} == {
        "w0.25-r016": 20, "w0.50-r032": 80, "w1.00-r032": 80
    }  # fmt: skip
    plain = command("inspect", write_bundle(tmp_path / "plain.bundle"))[1]
    assert "AP50" not in plain


def test_verify_runs_on_a_detector(command: Any, tmp_path: Path) -> None:
    code, out, _ = command("verify", with_vectors(tmp_path, lambda name, rows: None).root)
    assert code == 0
    assert out.count("error 0.0e+00") == len(DETECTOR_POINTS)


def test_a_detector_is_profiled_and_reported(command: Any, tmp_path: Path) -> None:
    code, out, err = command("profile", detector(tmp_path), *FAST)
    assert (code, [line.split()[0] for line in out.splitlines()[2:4]]) == (0, ["w0.25-r016", "w0.50-r032"])
    result = err.splitlines()[0].removeprefix("wrote ")
    assert json.loads(command("report", result, "--format", "json")[1])
    devices, split = prepare_devices([(result, load_result(result))])
    sentence = profile_sections(devices, split)[0].sentences[0]
    assert sentence.startswith("Accuracy is average precision at IoU 0.5 on select; ")
    classifier = replace(devices[0].result, bundle=replace(devices[0].result.bundle, task="classification"))
    devices = (replace(devices[0], result=classifier),)
    assert profile_sections(devices, split)[0].sentences[0].startswith("Accuracy is top-1 on select; ")


def test_a_recorded_run_of_a_detector_replays_to_the_same_decisions(command: Any, tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with Runtime.load(detector(tmp_path), telemetry=log, query_table="none") as runtime:
        for frame in frames():
            runtime.infer(frame)
    assert command("replay", log)[0] == 0
    assert json.loads(command("report", log, "--format", "json")[1])
