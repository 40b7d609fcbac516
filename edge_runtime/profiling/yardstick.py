"""Take the device's own speed out of two results: analysis of covariance with the yardsticks of each block.

Two runs of the same thing on the same machine differ by what the machine does meanwhile: clock speed, neighbours behind
a hypervisor, memory traffic. Each block of a profile also times a fixed piece of arithmetic and a pass over memory.
How far the points follow these two from block to block, within one run, is a regression over all blocks; what the
blocks of A and B lie apart on the yardsticks is then taken out at that rate. A change of the bundle or of the engine
does not move the yardsticks, so it stays.

What it cannot tell: a B that makes the whole device slower (its threads spin while it waits) moves the yardsticks, too.
`edge-runtime compare --as-measured` leaves them out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.profiling.result_records import Block, Environment

MIN_BLOCKS = 24
"""Of both results and all points together; fewer say too little about two slopes."""


@dataclass(frozen=True)
class Correction:
    """What was taken out."""

    a: tuple[tuple[Block, ...], ...]
    b: tuple[tuple[Block, ...], ...]
    """The blocks of each point, their samples as on a device of one speed."""
    device_ratio: float
    """What B took longer than A because of the device, 1 for nothing."""


def take_out_device(
    a: Sequence[Sequence[Block]], b: Sequence[Sequence[Block]], devices: tuple[Environment, Environment]
) -> Correction | None:
    """Correct the samples of both results to the same yardsticks.

    Args:
        a, b: the blocks of each point, the same points in the same order.
        devices: of the two results.
    Returns:
        None where that cannot be done: another processor, blocks without yardsticks, or too few of them.
    """
    one, two = devices
    if (one.cpu_model, one.architecture, one.cores) != (two.cpu_model, two.architecture, two.cores):
        return None
    groups = [*a, *b]
    if sum(map(len, groups)) < MIN_BLOCKS or any(_yardsticks(block) is None for group in groups for block in group):
        return None
    slopes = fit_slopes(groups)
    middle = np.median([_yardsticks(block) for group in groups for block in group], axis=0)

    def corrected(blocks: Sequence[Block]) -> tuple[Block, ...]:
        found = []
        for block in blocks:
            factor = math.exp(-float(slopes @ (np.asarray(_yardsticks(block)) - middle)))
            found.append(replace(block, samples_ms=tuple(ms * factor for ms in block.samples_ms)))
        return tuple(found)

    levels = [np.median([_yardsticks(block) for group in side for block in group], axis=0) for side in (a, b)]
    ratio = math.exp(float(slopes @ (levels[1] - levels[0])))
    return Correction(tuple(map(corrected, a)), tuple(map(corrected, b)), ratio)


def fit_slopes(groups: Sequence[Sequence[Block]]) -> np.ndarray:
    """How far the points follow each yardstick, from what varies within one point of one result.

    Args:
        groups: the blocks of one point in one result, for all; each has both yardsticks.
    Returns:
        (2,) of arithmetic and memory, each 0 or more and together at most 1: relative change of the latency for a
        relative change of the yardstick.
    """
    latency, yardsticks = [], []
    for blocks in groups:
        y = np.log([statistics.median(block.samples_ms) for block in blocks])
        x = np.asarray([_yardsticks(block) for block in blocks])
        latency.append(y - y.mean())
        yardsticks.append(x - x.mean(axis=0))
    y, x = np.concatenate(latency), np.concatenate(yardsticks)
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    if slopes.min() < 0.0:  # the one that helps, alone
        alone = [float(column @ y / (column @ column)) if column.any() else 0.0 for column in x.T]
        kept = int(slopes.argmax())
        slopes = np.zeros(2)
        slopes[kept] = max(alone[kept], 0.0)
    return np.asarray(slopes / max(1.0, float(slopes.sum())))


def _yardsticks(block: Block) -> tuple[float, float] | None:
    """Logarithms of both; None without one of them."""
    if block.arithmetic_ms is None or block.memory_ms is None:
        return None
    return math.log(block.arithmetic_ms), math.log(block.memory_ms)
