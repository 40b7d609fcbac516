"""From a detector's rows to boxes in the frame: scores, threshold, suppression of doubles, and the way back."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.manifest import Boxes, OperatingPoint
from edge_runtime.postprocess import TOP, UNSURE
from edge_runtime.preprocess import TensorSpec, seen_part
from edge_runtime.result import Box, Classification

CANDIDATES = 5000
"""Pairs of a row and a label that are suppressed, the surest ones; as many as zoo.efficientdet_boxes takes."""
SURE_LOGIT = 30.0  # beyond it the sigmoid is 1 to 13 digits
BLOCK = 128  # candidates that are compared with each other at once
MARGIN = 1e-4  # by which the threshold for the logits is lower than the exact one for the scores

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def detect(
    output: npt.NDArray[np.float32], labels: tuple[str, ...], rule: Boxes, point: OperatingPoint, spec: TensorSpec,
    frame_hw: tuple[int, int],
) -> tuple[Box, ...]:  # fmt: skip
    """The boxes of a frame, the surest first; of equal confidence the first row.

    Args:
        output: (1, anchors, 4 + labels) float32 as `OperatingPoint.output_shape` has it; not changed.
        labels: class names.
        rule: overlap and number of boxes.
        point: its input size, temperature and the score below which a box is not shown.
        spec: how the frame was made to fit.
        frame_hw: rows and columns of the frame.
    Returns:
        at most `rule.most` boxes, cut at the frame's edges. Rows with numbers that are not finite, and boxes that have
        no area in the frame, are left out.
    """
    rows, columns, scores = _candidates(output[0], point)
    sides = output[0, rows, :4].astype(np.float64)
    boxes = _in_frame(sides, point.size_hw, spec, frame_hw)
    good = np.isfinite(sides).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, columns, scores = boxes[good], columns[good], scores[good]
    kept = suppress(boxes, scores, columns, rule)
    facts = zip(columns[kept].tolist(), scores[kept].tolist(), boxes[kept].tolist(), strict=True)
    return tuple(Box(labels[label], score, *sides) for label, score, sides in facts)


def surest(
    boxes: tuple[Box, ...], output: npt.NDArray[np.float32], labels: tuple[str, ...], temperature: float = 1.0
) -> Classification:
    """A frame's boxes as one answer: the surest box, or "unsure" with the best score of any row when there is none.

    Args:
        boxes: of `detect`.
        output, labels, temperature: as for `detect`.
    Returns:
        the answer; its `top` has a label once. Scores that are not finite say nothing.
    """
    if boxes:
        top: dict[str, float] = {}
        for box in boxes:
            top.setdefault(box.label, box.confidence)
        return Classification(boxes[0].label, boxes[0].confidence, tuple(top.items())[:TOP])
    best = _best_logits(output[0])
    order = [int(column) for column in np.argsort(-best, kind="stable")[:TOP] if best[column] > -np.inf]
    if not order:
        return Classification(UNSURE, 0.0)
    scores = _sigmoid(best / temperature)
    return Classification(UNSURE, float(scores[order[0]]), tuple((labels[i], float(scores[i])) for i in order))


def suppress(boxes: Numbers, scores: Numbers, labels: Indices, rule: Boxes) -> list[int]:
    """Non-maximum suppression within each label.

    Args:
        boxes: (B, 4) top, left, bottom, right with positive areas.
        scores, labels: (B,).
        rule: overlap and number of boxes.
    Returns:
        rows that stay, best score first; of equal scores the first row.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_doubles(boxes, labels, np.array(kept, np.int64), block, rule.overlap).any(0)]
        doubles = _doubles(boxes, labels, block, block, rule.overlap)
        left = np.ones(len(block), bool)
        for row, best in enumerate(block.tolist()):
            if left[row]:
                kept.append(best)
                left &= ~doubles[row]
            if len(kept) == rule.most:
                return kept
    return kept


def _doubles(boxes: Numbers, labels: Indices, one: Indices, other: Indices, overlap: float) -> npt.NDArray[np.bool_]:
    """Which rows of `one` are of the label of which rows of `other` and overlap them too much: (one, other)."""
    (top, left, bottom, right), (y0, x0, y1, x1) = boxes[one].T[:, :, None], boxes[other].T[:, None]
    high = np.maximum(np.minimum(bottom, y1) - np.maximum(top, y0), 0.0)
    wide = np.maximum(np.minimum(right, x1) - np.maximum(left, x0), 0.0)
    shared = high * wide
    areas = (bottom - top) * (right - left) + (y1 - y0) * (x1 - x0)
    same = labels[one][:, None] == labels[other]
    return np.asarray(same & (shared > overlap * (areas - shared)))


def _candidates(rows: npt.NDArray[np.float32], point: OperatingPoint) -> tuple[Indices, Indices, Numbers]:
    """Row, label and score of all pairs above the threshold, at most CANDIDATES of them, in the order of the rows."""
    above = rows > _least_logit(point)  # all of it: comparing the logits' columns alone takes seven times as long
    for side in range(4):  # one by one: an eighth of the time of all four at once
        above[:, side] = False
    found = np.flatnonzero(above)
    logits = rows.ravel()[found]
    finite = logits < np.inf
    if not finite.all():
        found, logits = found[finite], logits[finite]
    if len(found) > CANDIDATES:
        best = np.sort(np.argpartition(-logits, CANDIDATES)[:CANDIDATES])
        found, logits = found[best], logits[best]
    scores = _sigmoid(logits.astype(np.float64) / point.temperature)
    shown = scores >= point.unsure_below
    row, column = np.divmod(found[shown], rows.shape[1])
    return row, column - 4, scores[shown]


def _least_logit(point: OperatingPoint) -> float:
    """A little below the logit whose score is the threshold."""
    share = point.unsure_below
    if share <= 0.0:
        return -math.inf
    logit = SURE_LOGIT if share >= 1.0 else min(SURE_LOGIT, math.log(share) - math.log1p(-share))
    return (logit - MARGIN * (1.0 + abs(logit))) * point.temperature


def _best_logits(rows: npt.NDArray[np.float32]) -> Numbers:
    """The largest finite logit of each label, (labels,); -inf where there is none."""
    best = rows
    while len(best) > 1:  # halves of whole rows: a tenth of the time of a maximum along the first axis
        half = (len(best) + 1) // 2
        best = np.fmax(best[:half], best[-half:])
    found = best[0, 4:].astype(np.float64)
    if not np.isfinite(found).all():
        found = np.where(np.isfinite(rows[:, 4:]), rows[:, 4:], -np.inf).max(0).astype(np.float64)
    return found


def _sigmoid(logits: Numbers) -> Numbers:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -700.0, 700.0))))


def _in_frame(boxes: Numbers, size_hw: tuple[int, int], spec: TensorSpec, frame_hw: tuple[int, int]) -> Numbers:
    """Boxes (B, 4) y0, x0, y1, x1 in pixels of the input, as pixels of the frame and cut at its edges."""
    top, left, rows, columns = seen_part(*frame_hw, size_hw, spec)
    scale = np.array((rows / size_hw[0], columns / size_hw[1]) * 2)
    limits = np.array(frame_hw * 2, np.float64)
    return np.asarray(np.clip(boxes * scale + np.array((top, left) * 2, np.float64), 0.0, limits))
