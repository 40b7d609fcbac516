"""Compare what detectors find: boxes that two of them share, those that are right, and the best threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from zoo.box_metrics import Boxes, overlaps

RIGHT_OVERLAP = 0.5
SAME_OVERLAP = 0.95  # of two boxes that are one, up to rounding


def shared_boxes(one: Boxes, other: Boxes, least: float, slack: float) -> tuple[int, int]:
    """How many boxes of two detectors in a picture have a partner in the other's.

    A partner has the same label and overlaps by SAME_OVERLAP; each box is partner once.

    Args:
        one, other: with scores.
        least: score from which a box needs a partner.
        slack: by which its partner's score may be lower than `least`, as rounding makes it.
    Returns:
        boxes with a partner, and all boxes that need one, of both.
    """
    matched = total = 0
    for wanted, offered in ((one, other), (other, one)):
        wanted, offered = _from(wanted, least), _from(offered, least - slack)
        total += len(wanted.labels)
        matched += int(hits(wanted, offered, SAME_OVERLAP).sum())
    return matched, total


def hits(found: Boxes, there: Boxes, least: float = RIGHT_OVERLAP) -> npt.NDArray[np.bool_]:
    """Which boxes have one of their label in the other set that overlaps them enough, (B,).

    A better score chooses first, and takes the best of those that are left, as average precision counts.

    Args:
        found: with scores.
        there: scores are not used.
        least: intersection over union.
    """
    right, left = np.zeros(len(found.labels), bool), np.ones(len(there.labels), bool)
    assert found.scores is not None
    for row in np.argsort(-found.scores, kind="stable"):
        candidates = np.flatnonzero(left & (there.labels == found.labels[row]))
        if not len(candidates):
            continue
        shared = overlaps(found.boxes_xyxy[row].astype(np.float64), there.boxes_xyxy[candidates].astype(np.float64))
        if shared.max() >= least:
            right[row], left[candidates[shared.argmax()]] = True, False
    return right


def best_threshold(found: Sequence[Boxes], there: Iterable[Boxes]) -> float:
    """The score from which boxes are shown so that F1 over all pictures is largest, at an overlap of RIGHT_OVERLAP.

    Args:
        found: with scores, one for each picture.
        there: what is to be found in the same pictures.
    Returns:
        a score between the last box that is shown and the first one that is not; 1.0 where no box is right.
    """
    pairs = list(zip(found, there, strict=True))
    right = np.concatenate([hits(*pair) for pair in pairs])
    scores = np.concatenate([boxes.scores for boxes in found])
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order].astype(np.float64), right[order]
    if not right.any():
        return 1.0
    wanted = sum(len(boxes.labels) for _, boxes in pairs)
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))  # boxes of one score are shown together
    quality = 2.0 * np.cumsum(right)[ends] / (ends + 1 + wanted)
    last = int(ends[quality.argmax()])
    following = scores[last + 1] if last + 1 < len(scores) else 0.0
    return float((scores[last] + following) / 2)


def _from(boxes: Boxes, least: float) -> Boxes:
    """Those of this score or more."""
    assert boxes.scores is not None
    kept = boxes.scores >= least
    return Boxes(boxes.boxes_xyxy[kept], boxes.labels[kept], boxes.scores[kept])
