"""Accuracy of a calibrated supernet at each operating point, on each split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo.calibrate import to_tensor
from zoo.madds import count_madds
from zoo.pictures import PictureSource, Split, evaluation_batch
from zoo.slim_net import SlimNet, materialise


@torch.no_grad()
def evaluate_points(
    model: SlimNet,
    source: PictureSource,
    splits: Mapping[str, Split],
    points: Iterable[tuple[float, int]],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 250,
) -> list[dict[str, Any]]:
    """Top-1 accuracy (0-1) per split, and multiply-adds, at each (width, resolution).

    Pictures go through the deployment resize.

    Returns:
        rows with width, resolution, madds and "<split>_accuracy"; a split without pictures has no entry.
    """
    device = next(model.parameters()).device
    rows = []
    for width, resolution in points:
        plain = materialise(model, width=width, resolution=resolution).to(memory_format=torch.channels_last)
        row: dict[str, Any] = {"width": width, "resolution": resolution}
        row["madds"] = count_madds(plain, (1, 3, resolution, resolution))
        for name, split in splits.items():
            if not len(split):
                continue
            right = 0
            for at in range(0, len(split), batch_size):
                batch = evaluation_batch(source, split.names[at : at + batch_size], resolution)
                predicted = plain(to_tensor(batch, mean, std, device)).argmax(1).cpu().numpy()
                right += int(np.sum(predicted == split.labels[at : at + batch_size]))
            row[f"{name}_accuracy"] = right / len(split)
        rows.append(row)
    return rows
