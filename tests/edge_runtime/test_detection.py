"""Boxes from a detector's rows: against a naive way, back in the frame that preprocessing cut, with broken numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime import detection
from edge_runtime.detection import detect, suppress, surest
from edge_runtime.manifest import Boxes, OperatingPoint
from edge_runtime.preprocess import TensorSpec, preprocess
from edge_runtime.result import Box

LABELS = ("cup", "dog", "tree")
PLAIN = TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fit="squash")
SIDE = 32
POINT = OperatingPoint("p", "p", 1.0, (SIDE, SIDE), 1, {"select": 0.5}, anchors=1, unsure_below=0.5)
NOTHING = -20.0

Rows = npt.NDArray[np.float32]


def rows_of(*rows: tuple[float, ...]) -> Rows:
    """An output (1, anchors, 4 + labels)."""
    return np.array([rows], np.float32)


def found(
    output: Rows, point: OperatingPoint = POINT, rule: Boxes | None = None, spec: TensorSpec = PLAIN,
    frame_hw: tuple[int, int] = (SIDE, SIDE), labels: tuple[str, ...] = LABELS,
) -> tuple[Box, ...]:  # fmt: skip
    return detect(output, labels, rule or Boxes(), point, spec, frame_hw)


def logit(share: float) -> float:
    return math.log(share / (1.0 - share))


# ---- against a naive way


def naive(output: Rows, point: OperatingPoint, rule: Boxes) -> list[Box]:
    """Of a frame of the input's size: every row and label on its own, in plain Python."""
    every = []
    for row in output[0].astype(float).tolist():
        sides = [min(max(side, 0.0), float(SIDE)) for side in row[:4]]
        for label, value in zip(LABELS, row[4:], strict=True):
            if math.isfinite(value) and all(map(math.isfinite, row[:4])):
                score = 1.0 / (1.0 + math.exp(-value / point.temperature))
                if score >= point.unsure_below and sides[2] > sides[0] and sides[3] > sides[1]:
                    every.append(Box(label, score, *sides))
    kept: list[Box] = []
    for box in sorted(every, key=lambda box: -box.confidence):
        if all(box.label != other.label or share_of_both(box, other) <= rule.overlap for other in kept):
            kept.append(box)
    return kept[: rule.most]


def share_of_both(one: Box, other: Box) -> float:
    high = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    wide = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    areas = [(box.bottom - box.top) * (box.right - box.left) for box in (one, other)]
    return high * wide / (sum(areas) - high * wide)


def same(these: tuple[Box, ...], those: list[Box]) -> None:
    assert [replace(box, confidence=0.0) for box in these] == [replace(box, confidence=0.0) for box in those]
    np.testing.assert_allclose([b.confidence for b in these], [b.confidence for b in those], rtol=1e-12)


SIDES = st.integers(-8, SIDE + 8).map(float) | st.sampled_from([math.nan, math.inf, -math.inf])
LOGITS = st.sampled_from([-4.0, -1.0, 0.0, 0.5, 1.0, 3.0, math.nan, math.inf, -math.inf])  # few, so that many are equal


@given(
    st.lists(st.tuples(*[SIDES] * 4, *[LOGITS] * 3), min_size=1, max_size=24),
    st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 12), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from([0.5, 1.0, 2.0]),
)  # fmt: skip
@example(
    [(0.0, 0.0, 8.0, 8.0, 1.0, 1.0, 0.5), (0.0, 0.0, 8.0, 4.0, 1.0, 0.5, 1.0)], 0.5, 9, 0.5, 1.0
)  # IoU exactly 0.5
def test_boxes_are_those_of_the_naive_way(
    rows: list[tuple[float, ...]], overlap: float, most: int, unsure_below: float, temperature: float
) -> None:
    output, point = rows_of(*rows), replace(POINT, unsure_below=unsure_below, temperature=temperature)
    rule = Boxes(overlap, most)
    same(found(output, point, rule), naive(output, point, rule))


def crowd(count: int, seed: int) -> Rows:
    """Rows around a few places, so that most are doubles of others."""
    draw = np.random.default_rng(seed)
    centres = draw.integers(4, SIDE - 4, (9, 2))[draw.integers(0, 9, count)] + draw.integers(-1, 2, (count, 2))
    halves = draw.integers(2, 7, (count, 2))
    logits = draw.normal(0.0, 2.0, (count, len(LABELS)))
    return np.concatenate([centres - halves, centres + halves, logits], 1).astype(np.float32)[None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [5, 100, 1000])
def test_many_doubles_are_dropped_as_the_naive_way_does(seed: int, most: int) -> None:
    """More than one block of candidates."""
    output, rule = crowd(400, seed), Boxes(0.5, most)
    assert int((output[0, :, 4:] > 0).sum()) > 4 * detection.BLOCK
    same(found(output, rule=rule), naive(output, POINT, rule))


