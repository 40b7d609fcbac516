"""Accuracy and confidence of a calibrated supernet at each operating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.calibrate import to_tensor
from zoo.confidence import confidence_facts, confidence_report
from zoo.madds import count_madds
from zoo.pictures import PictureSource, Split, evaluation_batch
from zoo.sizes import input_shape, size_facts
from zoo.slim_net import Size, SlimNet, materialise, to_channels_last

CONFIDENCE_SPLITS = ("calib", "select")  # temperature and threshold are fitted on these


@torch.no_grad()
def evaluate_points(
    model: SlimNet,
    source: PictureSource,
    splits: Mapping[str, Split],
    points: Iterable[tuple[float, Size]],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 250,
    unsure_share: float | None = None,
) -> list[dict[str, Any]]:
    """Top-1 accuracy (0-1) per split, and multiply-adds, at each (width, size).

    Pictures and clips go through the deployment resize.

    Args:
        unsure_share: also fit the confidence, such that this share of known pictures is answered "unsure".
    Returns:
        rows with width, resolution (for clips frames, too), madds and "<split>_accuracy"; a split without pictures has
        no entry. With `unsure_share`, and pictures in calib or select, also temperature and unsure_below, fitted on
        these; where there is a test split, its ece and unsure_known.
    """
    rows = []
    for width, size in points:
        plain = to_channels_last(materialise(model, width=width, resolution=size))
        row: dict[str, Any] = {"width": width, **size_facts(size)}
        row["madds"] = count_madds(plain, input_shape(size))
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, split in splits.items():
            if not len(split):
                continue
            logits = picture_logits(plain, source, split.names, size, mean, std, batch_size)
            found[name] = (logits, torch.from_numpy(split.labels))
            row[f"{name}_accuracy"] = float((logits.argmax(1) == found[name][1]).double().mean())
        held_out = [found[name] for name in CONFIDENCE_SPLITS if name in found]
        if unsure_share is not None and held_out:
            row |= confidence_facts(held_out, unsure_share)
            row |= confidence_report(*found["test"], row) if "test" in found else {}
        rows.append(row)
    return rows


@torch.no_grad()
def picture_logits(
    plain: nn.Module,
    source: PictureSource,
    names: Sequence[str],
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 250,
) -> Tensor:
    """Scores of a materialised network for what deployment sees of pictures: (pictures, classes) float32 on the CPU."""
    device = next(plain.parameters()).device
    found = []
    for at in range(0, len(names), batch_size):
        batch = evaluation_batch(source, names[at : at + batch_size], size)
        found.append(plain(to_tensor(batch, mean, std, device)).float().cpu())
    return torch.cat(found)
