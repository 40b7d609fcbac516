"""The controller, with numbers only: what it chooses at each moment of a small device's life."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings, LadderPoint, SlowdownFilter
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Decision

LADDER = tuple(LadderPoint(f"p{i}", 0.5 + 0.05 * i, 2.0 * (i + 1)) for i in range(6))
"""p0: 2 ms, accuracy 0.50 ... p5: 12 ms, accuracy 0.75."""
ALL = frozenset(p.name for p in LADDER)
DWELL_S = ControllerSettings().step_up_dwell_s
COOL, HOT, WARM = (Readings(temperature_c=t) for t in (50.0, 90.0, 80.0))


class Device:
    """A controller on a simulated machine: 100 frames a second, each taking the table's time x `slowdown`."""

    def __init__(self, ladder: tuple[LadderPoint, ...] = LADDER, deadline_ms: float = 20.0) -> None:
        self.controller = Controller(ladder)
        self.table = {p.name: p.latency_ms for p in ladder}
        self.budget, self.readings = Budget(deadline_ms), COOL
        self.resident, self.slowdown, self.now_s = frozenset(self.table), 1.0, 0.0

    def frame(self) -> Decision:
        decision = self.controller.choose(self.now_s, self.budget, self.readings, self.resident)
        self.controller.observe(decision.point, self.table[decision.point] * self.slowdown)
        self.now_s += 0.01
        return decision

    def run(self, seconds: float) -> list[Decision]:
        return [self.frame() for _ in range(round(seconds * 100))]


def first_choice(deadline_ms: float, **budget: float) -> Decision:
    """What a fresh controller chooses."""
    return Controller(LADDER).choose(0.0, Budget(deadline_ms, **budget), UNKNOWN, ALL)  # type: ignore[arg-type]


def test_the_first_frame_gets_the_most_accurate_point_that_fits() -> None:
    assert first_choice(1000.0).point == "p5"
    assert first_choice(13.0).point == "p3"  # 8 ms x the 99 % slowdown; p4 would need 14.9 ms with the margin
    assert first_choice(13.0).feasible


def test_a_tighter_deadline_steps_down_on_the_next_frame() -> None:
    device = Device()
    assert device.run(1.0)[-1].point == "p5"
    device.budget = Budget(7.0)
    decision = device.frame()
    assert decision.point == "p1"
    assert decision.switched
    assert decision.reason == "step down: best within the deadline"


def test_the_age_of_a_frame_counts_against_its_deadline() -> None:
    device = Device()
    device.run(1.0)
    decision = device.controller.choose(device.now_s, device.budget, COOL, ALL, age_ms=12.0)
    assert decision.point == "p1"


def test_it_steps_up_only_after_the_dwell_time_without_interruption() -> None:
    device = Device(deadline_ms=7.0)
    device.run(1.0)
    device.budget = Budget(20.0)
    held = device.run(DWELL_S - 0.02)
    assert {d.point for d in held} == {"p1"}
    assert {d.reason for d in held} == {"hold: dwell"}
    device.budget = Budget(7.0)  # an interruption
    device.frame()
    device.budget = Budget(20.0)
    assert {d.point for d in device.run(DWELL_S - 0.02)} == {"p1"}
    risen = device.run(0.1)[-1]
    assert risen.point == "p5"


def test_it_steps_up_only_with_a_margin() -> None:
    device = Device((LadderPoint("fast", 0.5, 2.0), LadderPoint("slow", 0.7, 14.0)))
    device.slowdown = 2.0
    assert device.run(1.0)[-1].point == "fast"
    device.slowdown = 1.0
    decision = device.run(5.0)[-1]
    assert Controller(device.controller.ladder).choose(0.0, Budget(20.0), COOL, {"slow"}).feasible
    assert (decision.point, decision.reason) == ("fast", "hold: margin")  # it would fit, but with little to spare
    device.budget = Budget(40.0)
    assert device.run(1.0)[-1].point == "slow"


def test_a_point_without_margin_does_not_bar_the_way_to_one_with_it() -> None:
    device = Device(
        (LadderPoint("fast", 0.5, 2.0), LadderPoint("middle", 0.6, 10.0), LadderPoint("slow", 0.7, 14.0))
    )  # fmt: skip
    device.resident = frozenset(["fast"])
    device.run(1.0)
    device.resident = frozenset(["fast", "middle", "slow"])
    assert device.run(2.0)[-1].point == "middle"


def test_a_slowdown_that_doubles_changes_the_point_after_two_frames() -> None:
    device = Device(deadline_ms=16.0)
    before = device.run(2.0)[-1].point
    device.slowdown = 2.0
    device.frame()  # may be an accident
    device.frame()  # is none
    after = device.frame()
    assert device.table[after.point] * 2.0 <= 16.0
    assert device.table[after.point] < device.table[before]
    assert after.slowdown == pytest.approx(2.0, rel=0.1)


