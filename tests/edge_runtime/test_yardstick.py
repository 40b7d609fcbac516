"""The yardsticks: what the device's own speed changed is taken out of a comparison, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from profile_results import ENVIRONMENT, blocks_of, point_of, result_of

from edge_runtime.profiling.blocks import YARDSTICK_SHAPE
from edge_runtime.profiling.compare import compare_results
from edge_runtime.profiling.result import Block, ProfileResult
from edge_runtime.profiling.yardstick import fit_slopes, take_out_device

POINTS = {"small": 0.2, "middle": 0.6, "large": 1.0, "largest": 4.0}
SLOPES = (0.5, 0.2)


def run_with_yardsticks(
    seed: int, slowdown: float = 1.0, arithmetic: float = 1.0, memory: float = 1.0, follows: Sequence[float] = SLOPES
) -> ProfileResult:
    """A profile on a device whose two speeds differ from the usual by these factors, and by 5 % from block to block.

    Args:
        slowdown: of the points alone.
        follows: how far the points follow the two.
    """
    generator = np.random.default_rng(seed)
    points = []
    for name, p50_ms in POINTS.items():
        blocks = blocks_of(p50_ms * slowdown, rounds=12, runs=4, noise=0.005, generator=generator)
        points.append(point_of(name, tuple(_slowed(b, generator, (arithmetic, memory), follows) for b in blocks)))
    return result_of(points)


def _slowed(
    block: Block, generator: np.random.Generator, levels: tuple[float, float], follows: Sequence[float]
) -> Block:
    speeds = np.log(levels) + 0.05 * generator.normal(size=2)
    factor = float(np.exp(np.asarray(follows) @ speeds))
    samples = tuple(ms * factor for ms in block.samples_ms)
    return replace(
        block,
        samples_ms=samples,
        arithmetic_ms=0.5 * float(np.exp(speeds[0])),
        memory_ms=0.4 * float(np.exp(speeds[1])),
    )


def test_a_device_that_became_slower_is_no_regression_of_the_bundle() -> None:
    before, after = run_with_yardsticks(0), run_with_yardsticks(1, arithmetic=1.2, memory=1.2)
    comparison = compare_results(before, after)
    assert not comparison.regressed
    assert comparison.overall_ratio == pytest.approx(1.0, abs=0.01)
    assert comparison.device_ratio == pytest.approx(1.2**0.7, abs=0.02)
    change = 100.0 * (comparison.device_ratio - 1.0)
    assert f"the device itself was {change:.1f} % slower during B: taken out" in comparison.sentences
    assert compare_results(before, after, as_measured=True).regressed


def test_a_regression_that_a_faster_device_would_hide_is_found() -> None:
    before, after = run_with_yardsticks(0), run_with_yardsticks(1, slowdown=1.10, arithmetic=0.87, memory=0.87)
    assert compare_results(before, after).regressed
    assert not compare_results(before, after, as_measured=True).regressed


def test_what_the_bundle_itself_lost_stays() -> None:
    comparison = compare_results(run_with_yardsticks(0), run_with_yardsticks(1, slowdown=1.10))
    assert comparison.regressed
    assert comparison.overall_ratio == pytest.approx(1.10, abs=0.01)
    assert comparison.device_ratio == pytest.approx(1.0, abs=0.03)


def test_the_slopes_are_those_by_which_the_points_follow() -> None:
    points = run_with_yardsticks(3).points
    assert fit_slopes([point.latency.blocks for point in points]) == pytest.approx(SLOPES, abs=0.03)


@pytest.mark.parametrize(
    ("follows", "expected"), [((-0.5, 0.4), (0.0, 0.4)), ((-0.5, -0.2), (0.0, 0.0)), ((1.2, 0.8), (0.6, 0.4))]
)
def test_slopes_are_never_negative_nor_more_than_one_together(
    follows: tuple[float, float], expected: tuple[float, float]
) -> None:
    slopes = fit_slopes([point.latency.blocks for point in run_with_yardsticks(3, follows=follows).points])
    assert slopes == pytest.approx(expected, abs=0.12)
    assert slopes.min() >= 0.0
    assert slopes.sum() <= 1.0 + 1e-12


@pytest.mark.parametrize("change", [{"cpu_model": "Other"}, {"cores": 2}, {"architecture": "aarch64"}])
def test_nothing_is_taken_out_between_different_devices(change: dict[str, object]) -> None:
    before, after = run_with_yardsticks(0), run_with_yardsticks(1, arithmetic=1.2)
    other = replace(after, environment=replace(ENVIRONMENT, **change))
    assert compare_results(before, other).device_ratio is None


def test_nothing_is_taken_out_without_yardsticks_or_with_few_blocks() -> None:
    blocks = run_with_yardsticks(0).points[0].latency.blocks
    devices = (ENVIRONMENT, ENVIRONMENT)
    assert take_out_device([blocks], [blocks], devices) is not None
    assert take_out_device([blocks[:11]], [blocks[:12]], devices) is None
    assert take_out_device([blocks], [(*blocks[:-1], replace(blocks[-1], memory_ms=None))], devices) is None
    assert compare_results(result_of(POINTS), result_of(POINTS)).device_ratio is None


def test_a_yardstick_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a yardstick took 0\.0 ms"):
        Block(0.0, (1.0,), arithmetic_ms=0.0)


def test_the_arithmetic_is_too_small_to_be_divided_among_threads() -> None:
    """OpenBLAS divides a product from 4 x 65,536 multiply-adds on; two threads would measure both cores."""
    _, rows, columns = YARDSTICK_SHAPE
    assert rows * columns * columns <= 4 * 65536
