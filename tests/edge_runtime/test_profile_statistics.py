"""What a profile makes of its samples: verdicts, intervals, percentiles."""

from __future__ import annotations

import random
import statistics
from typing import Any

import numpy as np
import pytest
from profile_results import blocks_of

from edge_runtime.profiling.result import Block, SustainedSample
from edge_runtime.profiling.sample_statistics import bootstrap_draws, summarise
from edge_runtime.profiling.stability import judge_all, judge_blocks, judge_sustained

VERDICTS: dict[str, tuple[list[float], dict[str, Any], str]] = {
    "equal blocks": ([1.0] * 9, {}, "stable"),
    "a little noise": ([1.0, 1.03, 0.98, 1.02, 1.0, 0.97], {}, "stable"),
    "one late block": ([1.0, 1.0, 1.0, 3.0, 1.0, 1.0], {}, "stable"),
    "two blocks": ([1.0, 1.0], {}, "unstable: only 12 runs in 2 blocks"),
    "slower and slower": ([1.0, 1.0, 1.1, 1.2, 1.3, 1.3], {}, "unstable: drifted by +30 % from the first blocks"),
    "faster and faster": ([1.3, 1.3, 1.2, 1.1, 1.0, 1.0], {}, "unstable: drifted by -23 % from the first blocks"),
    "scattered": ([1.0, 2.0, 1.5, 1.0, 2.0, 1.5, 1.0, 2.0, 1.5], {}, "unstable: half of the blocks differ by more"),
    "throttled": ([1.0] * 6, {"throttled": True}, "unstable: the device throttles"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_names_its_reason(name: str) -> None:
    levels, options, reason = VERDICTS[name]
    blocks = [Block(float(i), (level,) * 6) for i, level in enumerate(levels)]
    verdict = judge_blocks(blocks, **options)
    assert verdict.reason.startswith(reason)
    assert verdict.stable == (reason == "stable")


def test_the_whole_verdict_counts_the_unstable_points() -> None:
    good, bad = judge_blocks(blocks_of(1.0)), judge_blocks(blocks_of(1.0, rounds=2))
    assert judge_all([good, bad, good], blocks_of(1.0)).reason == (
        "unstable: 1 of 3 points, first: only 12 runs in 2 blocks"
    )
    assert judge_all([good, good], blocks_of(1.0)).stable


def test_a_sustained_run_beside_foreign_load_says_so() -> None:
    samples = [SustainedSample(float(i), 100, 1.0, 1.1, foreign_load=0.3) for i in range(10)]
    assert judge_sustained(samples, 10.0, 10.0).reason == "unstable: foreign load 30 %"


def test_intervals_hold_the_true_median_about_as_often_as_they_say() -> None:
    generator, held = np.random.default_rng(3), 0
    for seed in range(60):
        blocks = blocks_of(1.0, rounds=12, runs=8, noise=0.05, generator=generator)
        estimate = summarise(blocks, seed).p50_ms
        held += estimate.low <= 1.0 <= estimate.high
    assert 50 <= held <= 60  # 95 % of 60 is 57


def test_noise_of_blocks_widens_the_interval_beyond_that_of_single_runs() -> None:
    blocks = blocks_of(1.0, rounds=10, runs=20, noise=0.1)
    together = [[sample for block in blocks for sample in block.samples_ms]]
    by_block = bootstrap_draws([block.samples_ms for block in blocks], 0)[:, 1].std()
    by_run = bootstrap_draws(together, 0)[:, 1].std()
    assert by_block > 1.5 * by_run


def test_percentiles_are_runs_that_happened() -> None:
    samples = [float(n) for n in range(1, 101)]
    random.Random(0).shuffle(samples)
    latency = summarise([Block(0.0, tuple(samples))], 0)
    assert latency.p50_ms.value == statistics.median(samples)
    assert (latency.p90_ms.value, latency.p95_ms.value, latency.p99_ms.value) == (91.0, 96.0, 100.0)
    assert (latency.min_ms, latency.max_ms, latency.mean_ms.value) == (1.0, 100.0, 50.5)
