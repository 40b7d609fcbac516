"""Anchors, codes, matching, losses and suppression of EfficientDet against slow references and planted boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.efficientdet_boxes import (
    DETECTIONS_MAX,
    Target,
    anchor_boxes,
    decode_boxes,
    detection_loss,
    encode_boxes,
    find_boxes,
    flatten_maps,
    focal_loss,
    match_anchors,
    pairwise_iou,
    suppress,
)

CLASSES, SIDE = 3, 256
BOXES = ((20.0, 30.0, 90.0, 110.0), (150.0, 60.0, 230.0, 130.0))
LABELS = (2, 0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _boxes(count: int, generator: torch.Generator, side: float = 100.0) -> Tensor:
    """Random boxes with positive areas in a square picture."""
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64) * side
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    return torch.cat((low, high + 1.0), 1)


def test_anchors_equal_loops_over_levels_cells_sizes_and_aspects() -> None:
    expected = []
    for stride in (8, 16, 32, 64, 128):
        for row in range(128 // stride):
            for column in range(256 // stride):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for octave in range(3):
                    side = 4.0 * stride * 2 ** (octave / 3)
                    for wide, high in ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)):
                        w, h = side * wide / 2, side * high / 2
                        expected.append([x - w, y - h, x + w, y + h])
    torch.testing.assert_close(anchor_boxes((128, 256)), torch.tensor(expected))
    assert len(anchor_boxes((512, 512))) == 49104  # 9 * (64^2 + 32^2 + 16^2 + 8^2 + 4^2)


def test_decoding_undoes_encoding_and_encoding_decoding() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        boxes, anchors = _boxes(50, generator), _boxes(50, generator)
        torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)
        codes = torch.randn(50, 4, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(encode_boxes(decode_boxes(codes, anchors), anchors), codes)


def test_a_code_is_offset_y_offset_x_log_height_log_width() -> None:
    anchor = torch.tensor([10.0, 20.0, 30.0, 60.0])  # 20 wide, 40 high, centre (20, 40)
    box = torch.tensor([15.0, 20.0, 55.0, 80.0])  # 40 wide, 60 high, centre (35, 50)
    expected = torch.tensor([10 / 40, 15 / 20, math.log(60 / 40), math.log(40 / 20)])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)


def _loop_iou(a: Tensor, b: Tensor) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    both = float(max(across, 0.0) * max(down, 0.0))
    return both / (float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - both)


def test_overlaps_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    one, other = _boxes(7, generator), _boxes(9, generator)
    expected = torch.tensor([[_loop_iou(a, b) for b in other] for a in one], dtype=torch.float64)
    torch.testing.assert_close(pairwise_iou(one, other), expected)


def test_anchors_match_by_half_overlap_and_every_box_gets_its_best_anchor() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 50, 50], [80, 80, 90, 90], [0, 5, 10, 15]]).float()
    boxes = torch.tensor([[0, 0, 10, 10], [30, 30, 35, 35], [31, 31, 35, 35], [200, 200, 210, 210]]).float()
    # 0: equal; 1: 0.8; 2: small overlap with boxes 1 and 2, forced for both, the first wins; 3: none; 4: a third
    assert match_anchors(anchors, boxes).tolist() == [0, 0, 1, -1, -1]
    assert match_anchors(anchors, boxes[:0]).tolist() == [-1] * 5


def test_the_focal_loss_equals_its_formula_and_hardly_counts_what_is_right() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    expected = 0.0
    for logit, want in zip(logits.tolist(), wanted.tolist(), strict=True):
        score = 1 / (1 + math.exp(-logit))
        right, alpha = (score, 0.25) if want else (1 - score, 0.75)
        expected -= alpha * (1 - right) ** 1.5 * math.log(right)
    assert focal_loss(logits, wanted).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, wanted), logits)
    extreme = torch.tensor([200.0, -200.0], requires_grad=True)
    focal_loss(extreme, torch.tensor([1.0, 0.0])).backward()
    assert extreme.grad is not None
    assert extreme.grad.tolist() == [0.0, 0.0]


def _planted(boxes: Tensor, labels: Tensor, anchors: Tensor) -> list[Tensor]:
    """Maps of a perfect network: the anchors of each box say its class and its code."""
    matches = match_anchors(anchors, boxes)
    logits, codes = torch.full((len(anchors), CLASSES), -30.0), torch.zeros(len(anchors), 4)
    found = (matches >= 0).nonzero()[:, 0]
    logits[found, labels[matches[found]]] = 30.0
    codes[found] = encode_boxes(boxes[matches[found]], anchors[found])
    counts = [9 * (SIDE // stride) ** 2 for stride in (8, 16, 32, 64, 128)]
    return [
        rows.reshape(1, SIDE // stride, SIDE // stride, -1).permute(0, 3, 1, 2)
        for values in (logits, codes)
        for stride, rows in zip((8, 16, 32, 64, 128), values.split(counts), strict=True)
    ]


def test_planted_boxes_are_found_and_cost_nothing() -> None:
    anchors = anchor_boxes((SIDE, SIDE))
    boxes, labels = torch.tensor([*BOXES, (20.0, 30.0, 90.0, 110.0)]), torch.tensor([*LABELS, 1])
    boxes[2] += torch.tensor([40.0, 60.0, 40.0, 60.0])
    maps = _planted(boxes, labels, anchors)
    (found,) = find_boxes(maps, anchors, (SIDE, SIDE))
    order = np.argsort(found.labels)
    assert found.labels[order].tolist() == [0, 1, 2]
    assert found.scores.min() > 0.99
    np.testing.assert_allclose(found.boxes_xyxy[order], boxes[[1, 2, 0]].numpy(), atol=1e-3)
    loss = detection_loss(maps, anchors, [Target(boxes, labels)])
    assert (float(loss.classes), float(loss.boxes)) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))


def test_the_loss_equals_a_loop_over_anchors() -> None:
    anchors = anchor_boxes((128, 128))
    maps = [torch.randn(2, 9 * n, 128 // s, 128 // s) for n in (CLASSES, 4) for s in (8, 16, 32, 64, 128)]
    targets = [Target(torch.tensor(BOXES) / 2, torch.tensor(LABELS)), Target(torch.zeros(0, 4), torch.zeros(0).long())]
    logits, codes = flatten_maps(maps)
    positives, classes, boxes = 1, 0.0, 0.0
    for picture, target in enumerate(targets):
        for index, match in enumerate(match_anchors(anchors, target.boxes_xyxy).tolist()):
            wanted = torch.zeros(CLASSES)
            if match >= 0:
                positives += 1
                wanted[target.labels[match]] = 1.0
                off = (codes[picture, index] - encode_boxes(target.boxes_xyxy[match], anchors[index])).abs()
                boxes += float(torch.where(off < 0.1, off**2 / 2, 0.1 * (off - 0.05)).sum())
            classes += float(focal_loss(logits[picture, index], wanted))
    loss = detection_loss(maps, anchors, targets)
    assert positives > 3
    assert float(loss.classes) == pytest.approx(classes / positives, rel=1e-4)
    assert float(loss.boxes) == pytest.approx(boxes / (4 * positives), rel=1e-4)
    assert float(loss.total) == pytest.approx(float(loss.classes + 50 * loss.boxes))


@pytest.mark.parametrize("seed", range(5))
def test_suppression_equals_a_loop_and_leaves_other_classes_alone(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, scores = _boxes(60, generator), torch.rand(60, generator=generator)
    labels = torch.randint(0, 2, (60,), generator=generator)
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(labels[k] != labels[row] or _loop_iou(boxes[k], boxes[row]) <= 0.4 for k in kept):
            kept.append(row)
    assert suppress(boxes.numpy(), scores.numpy(), labels.numpy(), 0.4).tolist() == kept
    assert 5 < len(kept) < 55


def test_a_picture_without_objects_has_no_detections_and_a_noisy_one_a_limited_number() -> None:
    anchors = anchor_boxes((SIDE, SIDE))
    maps = _planted(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), anchors)
    (found,) = find_boxes(maps, anchors, (SIDE, SIDE))
    assert (found.boxes_xyxy.shape, len(found.scores), len(found.labels)) == ((0, 4), 0, 0)
    (found,) = find_boxes([torch.zeros_like(m) for m in maps], anchors, (SIDE, SIDE))
    assert len(found.scores) == DETECTIONS_MAX
    assert (found.boxes_xyxy.min(), found.boxes_xyxy.max()) == (0.0, SIDE)


def test_wrong_arguments_are_refused_in_a_sentence() -> None:
    anchors = anchor_boxes((SIDE, SIDE))
    maps = _planted(torch.tensor(BOXES), torch.tensor(LABELS), anchors)
    good = Target(torch.tensor(BOXES), torch.tensor(LABELS))
    with pytest.raises(ValueError, match="expected positive numbers"):
        anchor_boxes((0, 128))
    with pytest.raises(ValueError, match="maps: 9, expected 10"):
        find_boxes(maps[1:], anchors, (SIDE, SIDE))
    with pytest.raises(ValueError, match="make them for the size of the input"):
        find_boxes(maps, anchors[1:], (SIDE, SIDE))
    with pytest.raises(ValueError, match="targets: 2, but the maps are of 1 pictures"):
        detection_loss(maps, anchors, [good, good])
    with pytest.raises(ValueError, match="target 0: a box has no area"):
        detection_loss(maps, anchors, [replace(good, boxes_xyxy=good.boxes_xyxy.flip(1))])
    with pytest.raises(ValueError, match="target 0: a label is outside 0-2"):
        detection_loss(maps, anchors, [replace(good, labels=torch.tensor([0, 3]))])
    with pytest.raises(ValueError, match=r"boxes \(2, 4\), expected \(1, 4\)"):
        detection_loss(maps, anchors, [replace(good, labels=torch.tensor([0]))])
