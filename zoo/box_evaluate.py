"""What a calibrated detector finds at each operating point, and its average precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.box_metrics import Boxes, average_precision, mean_precision
from zoo.box_scenes import BoxScene, BoxSceneSet
from zoo.calibrate import to_tensor
from zoo.efficientdet import EfficientDet
from zoo.efficientdet_boxes import Detections, anchor_boxes, find_boxes
from zoo.madds import count_madds
from zoo.pictures import evaluation_batch
from zoo.sizes import input_shape, size_facts
from zoo.slim_net import materialise, to_channels_last

SCORE_MIN = 0.01  # lower than for use: boxes of small scores still add to the average precision
CANDIDATES = 1000  # enough for scenes of a few objects


@torch.no_grad()
def evaluate_boxes(
    model: EfficientDet,
    scenes: Mapping[str, BoxSceneSet],
    points: Iterable[tuple[float, int]],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 100,
) -> list[dict[str, Any]]:
    """Average precision (0-1) per split, and multiply-adds, at each (width, side).

    Scenes go through the deployment resize.

    Args:
        scenes: split name -> its scenes; a split without any has no entry in the rows.
    Returns:
        rows with width, resolution, madds, "<split>_ap50" (at IoU 0.5) and "<split>_ap" (mean of 0.5 to 0.95).
    """
    rows = []
    for width, side in points:
        plain = to_channels_last(materialise(model, width=width, resolution=side))
        row: dict[str, Any] = {"width": width, **size_facts(side), "madds": count_madds(plain, input_shape(side))}
        for name, some in scenes.items():
            if not len(some):
                continue
            found = detect(plain, some, side, mean, std, batch_size)
            there = [at_side(some.scene(one), side) for one in some.split.names]
            table = average_precision(
                [Boxes(d.boxes_xyxy, d.labels, d.scores) for d in found], there, model.num_classes
            )
            row[f"{name}_ap50"], row[f"{name}_ap"] = mean_precision(table)
        rows.append(row)
    return rows


@torch.no_grad()
def detect(
    plain: nn.Module, scenes: BoxSceneSet, side: int, mean: Sequence[float], std: Sequence[float], batch_size: int = 100
) -> list[Detections]:
    """What a materialised detector finds in each scene, in pixels of its input."""
    device = next(plain.parameters()).device
    anchors = anchor_boxes((side, side), plain.settings.anchor_scale)
    found: list[Detections] = []
    for at in range(0, len(scenes), batch_size):
        batch = evaluation_batch(scenes, scenes.split.names[at : at + batch_size], side)
        maps = plain(to_tensor(batch, mean, std, device))
        found += find_boxes(maps, anchors, (side, side), score_min=SCORE_MIN, candidates=CANDIDATES)
    return found


def at_side(scene: BoxScene, side: int) -> Boxes:
    """What is to be found in a scene that was resized to a square of this side, pixels."""
    factor = np.float32(side / scene.pixels.shape[0])
    return Boxes(scene.boxes_xyxy * factor, scene.labels)