def test_one_late_frame_changes_nothing() -> None:
    device = Device()
    device.run(1.0)
    device.slowdown = 50.0
    device.frame()
    device.slowdown = 1.0
    assert {d.point for d in device.run(1.0)} == {"p5"}


def test_when_the_machine_recovers_the_best_point_returns() -> None:
    device = Device()
    device.run(1.0)
    device.slowdown = 4.0
    assert device.run(1.0)[-1].point == "p0"
    device.slowdown = 1.0
    assert device.run(3.0)[-1].point == "p5"


@pytest.mark.parametrize(("deadline_ms", "reason"), [(50.0, "device hot"), (4.0, "best within the deadline")])
def test_heat_is_named_only_where_it_is_what_limits(deadline_ms: float, reason: str) -> None:
    """The best point under the cap is not the costliest one under it; at 4 ms nothing beyond the cap would fit."""
    costs = ((1.0, 0.6), (1.5, 0.5), (9.0, 0.7), (12.0, 0.8))
    device = Device(
        tuple(LadderPoint(f"q{i}", accuracy, cost) for i, (cost, accuracy) in enumerate(costs)), deadline_ms
    )
    device.readings = HOT
    assert (device.frame().point, device.frame().reason) == ("q0", reason)


def test_a_hot_device_steps_down_holds_while_warm_and_returns_when_cool() -> None:
    device = Device()
    device.run(1.0)
    device.readings = HOT
    hot = device.frame()
    assert (hot.point, hot.reason) == ("p1", "step down: device hot")
    device.readings = WARM
    assert {d.point for d in device.run(2.0)} == {"p1"}
    device.readings = COOL
    assert device.run(1.0)[-1].point == "p5"


@pytest.mark.parametrize("replaced", [False, True])
def test_an_unknown_temperature_holds_the_cap_and_never_steps_up(replaced: bool) -> None:
    device = Device()
    device.readings = HOT
    assert device.run(1.0)[-1].point == "p1"
    device.readings = UNKNOWN
    if replaced:  # a new table is no news about the heat
        device.controller.replace_ladder([replace(p, latency_ms=p.latency_ms * 0.9) for p in LADDER])
    assert {d.point for d in device.run(5.0)} == {"p1"}


def test_a_device_without_a_thermometer_uses_its_whole_ladder() -> None:
    device = Device()
    device.readings = UNKNOWN
    assert device.run(1.0)[-1].point == "p5"


@pytest.mark.parametrize(
    ("share", "on_battery", "point"),
    [(0.1, True, "p0"), (0.1, None, "p0"), (0.1, False, "p5"), (0.5, True, "p5"), (None, True, "p5")],
)
def test_a_low_battery_means_the_cheapest_point(share: float | None, on_battery: bool | None, point: str) -> None:
    device = Device()
    device.budget = Budget(20.0, battery_floor_share=0.2)
    device.readings = Readings(temperature_c=50.0, battery_share=share, on_battery=on_battery)
    assert device.run(1.0)[-1].point == point


def test_an_unknown_battery_holds_what_was_decided() -> None:
    device = Device()
    device.budget = Budget(20.0, battery_floor_share=0.2)
    device.readings = Readings(battery_share=0.1)
    device.frame()
    device.readings = UNKNOWN
    assert {d.point for d in device.run(2.0)} == {"p0"}


def test_a_low_battery_keeps_the_accuracy_floor() -> None:
    budget = Budget(20.0, min_accuracy=0.6, battery_floor_share=0.2)
    decision = Controller(LADDER).choose(0.0, budget, Readings(battery_share=0.1), ALL)
    assert (decision.point, decision.reason) == ("p2", "battery low")


def test_points_below_the_accuracy_floor_are_not_used() -> None:
    assert first_choice(20.0, min_accuracy=0.6).point == "p5"
    infeasible = first_choice(5.0, min_accuracy=0.6)  # p2 needs 6 ms: late, but accurate enough
    assert infeasible.point == "p2"
    assert not infeasible.feasible


def test_a_raised_accuracy_floor_holds_from_the_next_frame() -> None:
    device = Device(deadline_ms=7.0)
    assert device.run(1.0)[-1].point == "p1"
    device.budget = Budget(7.0, min_accuracy=0.6)
    decision = device.frame()
    assert decision.point == "p2"
    assert "accuracy floor" in decision.reason


@pytest.mark.parametrize(
    ("deadline_ms", "floor", "point"), [(0.5, 0.0, "p0"), (0.5, 0.7, "p4"), (20.0, 0.99, "p5"), (0.5, 0.99, "p0")]
)
def test_a_budget_that_cannot_be_met_gets_the_least_bad_point_and_says_so(
    deadline_ms: float, floor: float, point: str
) -> None:
    decision = first_choice(deadline_ms, min_accuracy=floor)
    assert decision.point == point
    assert not decision.feasible
    assert decision.reason != "best within the deadline"


