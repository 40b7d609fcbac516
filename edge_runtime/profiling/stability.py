"""Whether a measurement can be trusted, in a sentence: foreign load, throttling, drift, spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edge_runtime.profiling.result_records import Block, SustainedSample, Verdict

MAX_FOREIGN_LOAD = 0.10
"""Share of all cores; a quiet machine's own services stay below a twentieth."""
MAX_SPREAD = 0.10
"""Of block medians around their median: half of the blocks lie within it, up and down."""
MAX_DRIFT = 0.10
"""Between the median of the first and of the last third of the blocks."""
MIN_BLOCKS = 3
MIN_RUNS = 12
MAX_SUSTAINED_LOSS = 0.10
STABLE = Verdict(True, "stable")


def judge_blocks(blocks: Sequence[Block], throttled: bool = False) -> Verdict:
    """The verdict on one point.

    Args:
        blocks: in the order of time.
        throttled: the sensors said so during one of them.
    """
    count = sum(len(block.samples_ms) for block in blocks)
    if len(blocks) < MIN_BLOCKS or count < MIN_RUNS:
        return _unstable(f"only {count} runs in {len(blocks)} blocks")
    foreign = mean_foreign_load(blocks)
    if foreign is not None and foreign > MAX_FOREIGN_LOAD:
        return _unstable(f"foreign load {_percent(foreign)}")
    if throttled:
        return _unstable(f"the device throttles{_heat(blocks)}")
    medians = [statistics.median(block.samples_ms) for block in blocks]
    third = max(1, len(medians) // 3)
    drift = statistics.median(medians[-third:]) / statistics.median(medians[:third]) - 1.0
    if abs(drift) > MAX_DRIFT:
        return _unstable(f"drifted by {drift * 100.0:+.0f} % from the first blocks to the last{_heat(blocks)}")
    middle = statistics.median(medians)
    spread = statistics.median(abs(median - middle) for median in medians) / middle
    if spread > MAX_SPREAD:
        return _unstable(f"half of the blocks differ by more than {_percent(spread)} from the middle one")
    return STABLE


def judge_all(verdicts: Sequence[Verdict], blocks: Sequence[Block]) -> Verdict:
    """The verdict on a whole profile: what most disturbed it."""
    foreign = mean_foreign_load(blocks)
    if foreign is not None and foreign > MAX_FOREIGN_LOAD:
        return _unstable(f"foreign load {_percent(foreign)}")
    faults = [verdict.reason.removeprefix("unstable: ") for verdict in verdicts if not verdict.stable]
    if not faults:
        return STABLE
    return _unstable(f"{len(faults)} of {len(verdicts)} points, first: {faults[0]}")


def judge_sustained(samples: Sequence[SustainedSample], wanted_s: float, took_s: float) -> Verdict:
    """The verdict on a sustained run: is the end as fast as the beginning?"""
    if len(samples) < 2 * MIN_BLOCKS:
        return _unstable(f"only {len(samples)} stretches")
    tenth = max(2, len(samples) // 10)
    first = statistics.median(sample.p50_ms for sample in samples[:tenth])
    last = statistics.median(sample.p50_ms for sample in samples[-tenth:])
    loads = [sample.foreign_load for sample in samples if sample.foreign_load is not None]
    if loads and statistics.fmean(loads) > MAX_FOREIGN_LOAD:
        return _unstable(f"foreign load {_percent(statistics.fmean(loads))}")
    if last > first * (1.0 + MAX_SUSTAINED_LOSS):
        hot = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
        heat = f" ({hot[0]:.0f} to {hot[-1]:.0f} degrees)" if hot else ""
        return _unstable(f"{_percent(last / first - 1.0)} slower at the end than at the beginning{heat}")
    if took_s < 0.9 * wanted_s:
        return _unstable(f"ended after {took_s:.0f} of {wanted_s:.0f} s")
    return STABLE


def mean_foreign_load(blocks: Sequence[Block]) -> float | None:
    """Of the blocks in which it is known."""
    known = [block.foreign_load for block in blocks if block.foreign_load is not None]
    return statistics.fmean(known) if known else None


def _heat(blocks: Sequence[Block]) -> str:
    known = [block.temperature_c for block in blocks if block.temperature_c is not None]
    return f" ({known[0]:.0f} to {known[-1]:.0f} degrees)" if known else ""


def _percent(share: float) -> str:
    return f"{share * 100.0:.0f} %"


def _unstable(reason: str) -> Verdict:
    return Verdict(False, f"unstable: {reason}")
