"""Boxes of EfficientDet: anchors, codes, matching, losses and non-maximum suppression (Tan et al., arXiv:1911.09070).

Boxes are (x1, y1, x2, y2) in pixels of the network's input. A code is (ty, tx, th, tw), the order of the published
weights: centre offsets in anchor heights and widths, then logarithms of the size ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.box_metrics import overlaps

STRIDES = (8, 16, 32, 64, 128)
"""Pixels per cell of the levels P3 to P7."""
OCTAVES = 3  # anchor sizes within one level: 1, 2^(1/3) and 2^(2/3)
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))  # width and height of an anchor, in its size
ANCHORS_PER_CELL = OCTAVES * len(ASPECTS)

MATCH_IOU = 0.5  # an anchor that overlaps a box by this much or more is to find it
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 1.5
HUBER_DELTA, BOX_LOSS_WEIGHT = 0.1, 50.0

CANDIDATES = 5000  # pairs of anchor and class that are suppressed, the best ones
SCORE_MIN, OVERLAP_MAX, DETECTIONS_MAX = 0.05, 0.5, 100  # of find_boxes, as usual for COCO


@dataclass(frozen=True)
class Target:
    """What is to be found in one picture."""

    boxes_xyxy: Tensor
    """(G, 4) float, in pixels of the network's input, each with x1 < x2 and y1 < y2; G may be 0."""
    labels: Tensor
    """(G,) int64, from 0 to the number of classes - 1."""


@dataclass(frozen=True)
class DetectionLoss:
    """Losses of one batch, each a tensor of no axis."""

    total: Tensor
    """classes + 50 boxes; what is minimised."""
    classes: Tensor
    """Focal loss over all anchors, by the positive anchors."""
    boxes: Tensor
    """Huber loss over the codes of the positive anchors."""


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best score first."""

    boxes_xyxy: np.ndarray
    """(D, 4) float32, in pixels of the network's input, inside the picture."""
    scores: np.ndarray
    """(D,) float32 in 0-1."""
    labels: np.ndarray
    """(D,) int64."""


def anchor_boxes(size_hw: tuple[int, int], anchor_scale: float = 4.0) -> Tensor:
    """The anchors of a picture: level by level, row by row, then the sizes of a cell with all aspects of each.

    Args:
        size_hw: height and width of the network's input in pixels. Where a stride does not divide them, the cells of
            that level share the picture equally.
        anchor_scale: side of the smallest square anchor, in cells (`Settings.anchor_scale` of the detector).
    Returns:
        (A, 4) float32 x1, y1, x2, y2; anchors may lie partly outside the picture.
    Raises:
        ValueError: a size is not positive.
    """
    if min(*size_hw, anchor_scale) <= 0:
        raise ValueError(f"anchors: size {size_hw} and scale {anchor_scale}, expected positive numbers")
    sizes = [2.0 ** (octave / OCTAVES) for octave in range(OCTAVES)]
    shapes_xy = torch.tensor([(size * wide, size * high) for size in sizes for wide, high in ASPECTS])
    levels = []
    for stride in STRIDES:
        cells_yx = [math.ceil(side / stride) for side in size_hw]
        step_y, step_x = (side / count for side, count in zip(size_hw, cells_yx, strict=True))
        rows, columns = (torch.arange(count) + 0.5 for count in cells_yx)
        y, x = torch.meshgrid(rows * step_y, columns * step_x, indexing="ij")
        centres = torch.stack((x, y), -1)[:, :, None]
        halves = shapes_xy * torch.tensor((step_x, step_y)) * (anchor_scale / 2)
        levels.append(torch.cat((centres - halves, centres + halves), -1).reshape(-1, 4))
    return torch.cat(levels)