def test_a_pinned_point_is_used_whatever_happens_until_it_is_unpinned() -> None:
    device = Device()
    device.controller.pinned = "p3"
    device.readings, device.slowdown = HOT, 5.0
    assert {(d.point, d.reason) for d in device.run(1.0)} == {("p3", "pinned")}
    device.controller.pinned = None
    assert device.frame().point == "p0"


def test_only_resident_points_are_chosen() -> None:
    device = Device()
    device.resident = frozenset(["p1", "p2"])
    assert {d.point for d in device.run(2.0)} == {"p2"}
    device.controller.pinned = "p4"  # not there yet
    assert device.frame().point == "p2"
    device.readings = HOT  # the cap may lie below every resident point
    device.resident = frozenset(["p4", "p5"])
    assert device.frame().point == "p4"


def test_a_new_table_keeps_the_current_point_and_its_name() -> None:
    device = Device(deadline_ms=7.0)
    assert device.run(1.0)[-1].point == "p1"
    device.controller.replace_ladder([replace(p, latency_ms=14.0 - p.latency_ms) for p in LADDER])  # reversed
    assert device.controller.ladder[device.controller.current or 0].name == "p1"
    decision = device.controller.choose(device.now_s, Budget(100.0), COOL, ALL)
    assert decision.point == "p5"


def test_an_empty_ladder_is_refused() -> None:
    with pytest.raises(ValueError, match="ladder is empty"):
        Controller([])


def test_switches_are_counted() -> None:
    device = Device()
    decisions = device.run(1.0)
    device.budget = Budget(7.0)
    decisions += device.run(1.0)
    assert device.controller.switches == sum(d.switched for d in decisions) == 1


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | NUMBERS


@given(
    st.lists(
        st.tuples(NUMBERS, st.floats(0, 1e308, exclude_min=True), st.floats(0, 1), MAYBE, MAYBE, NUMBERS),
        min_size=1,
        max_size=8,
    )
)
def test_every_finite_input_gives_a_finite_decision(
    frames: list[tuple[float, float, float, float | None, float | None, float]],
) -> None:
    controller = Controller(LADDER)
    for run_ms, deadline_ms, floor, temperature_c, battery, age_ms in frames:
        budget = Budget(deadline_ms, floor, battery_floor_share=0.2)
        readings = Readings(temperature_c=temperature_c, battery_share=battery)
        decision = controller.choose(0.0, budget, readings, ALL, age_ms)
        assert decision.point in ALL
        assert math.isfinite(decision.predicted_ms)
        assert decision.slowdown > 0
        controller.observe(decision.point, run_ms)
        assert math.isfinite(controller.filter.quantile())


def test_the_filter_survives_a_clock_that_stands_almost_still() -> None:
    slowdown = SlowdownFilter(ControllerSettings())
    for _ in range(3000):
        slowdown.observe(1e-300)
    assert 0.0 < slowdown.mean <= slowdown.quantile() < 1.0


@given(st.lists(st.floats(1e-9, 1e300), max_size=20))
def test_the_filter_recovers_from_any_history(history: list[float]) -> None:
    slowdown = SlowdownFilter(ControllerSettings())
    for value in history:
        slowdown.observe(value)
    for _ in range(100):
        slowdown.observe(1.0)
    assert slowdown.mean == pytest.approx(1.0, abs=0.05)
    assert 1.0 < slowdown.quantile() < 2.0


@given(
    st.floats(0.1, 100.0), st.floats(0.1, 100.0), st.floats(0.0, 1.0),
    st.sets(st.sampled_from(sorted(ALL)), min_size=1),
)  # fmt: skip
def test_a_longer_deadline_never_gives_a_less_accurate_point(a: float, b: float, floor: float, here: set[str]) -> None:
    accuracy = {p.name: p.accuracy for p in LADDER}
    short, long = (
        Controller(LADDER).choose(0.0, Budget(deadline, floor), UNKNOWN, here) for deadline in sorted((a, b))
    )
    assert accuracy[short.point] <= accuracy[long.point]


@given(st.lists(st.floats(0.3, 4.0), min_size=50, max_size=300))
def test_steps_up_are_never_closer_than_the_dwell_time(slowdowns: list[float]) -> None:
    device, ups, last = Device(), [], 12.0
    for slowdown in slowdowns:
        device.slowdown = slowdown
        now_s, latency_ms = device.now_s, device.table[device.frame().point]
        if latency_ms > last:
            ups.append(now_s)
        last = latency_ms
    assert all(later - earlier >= DWELL_S - 1e-9 for earlier, later in itertools.pairwise(ups))
