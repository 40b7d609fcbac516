"""The controller, with numbers only: what it chooses at each moment of a small device's life."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_device import COOL, FPS, LADDER, SimulatedDevice, first_choice

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings, DeviceLimits, LadderPoint
from edge_runtime.controller_bands import Band
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Decision

DWELL_S = ControllerSettings().step_up_dwell_s


# The fast loop


def test_the_first_frame_gets_the_most_accurate_point_that_surely_fits() -> None:
    assert first_choice(1000.0).point == "p5"
    decision = first_choice(13.0)
    assert decision.point == "p4"  # 10 ms; for p5's 12 ms nothing is known yet that would promise it
    assert decision.feasible
    assert decision.limited_by == "deadline"
    assert 0.95 < (decision.on_time_share or 0.0) < 1.0


def test_after_some_frames_a_point_needs_less_room() -> None:
    device = SimulatedDevice(deadline_ms=13.0)
    assert device.settle().point == "p5"  # 12 ms of 13, on a machine that has shown no noise


def test_a_tighter_deadline_steps_down_on_the_next_frame() -> None:
    device = SimulatedDevice()
    assert device.settle().point == "p5"
    device.budget = Budget(7.0)
    decision = device.frame()
    assert (decision.point, decision.switched) == ("p2", True)
    assert decision.reason == "step down: best within the deadline"


def test_a_longer_deadline_is_used_on_the_next_frame() -> None:
    device = SimulatedDevice(deadline_ms=7.0)
    device.settle()
    device.budget = Budget(20.0)
    decision = device.frame()
    assert (decision.point, decision.reason) == ("p5", "step up: longer deadline")


def test_the_age_of_a_frame_counts_against_its_deadline() -> None:
    device = SimulatedDevice()
    device.settle()
    device.age_ms = 13.0
    assert device.frame().point == "p2"


def test_a_frame_rate_that_must_be_kept_up_limits_the_point_however_long_the_deadline() -> None:
    device = SimulatedDevice(deadline_ms=500.0)
    device.budget = Budget(500.0, target_fps=100.0)  # 10 ms a frame
    assert device.settle().point == "p3"


def test_a_slowdown_that_doubles_costs_one_late_frame() -> None:
    device = SimulatedDevice(deadline_ms=16.0)
    assert device.settle().point == "p5"
    device.slowdown, device.late = 2.0, 0
    device.run(3.0)
    assert device.late == 1
    assert device.frame().slowdown == pytest.approx(2.0, rel=0.1)
    assert device.frame().point == "p2"  # 12 ms of 16: the best that fits


def test_one_late_frame_costs_at_most_one_frame_of_accuracy() -> None:
    device = SimulatedDevice()
    device.settle()
    device.slowdown = 3.0
    device.frame()
    device.slowdown = 1.0
    cautious, after, *rest = device.run(1.0)
    assert cautious.reason == "step down: a late frame may stay"
    assert (after.point, after.reason) == ("p5", "step up: the late frame was an accident")
    assert {d.point for d in rest} == {"p5"}


def test_late_frames_that_never_stay_are_no_longer_feared() -> None:
    device = SimulatedDevice(deadline_ms=16.0)
    device.settle()
    fears = []
    for _ in range(40):
        device.slowdown = 1.6
        device.frame()
        device.slowdown = 1.0
        fears.append(device.frame().point != "p5")
        device.run(0.5)
    assert fears[0]
    assert not any(fears[-10:])


def test_when_the_machine_recovers_the_best_point_is_back_within_two_seconds() -> None:
    device = SimulatedDevice()
    device.settle()
    device.slowdown = 4.0
    assert device.settle().point == "p1"
    device.slowdown = 1.0
    points = [d.point for d in device.run(2.0)]
    assert points.index("p5") / FPS <= 0.3
    assert set(points[points.index("p5") :]) == {"p5"}


def test_after_a_step_down_it_waits_for_the_dwell_time_before_it_steps_up() -> None:
    device = SimulatedDevice(deadline_ms=20.0)
    device.settle()
    device.age_ms = 13.0
    device.frame()
    device.age_ms = 0.0
    decisions = device.run(DWELL_S + 0.1)
    waited = [d for d in decisions if d.reason == "hold: dwell"]
    assert len(waited) == pytest.approx(DWELL_S * FPS - 1, abs=1)
    assert decisions[-1].point == "p5"


def test_a_gain_that_is_hardly_one_moves_nothing() -> None:
    ladder = (LadderPoint("fast", 0.600, 2.0), LadderPoint("slow", 0.603, 8.0))
    device = SimulatedDevice(ladder)
    device.resident = frozenset(["fast"])
    device.settle()
    device.resident = frozenset(["fast", "slow"])
    assert {(d.point, d.reason) for d in device.run(2.0)} == {("fast", "hold: gain is small")}


def test_a_dominated_point_is_never_used() -> None:
    ladder = (*LADDER, LadderPoint("worse", 0.74, 13.0), LadderPoint("equal", 0.75, 12.5))
    device = SimulatedDevice(ladder, deadline_ms=100.0)
    assert {d.point for d in device.run(1.0)} == {"p5"}


# The query table


def test_a_point_that_turns_out_slower_than_a_better_one_is_not_chosen_again() -> None:
    """The table says 6.8 ms for `b`; it takes 8.5, more than the better `c`."""
    ladder = (LadderPoint("a", 0.5, 2.0), LadderPoint("b", 0.65, 6.8), LadderPoint("c", 0.7, 7.5))
    device = SimulatedDevice(ladder, deadline_ms=11.0)
    device.true_ms["b"] = 8.5
    for turn in range(20):
        device.resident = frozenset(["a", "b"] if turn % 2 else ["a"])
        device.run(0.5)
    table = device.policy.table
    assert table.cost_ms[1] / table.cost_ms[0] > 8.0 / 2.0
    device.resident = frozenset(["a", "b", "c"])
    assert {d.point for d in device.run(10.0)[30:]} == {"c"}
    learned = list(table.cost_ms)
    device.budget = Budget(8.4)  # by the table as it was, b would now be the best
    assert "b" not in {d.point for d in device.run(5.0)}
    assert table.cost_ms[1] == learned[1]


def test_late_at_one_point_and_as_expected_at_another_is_the_tables_fault_too() -> None:
    device = SimulatedDevice(deadline_ms=16.0)
    device.settle()
    device.slowdown = 1.6
    assert device.frame().point == "p5"
    device.slowdown = 1.0
    assert device.frame().point != "p5"
    assert device.policy.table.cost_ms[5] > 12.0


def test_a_correction_is_bounded() -> None:
    device = SimulatedDevice(deadline_ms=100.0)
    for step in range(2000):
        device.true_ms["p5"] = 12.0 * (1.0 + 0.02 * step)
        device.frame()
    limit = ControllerSettings().max_correction
    assert all(
        p.latency_ms / limit <= cost <= p.latency_ms * limit
        for p, cost in zip(device.policy.ladder, device.policy.table.cost_ms, strict=True)
    )


def test_points_that_nobody_measured_keep_their_tabled_latency() -> None:
    device = SimulatedDevice(deadline_ms=13.0)
    device.run(5.0)
    assert device.policy.table.cost_ms[:3] == [2.0, 4.0, 6.0]


def test_a_new_table_keeps_the_current_point_and_what_is_expected_of_it() -> None:
    device = SimulatedDevice(deadline_ms=7.0)
    before = device.settle()
    device.policy.replace_ladder([replace(p, latency_ms=p.latency_ms * 2.0) for p in LADDER])
    after = device.frame()
    assert (after.point, after.switched) == (before.point, False)
    assert after.predicted_ms == pytest.approx(before.predicted_ms, rel=0.05)
    reversed_ladder = [replace(p, latency_ms=14.0 - p.latency_ms) for p in LADDER]
    device.policy.replace_ladder(reversed_ladder)
    assert device.policy.ladder[device.policy.current or 0].name == before.point


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ([], "ladder is empty"),
        ([LADDER[0], LADDER[0]], "same name"),
        ([LadderPoint("zero", 0.5, 0.0)], "latency is 0.0 ms, expected more than 0"),
    ],
)
def test_a_ladder_without_sense_is_refused(ladder: list[LadderPoint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Controller(ladder)


def test_no_resident_point_at_all_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no resident point is in the ladder"):
        Controller(LADDER).choose(0.0, Budget(), UNKNOWN, frozenset(["other"]))


def test_a_pinned_point_is_used_whatever_happens_until_it_is_unpinned() -> None:
    device = SimulatedDevice()
    device.policy.pinned = "p3"
    device.readings, device.slowdown = Readings(temperature_c=95.0), 5.0
    assert {(d.point, d.reason, d.limited_by) for d in device.run(1.0)} == {("p3", "pinned", "pinned")}
    device.policy.pinned = None
    assert device.frame().point == "p0"


def test_only_resident_points_are_chosen() -> None:
    device = SimulatedDevice()
    device.resident = frozenset(["p1", "p2"])
    assert {(d.point, d.limited_by) for d in device.run(2.0)} == {("p2", "not in memory")}
    device.policy.pinned = "p4"  # not there yet
    assert device.frame().point == "p2"
    device.policy.pinned = None
    device.readings = Readings(temperature_c=95.0)  # the cap lies below every resident point
    device.resident = frozenset(["p4", "p5"])
    assert device.frame().point == "p4"


def test_switches_are_counted() -> None:
    device = SimulatedDevice()
    decisions = device.run(1.0)
    device.budget = Budget(7.0)
    decisions += device.run(1.0)
    assert device.policy.switches == sum(d.switched for d in decisions) == 1


def test_a_clock_that_goes_backwards_delays_a_step_up_by_no_more_than_the_dwell_time() -> None:
    device = SimulatedDevice()
    device.settle()
    device.age_ms = 13.0
    device.frame()
    device.age_ms, device.now_s = 0.0, -1000.0
    assert device.run(DWELL_S + 0.1)[-1].point == "p5"


def test_a_new_budget_object_that_says_the_same_changes_nothing() -> None:
    """An application may make one for each frame; caps that end by themselves end all the same."""
    limits = DeviceLimits(thermal=(), load=(Band("busy", 0.5, 0.4, 0.5),))
    devices = [SimulatedDevice(limits=limits) for _ in range(2)]
    decisions: list[list[Decision]] = [[], []]
    for frame in range(120):
        for which, device in enumerate(devices):
            device.readings = replace(COOL, taken_s=float(frame // 30), foreign_load=0.9 if frame >= 30 else 0.0)
            if which:
                device.budget = Budget(20.0)
            decisions[which].append(device.frame())
    assert decisions[0] == decisions[1]
    assert {"p2", "p5"} <= {d.point for d in decisions[0]}
    assert decisions[0][-1].point == "p5"
