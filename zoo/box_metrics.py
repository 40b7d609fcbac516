"""Average precision of boxes as COCO defines it: 101 points of recall, IoU 0.5 to 0.95, the mean over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Overlaps that count as found, 0.5 to 0.95."""
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture: what is there, or, with scores, what was found."""

    boxes_xyxy: np.ndarray
    """(B, 4) float with positive areas, in any unit that is the same for both."""
    labels: np.ndarray
    """(B,) integers."""
    scores: np.ndarray | None = None
    """(B,) float; None for what is there."""


def average_precision(found: Sequence[Boxes], there: Sequence[Boxes], classes: int) -> np.ndarray:
    """Average precision of each class at each of IOUS.

    Args:
        found: with scores, one for each picture.
        there: what is to be found in the same pictures.
        classes: labels are below it.
    Returns:
        (classes, 10) float64 in 0-1; NaN in the row of a class that no picture has.
    Raises:
        ValueError: there are not as many of one as of the other.
    """
    if len(found) != len(there):
        raise ValueError(f"found: boxes of {len(found)} pictures, expected {len(there)}, as many as there are")
    result = np.full((classes, len(IOUS)), np.nan)
    for label in range(classes):
        total = sum(int((boxes.labels == label).sum()) for boxes in there)
        if not total:
            continue
        pairs = [_of_class(*both, label) for both in zip(found, there, strict=True)]
        scores = np.concatenate([scores for scores, _ in pairs])
        right = np.concatenate([hits for _, hits in pairs], 1)[:, np.argsort(-scores, kind="stable")]
        result[label] = [_area(hits, total) for hits in right]
    return result


def mean_precision(table: np.ndarray) -> tuple[float, float]:
    """Mean over the classes that are there: at IoU 0.5, and over all of IOUS.

    Args:
        table: of `average_precision`.
    Raises:
        ValueError: no class is there.
    """
    present = table[~np.isnan(table[:, 0])]
    if not len(present):
        raise ValueError("average precision: no picture has a box; give it pictures with boxes")
    return float(present[:, 0].mean()), float(present.mean())


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4) and boxes (..., 4) of shapes that broadcast, with positive areas."""
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    both = np.clip(sides, 0.0, None).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (one, other)]
    return both / (areas[0] + areas[1] - both)


def _of_class(found: Boxes, there: Boxes, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (D,), best first, of one picture and class, and whether each is right at each of IOUS: (10, D) bool.

    A box takes the best one of those that are left and overlap it enough; a better score chooses first.
    """
    rows = np.flatnonzero(found.labels == label)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    wanted = there.boxes_xyxy[there.labels == label]
    hits = np.zeros((len(IOUS), len(rows)), bool)
    if len(wanted) and len(rows):
        shared = overlaps(found.boxes_xyxy[rows, None].astype(np.float64), wanted[None].astype(np.float64))
        for index, least in enumerate(IOUS):
            left = np.ones(len(wanted), bool)
            for column, row in enumerate(np.where(shared >= least, shared, -1.0)):
                best = int(np.where(left, row, -1.0).argmax())
                if left[best] and row[best] > 0.0:
                    left[best], hits[index, column] = False, True
    return found.scores[rows], hits


def _area(right: np.ndarray, total: int) -> float:
    """Mean precision at RECALLS, each the best that any higher recall has, of hits (D,) in order of falling score."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / total, RECALLS, side="left")
    return float(np.where(at < len(right), np.append(precision, 0.0)[np.minimum(at, len(right))], 0.0).mean())