def test_only_the_surest_candidates_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "CANDIDATES", 40)
    output, rule = crowd(400, 0), Boxes(0.5, 1000)
    least = np.sort(output[0, :, 4:].ravel())[-40]
    few = output.copy()
    few[0, :, 4:][few[0, :, 4:] < least] = NOTHING
    same(found(output, rule=rule), naive(few, POINT, rule))


def test_numbers_that_are_not_finite_take_no_place_among_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "CANDIDATES", 2)
    bad = [(0.0, 0.0, 8.0, 8.0, math.inf, math.nan, NOTHING)] * 5
    assert [box.label for box in found(rows_of(*bad, (0.0, 0.0, 8.0, 8.0, NOTHING, 2.0, NOTHING)))] == ["dog"]


def test_suppression_is_that_of_training() -> None:
    pytest.importorskip("torch")
    from zoo.efficientdet_boxes import suppress as reference

    draw = np.random.default_rng(0)
    low = draw.uniform(0, 90, (700, 2))
    boxes = np.concatenate([low, low + draw.uniform(5, 40, (700, 2))], 1)
    scores, labels = draw.uniform(0, 1, 700), draw.integers(0, 3, 700)
    for overlap, most in ((0.3, 1000), (0.5, 50), (0.7, 1000)):
        wanted = reference(boxes, scores, labels, overlap, most)
        assert suppress(boxes, scores, labels, Boxes(overlap, most)) == wanted.tolist()


# ---- the threshold


@pytest.mark.parametrize("temperature", [0.25, 1.0, 8.0])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.97, 0.9999])
def test_a_box_is_shown_from_its_threshold_on(share: float, temperature: float) -> None:
    exact = logit(share) * temperature
    point = replace(POINT, unsure_below=share, temperature=temperature)
    step = 1e-5 * max(1.0, abs(exact))
    assert len(found(rows_of((0.0, 0.0, 8.0, 8.0, exact + step, -1e3, -1e3)), point)) == 1
    assert not found(rows_of((0.0, 0.0, 8.0, 8.0, exact - step, -1e3, -1e3)), point)


def test_without_a_threshold_every_pair_is_a_box() -> None:
    assert len(found(rows_of((0.0, 0.0, 8.0, 8.0, -90.0, -5.0, 0.0)), replace(POINT, unsure_below=0.0))) == 3


def test_a_threshold_of_one_shows_what_is_certain() -> None:
    point = replace(POINT, unsure_below=1.0)
    boxes = found(rows_of((0.0, 0.0, 8.0, 8.0, 60.0, 20.0, NOTHING)), point)
    assert [(box.label, box.confidence) for box in boxes] == [("cup", 1.0)]


def test_temperature_divides_the_logits() -> None:
    box = found(rows_of((0.0, 0.0, 8.0, 8.0, 3.0, NOTHING, NOTHING)), replace(POINT, temperature=1.5))[0]
    assert box.confidence == pytest.approx(1.0 / (1.0 + math.exp(-2.0)))


# ---- the way back into the frame


@pytest.mark.parametrize("frame_hw", [(120, 200), (200, 120), (96, 96)])
@pytest.mark.parametrize("size_hw", [(48, 48), (32, 64)])
@pytest.mark.parametrize(("fit", "crop_share"), [("squash", 1.0), ("crop", 1.0), ("crop", 0.8)])
def test_a_box_lies_where_preprocessing_took_it_from(
    frame_hw: tuple[int, int], size_hw: tuple[int, int], fit: str, crop_share: float
) -> None:
    """A bright thing is looked for in the input; the box around it there must come back to where it is in the frame."""
    top, left, bottom, right = frame_hw[0] // 2 - 9, frame_hw[1] // 2 - 14, frame_hw[0] // 2 + 12, frame_hw[1] // 2 + 5
    frame = np.zeros((*frame_hw, 3), np.uint8)
    frame[top:bottom, left:right] = 255
    spec = replace(PLAIN, fit=fit, crop_share=crop_share)
    seen = preprocess(frame, spec, size_hw)[0, 0] / 255.0
    # how much of each row and column is covered gives the edges to a part of a pixel
    high, wide = seen.max(1), seen.max(0)
    y0, x0 = (
        float(np.flatnonzero(high)[0] + 1 - high[high > 0][0]),
        float(np.flatnonzero(wide)[0] + 1 - wide[wide > 0][0]),
    )
    output = rows_of((y0, x0, y0 + float(high.sum()), x0 + float(wide.sum()), 5.0, NOTHING, NOTHING))
    (box,) = found(output, replace(POINT, size_hw=size_hw), spec=spec, frame_hw=frame_hw)
    pixel = max(frame_hw[0] / size_hw[0], frame_hw[1] / size_hw[1])
    np.testing.assert_allclose((box.top, box.left, box.bottom, box.right), (top, left, bottom, right), atol=0.1 * pixel)


