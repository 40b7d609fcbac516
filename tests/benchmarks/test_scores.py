"""Scores of runs that were made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_worlds import POINTS

from benchmarks.scores import bootstrap_interval, score
from benchmarks.simulator import RunLog


def run_of(
    chosen: list[int],
    on_time: list[int],
    best: list[float],
    marks: tuple[tuple[float, str], ...] = (),
    expected: list[float] | None = None,
) -> RunLog:
    """A run at 10 frames a second."""
    shares = np.full(len(chosen), np.nan) if expected is None else np.array(expected)
    accuracy = np.array([p.accuracy for p in POINTS])
    point = np.array(chosen, np.int16)
    scores = np.where(np.array(on_time, bool), accuracy[point], 0.0).astype(np.float32)
    possible = np.array(best)[:, None] >= accuracy[None, :]
    latency_ms = np.where(point >= 0, 10.0, np.nan).astype(np.float32)
    return RunLog(
        "ours", "hand", 10.0, POINTS, marks, point, latency_ms, scores, possible, np.array(best, np.float32), shares, 3
    )


def test_attainment_counts_feasible_frames_only() -> None:
    run = run_of([2, 2, -1, 2], [1, 0, 0, 0], [0.6, 0.6, 0.6, 0.0])
    scores = score(run, run_of([2, 2, 2, 0], [1, 1, 1, 0], [0.6, 0.6, 0.6, 0.0]))
    assert scores.attainment == pytest.approx(1 / 3)
    assert scores.in_time_accuracy == pytest.approx(0.15)
    assert scores.regret == pytest.approx((0.45 - 0.15) / 0.45)
    assert scores.dropped == 1


def test_recovery_counts_the_frames_until_five_in_a_row_are_in_time() -> None:
    on_time = [1] * 10 + [0, 0, 1, 0] + [1] * 16
    run = run_of([2] * 30, on_time, [0.6] * 30, ((1.0, "load on"),))
    assert score(run, run).recovery_frames == 4
    never = run_of([2] * 30, [1] * 10 + [0] * 20, [0.6] * 30, ((1.0, "load on"),))
    assert score(never, run).recovery_frames == math.inf


def test_frames_that_nobody_could_answer_do_not_count_as_slow_recovery() -> None:
    on_time = [1] * 10 + [0, 0, 0] + [1] * 17
    best = [0.6] * 10 + [0.0, 0.0, 0.6] + [0.6] * 17
    run = run_of([2] * 30, on_time, best, ((1.0, "load on"),))
    assert score(run, run).recovery_frames == 1


def test_the_way_up_is_measured_against_the_runs_own_calm() -> None:
    # middle while calm, small while loaded, and seven frames late in coming back
    chosen = [1] * 20 + [0] * 20 + [0] * 7 + [1] * 33
    run = run_of(chosen, [1] * 80, [0.6] * 80, ((2.0, "load on"), (4.0, "load off")))
    assert score(run, run).up_s == pytest.approx(0.7)


def test_the_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    low, high = bootstrap_interval([0.01, 0.02, 0.03])
    assert low <= 0.02 <= high
    assert (low, high) == bootstrap_interval([0.01, 0.02, 0.03])


def test_calibration_compares_what_was_expected_with_what_came() -> None:
    # ten frames expected at 90 %, of which nine come in time; ten at 60 %, of which none does
    on_time = [1] * 9 + [0] + [0] * 10
    run = run_of([2] * 20, on_time, [0.6] * 20, expected=[0.91] * 10 + [0.6] * 10)
    assert score(run, run).calibration_error == pytest.approx((0.01 + 0.6) / 2)
    assert score(run_of([2], [1], [0.6]), run).calibration_error is None
