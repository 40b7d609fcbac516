"""The simulator counts as a camera would: late and dropped frames score nothing, and the oracle is the best choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_worlds import POINTS, slowed, small_trace

from benchmarks.simulator import ladder_of, simulate, simulate_oracle, steady_choice
from benchmarks.traces import TraceWorld
from edge_runtime.budget import Budget
from edge_runtime.policies import LadderPoint, Policy, make_policy
from edge_runtime.readings import Readings

LADDER = tuple(LadderPoint(p.name, p.accuracy, p.quiet_ms) for p in POINTS)


def static(name: str) -> Policy:
    return make_policy("static", LADDER, point=name)


def test_every_frame_in_time_scores_its_accuracy() -> None:
    run = simulate(TraceWorld(small_trace()), static("large"))
    assert run.score == pytest.approx(np.full(60, 0.6))
    assert run.latency_ms == pytest.approx(np.full(60, 21.0))
    assert run.best == pytest.approx(np.full(60, 0.6))


def test_a_late_frame_scores_nothing_and_a_busy_device_drops_what_is_no_longer_the_newest() -> None:
    # 81 ms a frame at 33.3 ms a period: of each 2.43 frames one is taken, and every one is late
    run = simulate(TraceWorld(slowed(small_trace(), 0, 60, 4.0)), static("large"))
    assert run.score.sum() == 0.0
    answered = np.flatnonzero(run.point >= 0)
    assert list(answered[:5]) == [0, 2, 4, 7, 9]
    assert run.latency_ms[2] == pytest.approx(81.0 - 2 * 1000 / 30 + 81.0, abs=0.01)


def test_a_frame_that_waited_is_late_although_its_own_work_was_fast() -> None:
    trace = small_trace(deadline_ms=30.0)
    latency_ms = trace.latency_ms.copy()
    latency_ms[3, :] = 50.0
    run = simulate(TraceWorld(replace(trace, latency_ms=latency_ms)), static("large"))
    assert run.on_time[[2, 3, 4, 5]].tolist() == [True, False, False, True]
    assert run.feasible[[2, 3, 4, 5]].tolist() == [True, False, True, True]


def test_the_oracle_takes_the_most_accurate_point_in_time_and_pays_for_switches() -> None:
    trace = slowed(small_trace(), 20, 40, 2.0)  # large takes 40 ms, middle 20, of 25 less 1 beside
    free = simulate_oracle(TraceWorld(trace))
    assert free.score[[10, 30, 50]] == pytest.approx([0.6, 0.5, 0.6])
    assert free.switches == 2
    dear = simulate_oracle(TraceWorld(trace), switch_ms=6.0)
    assert dear.score[20] == pytest.approx(0.4)  # 4 x 2 + 6 fits, 10 x 2 + 6 does not
    assert dear.score[40] < 0.6  # the way back would be late by 2 ms


def test_no_policy_beats_the_oracle_frame_by_frame() -> None:
    trace = slowed(small_trace(), 20, 40, 2.0)
    oracle = simulate_oracle(TraceWorld(trace))
    for name in ("ours", "threshold", "pi", "alert", "slackfit", "static"):
        run = simulate(TraceWorld(trace), make_policy(name, LADDER))
        assert np.all(run.score <= oracle.score + 1e-6), name


def test_an_answer_that_breaks_the_accuracy_floor_or_the_battery_floor_scores_nothing() -> None:
    floor = replace(small_trace(), budgets=((0.0, Budget(25.0, min_accuracy=0.45)),))
    assert simulate(TraceWorld(floor), static("small")).best[0] == pytest.approx(0.6)
    # static falls back to an accurate point by itself, so the floor is tested where none can be in time
    hopeless = replace(floor, budgets=((0.0, Budget(6.0, min_accuracy=0.45)),))
    assert not simulate(TraceWorld(hopeless), static("small")).feasible.any()
    full, low = (Readings(battery_share=share, on_battery=True) for share in (0.5, 0.1))
    saving = replace(
        small_trace(), budgets=((0.0, Budget(25.0, battery_floor_share=0.2)),), readings=((0.0, full), (1.0, low))
    )
    run = simulate(TraceWorld(saving), static("large"))
    assert run.on_time[:30].all()
    assert not run.on_time[30:].any()
    assert simulate_oracle(TraceWorld(saving)).score[45] == pytest.approx(0.4)


def test_a_point_that_is_not_resident_is_no_possible_answer() -> None:
    trace = replace(small_trace(), resident=((0.0, frozenset({"small", "middle"})),))
    assert simulate_oracle(TraceWorld(trace)).best.max() == pytest.approx(0.5)


def test_the_best_point_of_a_second_does_not_foresee_a_single_frame() -> None:
    trace = small_trace()
    latency_ms = trace.latency_ms.copy()
    latency_ms[30, 1:] += 20.0  # one interruption that only the small point escapes
    oracle = simulate_oracle(TraceWorld(replace(trace, latency_ms=latency_ms)))
    assert oracle.score[30] == pytest.approx(0.4)
    steady = steady_choice(oracle)
    assert steady.score[30] == 0.0
    assert steady.score[31] == pytest.approx(0.6)


def test_the_same_seed_gives_the_same_query_table_and_another_seed_another_one() -> None:
    assert ladder_of(POINTS, 1) == ladder_of(POINTS, 1)
    assert ladder_of(POINTS, 1) != ladder_of(POINTS, 2)
    assert [p.accuracy for p in ladder_of(POINTS, 1)] == [p.accuracy for p in POINTS]