@pytest.mark.parametrize(("fit", "crop_share", "expected"), [
    ("squash", 1.0, (0.0, 0.0, 100.0, 200.0)), ("crop", 1.0, (0.0, 50.0, 100.0, 150.0)),
    ("crop", 0.5, (25.0, 75.0, 75.0, 125.0)),
])  # fmt: skip
def test_the_whole_input_is_what_was_cut_from_the_frame(
    fit: str, crop_share: float, expected: tuple[float, float, float, float]
) -> None:
    spec = replace(PLAIN, fit=fit, crop_share=crop_share)
    (box,) = found(rows_of((0.0, 0.0, SIDE, SIDE, 5.0, NOTHING, NOTHING)), spec=spec, frame_hw=(100, 200))
    assert (box.top, box.left, box.bottom, box.right) == expected


def test_boxes_are_cut_at_the_frame_and_not_at_what_was_seen() -> None:
    spec = replace(PLAIN, fit="crop")
    (box,) = found(rows_of((-4.0, -4.0, 8.0, 8.0, 5.0, NOTHING, NOTHING)), spec=spec, frame_hw=(32, 64))
    assert (box.top, box.left, box.bottom, box.right) == (0.0, 12.0, 8.0, 24.0)
    (box,) = found(rows_of((4.0, 4.0, 90.0, 90.0, 5.0, NOTHING, NOTHING)), spec=spec, frame_hw=(32, 64))
    assert (box.top, box.left, box.bottom, box.right) == (4.0, 20.0, 32.0, 64.0)


@pytest.mark.parametrize("sides", [
    (-9.0, 0.0, -1.0, 8.0), (0.0, 33.0, 8.0, 40.0), (8.0, 0.0, 2.0, 8.0), (4.0, 4.0, 4.0, 9.0),
    (math.nan, 0.0, 8.0, 8.0),
])  # fmt: skip
def test_boxes_without_an_area_in_the_frame_are_left_out_and_drop_no_other(sides: tuple[float, ...]) -> None:
    good = (0.0, 0.0, 8.0, 8.0, 2.0, NOTHING, NOTHING)
    assert len(found(rows_of((*sides, 9.0, NOTHING, NOTHING), good))) == 1


def test_the_output_is_not_changed() -> None:
    output = crowd(50, 0)
    before = output.copy()
    output.flags.writeable = False
    surest(found(output), output, LABELS)
    np.testing.assert_array_equal(output, before)


# ---- one answer


def test_the_answer_is_the_surest_box() -> None:
    output = rows_of(
        (0.0, 0.0, 8.0, 8.0, logit(0.7), NOTHING, NOTHING), (9.0, 9.0, 20.0, 20.0, NOTHING, logit(0.9), NOTHING),
        (20.0, 0.0, 30.0, 8.0, NOTHING, logit(0.8), logit(0.6)),
    )  # fmt: skip
    boxes = found(output)
    answer = surest(boxes, output, LABELS)
    assert [box.label for box in boxes] == ["dog", "dog", "cup", "tree"]
    assert answer.label == "dog"
    assert [label for label, _ in answer.top] == ["dog", "cup", "tree"]
    np.testing.assert_allclose(
        [answer.confidence, *(share for _, share in answer.top)], [0.9, 0.9, 0.7, 0.6], rtol=1e-6
    )


def test_without_a_box_the_answer_is_unsure_with_the_best_score() -> None:
    output = rows_of((0.0, 0.0, 8.0, 8.0, -3.0, -1.0, -2.0), (0.0, 0.0, 8.0, 8.0, -0.5, math.nan, -math.inf))
    point = replace(POINT, temperature=2.0)
    boxes = found(output, point)
    answer = surest(boxes, output, LABELS, point.temperature)
    assert boxes == ()
    assert answer.label == "unsure"
    assert [label for label, _ in answer.top] == ["cup", "dog", "tree"]
    wanted = [1.0 / (1.0 + math.exp(half)) for half in (0.25, 0.5, 1.0)]
    np.testing.assert_allclose([share for _, share in answer.top], wanted)
    assert answer.confidence == pytest.approx(wanted[0])


def test_at_most_five_labels_are_named() -> None:
    labels = tuple("abcdefgh")
    output = rows_of((0.0, 0.0, 8.0, 8.0, *(float(number) for number in range(8))))
    for share in (0.1, 0.9999):
        answer = surest(found(output, replace(POINT, unsure_below=share), labels=labels), output, labels)
        assert [label for label, _ in answer.top] == ["h", "g", "f", "e", "d"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_say_nothing(value: float) -> None:
    answer = surest((), rows_of((0.0, 0.0, 8.0, 8.0, value, value, value)), LABELS)
    assert (answer.label, answer.confidence, answer.top) == ("unsure", 0.0, ())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65])
@pytest.mark.parametrize("other", [-2.0, math.nan, math.inf])
def test_the_best_score_is_found_in_any_number_of_rows(count: int, other: float) -> None:
    for place in range(count):
        output = np.full((1, count, 7), NOTHING, np.float32)
        output[0, place, 5], output[0, (place + 1) % count, 4] = -1.0, other
        assert surest((), output, LABELS).top[0] == ("dog", pytest.approx(1.0 / (1.0 + math.e)))
