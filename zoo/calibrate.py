"""Fill the norm bank: statistics of every normalisation layer for each (width, resolution)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.pictures import PictureSource, Split, evaluation_batch
from zoo.slim_layers import ActivePoint, Stats, active_point
from zoo.slim_net import Size, SlimNet


def to_tensor(
    batch: np.ndarray, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> Tensor:
    """Normalise pictures or clips.

    Args:
        batch: (N, H, W, 3) uint8 RGB, or clips (N, T, H, W, 3).
        mean, std: per channel, in 0-255 units.
    Returns:
        (N, 3, H, W) or (N, 3, T, H, W) float32 in channels-last memory order, on the device.
    """
    x = torch.from_numpy(np.ascontiguousarray(batch)).to(device).movedim(-1, 1).float()
    shape = (1, 3) + (1,) * (x.dim() - 2)
    return (x - torch.tensor(mean, device=device).view(shape)) / torch.tensor(std, device=device).view(shape)


@torch.no_grad()
def point_statistics(model: SlimNet, width: float, batches: Iterable[Tensor]) -> dict[str, Stats]:
    """Average mean and variance of each normalisation layer over the batches, at one width.

    As MutualNet does after training: each layer normalises by its batch, and the statistics of the batches are
    averaged, a short last batch by its share. Batches are of deployment pictures, since statistics of another resize
    kernel describe another network. The model is left in eval mode.

    Raises:
        ValueError: there is no batch.
    """
    model.eval()
    sums: dict[str, list[Tensor]] = {}
    count = 0
    for batch in batches:
        recorder: dict[str, Stats] = {}
        with active_point(ActivePoint(width, recorder=recorder)):
            model(batch)
        count += len(batch)
        for name, stats in recorder.items():
            held = sums.setdefault(name, [torch.zeros_like(s) for s in stats])
            for total, value in zip(held, stats, strict=True):
                total += value * len(batch)
    if count == 0:
        raise ValueError("calibration: no pictures; give the calibration split at least one batch")
    return {name: (mean.cpu() / count, variance.cpu() / count) for name, (mean, variance) in sums.items()}


def calibrate(
    model: SlimNet,
    source: PictureSource,
    split: Split,
    points: Iterable[tuple[float, Size]],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 250,
) -> None:
    """Fill the norm bank of `model` for each (width, size), replacing what it held.

    Args:
        split: pictures to measure on; labels are not used.
        points: operating points; the side of a square picture in pixels, or (frames, height, width) of a clip.
        mean, std: normalisation in 0-255 units.
    """
    device = next(model.parameters()).device
    by_size: dict[Size, list[float]] = {}
    for width, size in points:
        by_size.setdefault(size, []).append(width)
    entries = {}
    for size, widths in by_size.items():
        chunks = [split.names[i : i + batch_size] for i in range(0, len(split), batch_size)]
        batches = [to_tensor(evaluation_batch(source, c, size), mean, std, device) for c in chunks]
        for width in widths:
            stats = point_statistics(model, width, batches)
            on_device = {k: (m.to(device), v.to(device)) for k, (m, v) in stats.items()}
            entries[model.point_key(width, size)] = on_device
    model.norm_bank.entries = entries
