"""Boxes that two detectors share, boxes that are right, and the threshold between."""

from __future__ import annotations

import numpy as np
import pytest

from converters.box_agreement import best_threshold, hits, shared_boxes
from converters.point_choice import drop_dominated
from edge_runtime.manifest import OperatingPoint
from zoo.box_metrics import Boxes

BIG, SMALL, FAR = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 10.0], [40.0, 40.0, 50.0, 50.0]


def boxes(*rows: tuple[list[float], int, float]) -> Boxes:
    """Of (sides, label, score) each."""
    sides = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    return Boxes(sides, np.array([row[1] for row in rows], np.int64), np.array([row[2] for row in rows], np.float64))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(BIG, 0, 0.9)], [True]),
        ([(SMALL, 0, 0.9)], [True]),  # an overlap of 0.5
        ([([0.0, 0.0, 4.9, 10.0], 0, 0.9)], [False]),
        ([(BIG, 1, 0.9)], [False]),
        ([(SMALL, 0, 0.3), (BIG, 0, 0.9)], [False, True]),  # the better score takes the only one
        ([(SMALL, 0, 0.9), (BIG, 0, 0.3)], [True, False]),
        ([(FAR, 0, 0.9)], [False]),
        ([(FAR, 1, 0.9), (BIG, 0, 0.1)], [True, True]),
        ([], []),
    ],
)
def test_a_box_is_right_where_one_of_its_label_is_left(
    found: list[tuple[list[float], int, float]], expected: list[bool]
) -> None:
    assert hits(boxes(*found), boxes((BIG, 0, 0.0), (FAR, 1, 0.0))).tolist() == expected


def test_a_box_takes_the_one_that_it_overlaps_most() -> None:
    there = boxes((SMALL, 0, 0.0), (BIG, 0, 0.0))
    assert hits(boxes((BIG, 0, 0.9), (SMALL, 0, 0.5)), there, 0.9).tolist() == [True, True]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([(BIG, 0, 0.9)], [(BIG, 0, 0.5)], (2, 2)),
        ([(BIG, 0, 0.9)], [(BIG, 1, 0.9)], (0, 2)),
        ([(BIG, 0, 0.9)], [([0.0, 0.0, 9.0, 10.0], 0, 0.9)], (0, 2)),  # an overlap of 0.9
        ([(BIG, 0, 0.9)], [], (0, 1)),
        ([(BIG, 0, 0.0501)], [(BIG, 0, 0.0499)], (1, 1)),  # rounding moved it under the limit
        ([(BIG, 0, 0.06)], [(BIG, 0, 0.04)], (0, 1)),
        ([(BIG, 0, 0.04)], [(FAR, 0, 0.04)], (0, 0)),
        ([(BIG, 0, 0.9), (BIG, 0, 0.8)], [(BIG, 0, 0.9)], (2, 3)),  # each is partner once
    ],
)
def test_a_box_of_both_detectors_has_a_partner(
    one: list[tuple[list[float], int, float]], other: list[tuple[list[float], int, float]], expected: tuple[int, int]
) -> None:
    assert shared_boxes(boxes(*one), boxes(*other), 0.05, 1e-3) == expected
    assert shared_boxes(boxes(*other), boxes(*one), 0.05, 1e-3) == expected


@pytest.mark.parametrize(
    ("scores_and_right", "expected"),
    [
        ([(0.9, True), (0.2, False)], 0.55),
        ([(0.9, False), (0.8, True), (0.7, True), (0.2, False)], 0.45),
        ([(0.9, True), (0.6, False), (0.6, True), (0.1, False)], 0.35),  # of equal scores both or none are shown
        ([(0.9, True)], 0.45),
        ([(0.9, False)], 1.0),
        ([], 1.0),
    ],
)
def test_the_threshold_lies_under_the_last_box_that_f1_gains_from(
    scores_and_right: list[tuple[float, bool]], expected: float
) -> None:
    found = [boxes((BIG if right else FAR, 0, score)) for score, right in scores_and_right]
    there = [boxes((BIG, 0, 0.0))] * len(found)
    found, there = [*found, boxes()], [*there, boxes()]
    assert best_threshold(found, there) == pytest.approx(expected)


def test_the_note_of_a_dominated_detector_speaks_of_average_precision() -> None:
    def point(name: str, precision: float, latency_ms: float) -> OperatingPoint:
        return OperatingPoint(
            name, "p", 1.0, (48, 48), 1000, {"select": precision}, latency_ms=latency_ms, anchors=459
        )  # fmt: skip

    _, [note] = drop_dominated([point("slow", 0.4, 9.0), point("fast", 0.5, 3.0)])
    assert note.endswith("3.00 ms in place of 9.00 ms and has AP50 0.500 in place of 0.400 on select")
