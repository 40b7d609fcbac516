"""Normalisation tables: gamma and beta stored once for all points, a point's statistics as small whole numbers.

The statistics of batch normalisation belong to one (width, resolution), yet those of neighbouring resolutions of a
width hardly differ. A width therefore has one group of two tables, with a row for each resolution: the deviation as
log2 in steps, and the mean in steps of that deviation. The first row is stored as it is, each other one as its
difference from the row before, in byte planes, so that a general compressor finds mostly zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleError

MAX_PLANES = 4
SMALLEST_STEP, LARGEST_STEP = 1e-6, 1.0
MAX_CHANNELS = 1 << 24
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class NormLayer:
    """One folded normalisation layer; stored tensors are longer in the full network, their leading part is taken."""

    gamma: str
    """Stored factor of the layer."""
    beta: str
    """Stored offset."""
    channels: int
    bias: str | None = None
    """Stored bias of the convolution before it."""

    def __post_init__(self) -> None:
        if not 0 < self.channels <= MAX_CHANNELS:
            raise ValueError(f"norm {self.gamma[:80]!r}: {self.channels} channels are impossible")


@dataclass(frozen=True)
class NormTables:
    """How the scale and the shift of a point are made from the tables of its width."""

    group: str
    """Key of the width's arrays in the tables file: "<group>/mean" and "<group>/deviation"."""
    rows: tuple[str, ...]
    """The point's table that each row belongs to."""
    layers: tuple[NormLayer, ...]
    mean_step: float
    """Unit of the means, as a share of the deviation."""
    deviation_step: float
    """Unit of the log2 of the deviations, sqrt(variance + epsilon)."""

    def __post_init__(self) -> None:
        for step in (self.mean_step, self.deviation_step):
            if not SMALLEST_STEP <= step <= LARGEST_STEP:
                raise ValueError(f"norms: a step is {step}, expected {SMALLEST_STEP} to {LARGEST_STEP}")
        if not self.rows or len(set(self.rows)) != len(self.rows):
            raise ValueError("norms: expected at least one row, each for another table")
        if not self.layers:
            raise ValueError("norms: expected at least one layer")

    @property
    def channels(self) -> int:
        """Channels of all layers together."""
        return sum(layer.channels for layer in self.layers)


def scale_and_shift(norms: NormTables, weights: Arrays, tables: Arrays, table: str) -> dict[str, npt.NDArray[Any]]:
    """The folded normalisation of one point: norm(conv(x)) = conv_without_bias(x) * scale + shift.

    Args:
        norms: of the point's program.
        weights: stored tensors of the full network.
        tables: arrays of the tables file.
        table: the point's key, one of `norms.rows`.
    Returns:
        "scale" and "shift", float32 (channels of all layers,), one layer after the other.
    Raises:
        BundleError: the point has no row, an array is missing or does not fit, or a value is not finite.
    """
    if table not in norms.rows:
        raise BundleError(f"recipe: the norms of {norms.group[:80]!r} have no row for {table[:80]!r}; make it again")
    mean, deviation = statistics(norms, tables, norms.rows.index(table))
    gamma = np.concatenate([_leading(weights, layer.gamma, layer.channels) for layer in norms.layers])
    beta = np.concatenate([_leading(weights, layer.beta, layer.channels) for layer in norms.layers])
    bias = np.concatenate([_leading(weights, layer.bias, layer.channels) for layer in norms.layers])
    with np.errstate(all="ignore"):  # what is not finite is refused below
        scale = gamma / deviation
        found = {"scale": scale.astype(np.float32), "shift": (beta + (bias - mean) * scale).astype(np.float32)}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise BundleError(f"tables: a {name} of {table[:80]!r} is not finite; make the bundle again")
    return found


def statistics(norms: NormTables, tables: Arrays, row: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation of one row, float64 (channels of all layers,).

    Raises:
        BundleError: an array is missing or does not fit.
    """
    steps = _row(norms, tables, "deviation", row)
    with np.errstate(all="ignore"):
        deviation = np.exp2(steps * norms.deviation_step)
        return _row(norms, tables, "mean", row) * norms.mean_step * deviation, deviation


def encode_rows(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Differences of whole numbers, row after row, as byte planes.

    Args:
        values: (rows, channels).
    Returns:
        (planes, rows, channels): plane k holds byte k of 2|d| - (d < 0), as few planes as the largest needs.
    Raises:
        ValueError: a difference does not fit in four bytes.
    """
    steps = np.diff(values, axis=0, prepend=0)
    coded = np.where(steps < 0, -2 * steps - 1, 2 * steps)
    largest = int(coded.max(initial=0))
    if largest >> (8 * MAX_PLANES):
        raise ValueError(f"norm tables: a difference of {largest} steps is too large; are the statistics finite?")
    planes = max(1, (largest.bit_length() + 7) // 8)
    return np.stack([(coded >> (8 * k) & 255).astype(np.uint8) for k in range(planes)])


def _row(norms: NormTables, tables: Arrays, name: str, row: int) -> npt.NDArray[np.float64]:
    key = f"{norms.group}/{name}"
    planes = tables.get(key)
    if planes is None or planes.dtype != np.uint8 or planes.ndim != 3 or not 1 <= planes.shape[0] <= MAX_PLANES:
        raise BundleError(f"tables: {key[:80]!r} is missing or has no byte planes; make the bundle again")
    if planes.shape[1:] != (len(norms.rows), norms.channels):
        raise BundleError(
            f"tables: {key[:80]!r} is {planes.shape[1:]}, expected {(len(norms.rows), norms.channels)}; "
            "make the bundle again"
        )
    coded = np.zeros((row + 1, norms.channels), np.int64)
    for k, plane in enumerate(planes):
        coded += plane[: row + 1].astype(np.int64) << (8 * k)
    steps = np.where(coded & 1, -(coded + 1 >> 1), coded >> 1)
    total: npt.NDArray[np.float64] = steps.sum(0).astype(np.float64)
    return total


def _leading(weights: Arrays, name: str | None, channels: int) -> npt.NDArray[np.float64]:
    if name is None:
        return np.zeros(channels)
    stored = weights.get(name)
    if stored is None or stored.ndim != 1 or stored.size < channels:
        raise BundleError(f"weights: {name[:80]!r} is missing or too short; make the bundle again")
    return stored[:channels].astype(np.float64)