def flatten_maps(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join the network's ten maps, one row for each anchor in the order of `anchor_boxes`.

    Args:
        maps: five (N, 9 * classes, h, w) of class logits and five (N, 9 * 4, h, w) of codes, P3 to P7.
    Returns:
        class logits (N, A, classes) and box codes (N, A, 4).
    Raises:
        ValueError: there are not ten maps.
    """
    count = len(STRIDES)
    if len(maps) != 2 * count:
        raise ValueError(f"maps: {len(maps)}, expected {2 * count}: class logits and box codes of {count} levels")
    rows = [m.permute(0, 2, 3, 1).reshape(len(m), -1, m.shape[1] // ANCHORS_PER_CELL) for m in maps]
    return torch.cat(rows[:count], 1), torch.cat(rows[count:], 1)


def encode_boxes(boxes_xyxy: Tensor, anchors: Tensor) -> Tensor:
    """Codes (..., 4) of boxes (..., 4), each relative to the anchor at the same place; sides must be positive."""
    centre, size = _centre_and_size(boxes_xyxy)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    offset, ratio = (centre - anchor_centre) / anchor_size, (size / anchor_size).log()
    return torch.cat((offset.flip(-1), ratio.flip(-1)), -1)


def decode_boxes(codes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4) of codes (..., 4), each relative to the anchor at the same place: undoes `encode_boxes`."""
    centre, size = _centre_and_size(anchors)
    centre = centre + codes[..., :2].flip(-1) * size
    half = codes[..., 2:].flip(-1).exp() * size / 2
    return torch.cat((centre - half, centre + half), -1)


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (G, 4) and boxes (A, 4) with positive areas: (G, A) in 0-1."""
    low, high = torch.maximum(one[:, None, :2], other[:, :2]), torch.minimum(one[:, None, 2:], other[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
    return both / (areas[0][:, None] + areas[1] - both)


def match_anchors(anchors: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Which box each anchor is to find.

    An anchor takes the box that it overlaps most, if by MATCH_IOU or more. Each box also gets the anchor that overlaps
    it most, however little, though not an anchor beside it; of two boxes with one best anchor the first gets it.

    Args:
        anchors: (A, 4).
        boxes_xyxy: (G, 4) with positive areas.
    Returns:
        (A,) int64, a row of `boxes_xyxy` or -1 for background.
    """
    matches = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    if not len(boxes_xyxy):
        return matches
    overlaps = pairwise_iou(boxes_xyxy, anchors)
    best, row = overlaps.max(0)
    matches = torch.where(best >= MATCH_IOU, row, matches)
    best, column = overlaps.max(1)
    for index in reversed(range(len(boxes_xyxy))):  # the first box writes last
        if best[index] > 0:
            matches[column[index]] = index
    return matches


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of independent classes (Lin et al. 2017, arXiv:1708.02002), summed.

    Args:
        logits: any shape, float.
        wanted: 1.0 where the class is present, else 0.0; the shape of `logits`.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    missed = (wanted - logits.sigmoid()).abs()
    balance = wanted * FOCAL_ALPHA + (1.0 - wanted) * (1.0 - FOCAL_ALPHA)
    return (balance * missed**FOCAL_GAMMA * cross_entropy).sum()


def detection_loss(maps: Sequence[Tensor], anchors: Tensor, targets: Sequence[Target]) -> DetectionLoss:
    """Focal loss of the classes and Huber loss of the boxes, by the number of positive anchors of the batch + 1.

    Args:
        maps: the ten outputs of the network for N pictures.
        anchors: (A, 4), of `anchor_boxes`, on the device of the maps.
        targets: one for each picture, on the same device.
    Raises:
        ValueError: the anchors or targets do not belong to the maps; a box has no area; a label is no class.
    """
    logits, codes = (rows.float() for rows in flatten_maps(maps))
    _check_targets(logits, anchors, targets)
    positives, losses = 1.0, [logits.new_zeros(()), logits.new_zeros(())]
    for scores, code, target in zip(logits, codes, targets, strict=True):
        matches = match_anchors(anchors, target.boxes_xyxy)
        found = (matches >= 0).nonzero()[:, 0]
        rows = matches[found]
        wanted = torch.zeros_like(scores)
        wanted[found, target.labels[rows]] = 1.0
        losses[0] = losses[0] + focal_loss(scores, wanted)
        exact = encode_boxes(target.boxes_xyxy[rows], anchors[found])
        losses[1] = losses[1] + F.huber_loss(code[found], exact, delta=HUBER_DELTA, reduction="sum")
        positives += len(found)
    classes, boxes = losses[0] / positives, losses[1] / (4 * positives)
    return DetectionLoss(classes + BOX_LOSS_WEIGHT * boxes, classes, boxes)


def suppress(
    boxes_xyxy: np.ndarray, scores: np.ndarray, labels: np.ndarray, overlap_max: float, most: int | None = None
) -> np.ndarray:
    """Non-maximum suppression within each class.

    Args:
        boxes_xyxy: (B, 4) float with positive areas.
        scores: (B,) float.
        labels: (B,) integers.
        overlap_max: of two boxes of a class with a larger intersection over union, the worse one goes.
        most: stay at most; None: no limit.
    Returns:
        rows that stay, (D,) int64, best score first; of equal scores the first row.
    """
    left = np.argsort(-np.asarray(scores), kind="stable")
    boxes, kept = np.asarray(boxes_xyxy, np.float64), []
    while len(left) and (most is None or len(kept) < most):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[(labels[left] != labels[best]) | (overlaps(boxes[best], boxes[left]) <= overlap_max)]
    return np.array(kept, np.int64)


@torch.no_grad()
def find_boxes(
    maps: Sequence[Tensor],
    anchors: Tensor,
    size_hw: tuple[int, int],
    *,
    score_min: float = SCORE_MIN,
    overlap_max: float = OVERLAP_MAX,
    candidates: int = CANDIDATES,
) -> list[Detections]:
    """Decode the maps of the network and suppress double boxes; on the CPU, outside the exported graph.

    Args:
        maps: ten outputs for N pictures, five of class logits and five of box codes.
        anchors: (A, 4), of `anchor_boxes` for this size.
        size_hw: height and width of the network's input in pixels; boxes are cut there.
        score_min: lowest score (0-1) that counts.
        overlap_max: see `suppress`.
        candidates: pairs of anchor and class of a picture that are suppressed, the best ones.
    Returns:
        one Detections for each picture, at most DETECTIONS_MAX boxes.
    Raises:
        ValueError: the anchors do not belong to the maps.
    """
    logits, codes = (rows.float().cpu() for rows in flatten_maps(maps))
    _check_anchors(logits, anchors)
    limits = (score_min, overlap_max, candidates)
    return [_found(*rows, anchors.cpu(), size_hw, *limits) for rows in zip(logits, codes, strict=True)]


def _found(
    logits: Tensor, codes: Tensor, anchors: Tensor, size_hw: tuple[int, int], score_min: float, overlap_max: float,
    candidates: int,
) -> Detections:  # fmt: skip
    """The detections of one picture from its class logits (A, classes) and codes (A, 4)."""
    scores, places = logits.sigmoid().flatten().topk(min(candidates, logits.numel()))
    places, scores = places[scores >= score_min], scores[scores >= score_min]
    rows, labels = (places // logits.shape[1]).numpy(), (places % logits.shape[1]).numpy()
    height, width = size_hw
    limits = torch.tensor((width, height, width, height), dtype=torch.float32)
    boxes = decode_boxes(codes[rows], anchors[rows]).clamp(min=torch.zeros(4), max=limits).numpy()
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)  # some lie beside the picture
    boxes, scores, labels = boxes[inside], scores.numpy()[inside], labels[inside]
    kept = suppress(boxes, scores, labels, overlap_max, DETECTIONS_MAX)
    return Detections(boxes[kept], scores[kept], labels[kept])


def _centre_and_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Both (..., 2) as x, y."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return (low + high) / 2, high - low


def _check_anchors(logits: Tensor, anchors: Tensor) -> None:
    if logits.shape[1] != len(anchors):
        raise ValueError(
            f"anchors: {len(anchors)}, but the maps have {logits.shape[1]}; make them for the size of the input"
        )


def _check_targets(logits: Tensor, anchors: Tensor, targets: Sequence[Target]) -> None:
    _check_anchors(logits, anchors)
    if len(targets) != len(logits):
        raise ValueError(f"targets: {len(targets)}, but the maps are of {len(logits)} pictures; give one for each")
    for index, target in enumerate(targets):
        boxes, labels = target.boxes_xyxy, target.labels
        if boxes.shape != (len(labels), 4):
            raise ValueError(
                f"target {index}: boxes {tuple(boxes.shape)}, expected ({len(labels)}, 4), one for a label"
            )
        if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
            raise ValueError(f"target {index}: a box has no area; expected x1 < x2 and y1 < y2, leave others out")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[2]:
            raise ValueError(f"target {index}: a label is outside 0-{logits.shape[2] - 1}, the network's classes")
