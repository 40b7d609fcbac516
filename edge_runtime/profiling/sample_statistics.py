"""From blocks of runs to figures with intervals: percentiles, and a bootstrap whose unit is the block.

Runs inside a block share what happened meanwhile (a busy neighbour, a warm core), so they are not independent; blocks
are. A repetition draws blocks, then runs within each block drawn (Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.profiling.result_records import Block, Estimate, Latency

REPETITIONS = 400
INTERVAL_PERCENT = (2.5, 97.5)
PERCENTILES = (50.0, 90.0, 95.0, 99.0)

Samples = npt.NDArray[np.float64]


def bootstrap_draws(
    blocks: Sequence[Sequence[float]], seed: int, repetitions: int = REPETITIONS
) -> npt.NDArray[np.float64]:
    """Mean and percentiles of each repetition.

    Args:
        blocks: runs of each block, milliseconds.
        seed: equal seeds draw equally.
    Returns:
        (repetitions, 1 + len(PERCENTILES)): the mean, then the percentiles.
    """
    generator = np.random.default_rng(seed)
    lengths = np.asarray([len(block) for block in blocks])
    table = np.zeros((len(blocks), lengths.max()))
    for row, block in zip(table, blocks, strict=True):
        row[: len(block)] = block
    chosen = generator.integers(0, len(blocks), (repetitions, len(blocks)))
    shares = generator.random((*chosen.shape, round(float(lengths.mean()))))
    runs = (shares * lengths[chosen][..., None]).astype(int)
    drawn = table[chosen[..., None], runs].reshape(repetitions, -1)
    return np.column_stack([drawn.mean(axis=1), _percentiles(drawn).T])


def summarise(blocks: Sequence[Block], seed: int) -> Latency:
    """The figures of one point."""
    samples = np.concatenate([np.asarray(block.samples_ms) for block in blocks])
    draws = bootstrap_draws([block.samples_ms for block in blocks], seed)
    low, high = np.percentile(draws, INTERVAL_PERCENT, axis=0)
    values = [float(samples.mean()), *(float(value) for value in _percentiles(samples))]
    mean, p50, p90, p95, p99 = (
        Estimate(_rounded(value), _rounded(min(value, low[i])), _rounded(max(value, high[i])))
        for i, value in enumerate(values)
    )
    return Latency(
        len(samples), mean, p50, p90, p95, p99, float(samples.min()), float(samples.max()),
        _rounded(float(samples.std())), tuple(blocks),
    )  # fmt: skip


def _percentiles(samples: Samples) -> Samples:
    """p50, p90, p95, p99 along the last axis; p50 is interpolated, the others are runs that happened, rounded up."""
    found = np.percentile(samples, PERCENTILES, axis=-1, method="higher")
    found[0] = np.median(samples, axis=-1)
    return np.asarray(found)


def _rounded(value: float) -> float:
    return round(float(value), 6)
