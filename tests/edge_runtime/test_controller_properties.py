"""Invariants of the controller, searched by hypothesis."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_device import ALL, LADDER, SimulatedDevice

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings, DeviceLimits, LadderPoint
from edge_runtime.controller_bands import Band
from edge_runtime.controller_filter import SlowdownFilter
from edge_runtime.controller_surprises import late_share
from edge_runtime.readings import UNKNOWN, Readings

SETTINGS = ControllerSettings()
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | NUMBERS
FLAGS = st.none() | st.booleans()
POSITIVE = st.floats(0, 1e308, exclude_min=True)
RESIDENT = st.sets(st.sampled_from(sorted(ALL)), min_size=1).map(frozenset)
GARBAGE = st.builds(
    Readings, taken_s=NUMBERS, foreign_load=MAYBE, temperature_c=MAYBE, throttled=FLAGS, battery_share=MAYBE,
    on_battery=FLAGS, power_w=MAYBE, memory_limit_bytes=st.none() | st.integers(-(2**70), 2**70), memory_pressure=MAYBE,
)  # fmt: skip
BUDGETS = st.builds(
    Budget, deadline_ms=POSITIVE, min_accuracy=st.floats(0, 1), battery_floor_share=st.none() | st.floats(0, 1),
    target_fps=st.none() | POSITIVE, max_memory_bytes=st.none() | st.integers(1, 2**70),
    max_power_w=st.none() | POSITIVE,
)  # fmt: skip
HEAVY = tuple(replace(p, memory_bytes=(i + 1) << 20, energy_j=0.01 * (i + 1)) for i, p in enumerate(LADDER))
BANDS = DeviceLimits(
    thermal=(Band("warm", 70.0, 65.0, 0.6), Band("hot", 80.0, 75.0, 0.3)), battery=(Band("saver", -0.2, -0.3, 0.5),),
    load=(Band("busy", 0.5, 0.4, 0.5),), memory_pressure=(Band("squeezed", 0.1, 0.05, 0.5),),
)  # fmt: skip


@given(st.lists(st.tuples(NUMBERS, BUDGETS, GARBAGE, RESIDENT, NUMBERS, NUMBERS, MAYBE), min_size=1, max_size=12))
def test_every_finite_input_gives_a_finite_decision_at_a_resident_point(frames: list[tuple]) -> None:
    controller = Controller(HEAVY, limits=BANDS)
    for now_s, budget, readings, resident, age_ms, run_ms, crowding in frames:
        controller.take_crowding(crowding)
        decision = controller.choose(now_s, budget, readings, resident, age_ms)
        assert decision.point in resident
        assert math.isfinite(decision.predicted_ms)
        assert SETTINGS.min_slowdown <= decision.slowdown <= SETTINGS.max_slowdown
        assert 0.0 <= (decision.on_time_share or 0.0) <= 1.0
        controller.observe(decision.point, run_ms)


@given(
    st.lists(st.tuples(st.floats(-20.0, 120.0), st.floats(0.0, 1.0), st.floats(1e-3, 100.0)), min_size=1, max_size=30),
    RESIDENT,
)
def test_no_point_is_above_the_cap_of_the_bands_unless_no_resident_one_is_below(
    seconds: list[tuple[float, float, float]], resident: frozenset[str]
) -> None:
    device = SimulatedDevice(limits=BANDS)
    device.resident = resident
    cheapest = min(resident)
    for second, (temperature_c, battery, slowdown) in enumerate(seconds):
        device.slowdown = slowdown
        device.readings = Readings(taken_s=float(second), temperature_c=temperature_c, battery_share=battery)
        decision = device.frame()
        cap_ms = device.policy.slow.cap_share * LADDER[-1].latency_ms
        assert device.true_ms[decision.point] <= cap_ms or decision.point == cheapest
        if temperature_c > 80.0:
            assert device.policy.slow.cap_share <= 0.3


@given(st.lists(GARBAGE, min_size=1, max_size=20), st.floats(0.3, 3.0))
def test_garbage_readings_do_not_change_the_estimate_of_the_slowdown_for_long(
    readings: list[Readings], slowdown: float
) -> None:
    device = SimulatedDevice(deadline_ms=1000.0, limits=BANDS)
    device.slowdown = slowdown
    for reading in readings:
        device.readings = reading
        device.run(0.2)
    device.readings = UNKNOWN
    assert device.settle().slowdown == pytest.approx(slowdown, rel=0.25)


@given(st.lists(st.floats(0.2, 6.0), min_size=50, max_size=300), st.lists(st.floats(1.0, 60.0), min_size=1, max_size=8))
def test_two_steps_up_are_never_closer_than_the_dwell_time(slowdowns: list[float], deadlines: list[float]) -> None:
    device, ups, last_ms = SimulatedDevice(), [], 12.0
    for frame, slowdown in enumerate(slowdowns):
        device.slowdown = slowdown
        device.budget = Budget(deadlines[frame * len(deadlines) // len(slowdowns)])
        now_s, decision = device.now_s, device.frame()
        latency_ms = device.true_ms[decision.point]
        if latency_ms > last_ms and "out of reach" not in decision.reason:
            ups.append(now_s)
        last_ms = latency_ms
    assert all(later - earlier >= SETTINGS.step_up_dwell_s - 1e-9 for earlier, later in itertools.pairwise(ups))


@given(
    st.floats(0.1, 100.0), st.floats(0.1, 100.0), st.floats(0.0, 1.0), RESIDENT,
    st.lists(st.floats(0.5, 3.0), max_size=80),
)  # fmt: skip
def test_a_longer_deadline_never_gives_a_less_accurate_point(
    a_ms: float, b_ms: float, floor: float, resident: frozenset[str], history: list[float]
) -> None:
    """Of two controllers with the same history, at their next frame and without a point to hold on to."""
    accuracy = {p.name: p.accuracy for p in LADDER}
    chosen = []
    for deadline_ms in sorted((a_ms, b_ms)):
        controller = Controller(LADDER)
        for slowdown in history:
            controller.observe("p3", 8.0 * slowdown)
        chosen.append(controller.choose(0.0, Budget(deadline_ms, floor), UNKNOWN, resident).point)
    assert accuracy[chosen[0]] <= accuracy[chosen[1]]


@given(st.lists(st.floats(1e-9, 1e300), max_size=20))
def test_the_filter_recovers_from_any_history(history: list[float]) -> None:
    slowdown = SlowdownFilter(SETTINGS)
    for value in history:
        slowdown.observe(value, 5.0, 1e-4)
    for _ in range(200):
        slowdown.observe(1.0, 5.0, 1e-4)
    assert slowdown.mean == pytest.approx(1.0, abs=0.05)
    assert slowdown.late_probability(5.0, 10.0, 1e-4) < 0.05


def test_the_filter_survives_a_clock_that_stands_almost_still() -> None:
    slowdown = SlowdownFilter(SETTINGS)
    for _ in range(3000):
        slowdown.observe(1e-300, 5.0, 1e-4)
    assert slowdown.mean == SETTINGS.min_slowdown


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_the_share_of_late_frames_is_a_probability_that_falls(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 1.0 >= late_share(low) >= late_share(high) - 1e-12
    assert late_share(high) >= -1e-12


@pytest.mark.parametrize(
    ("deviations", "share"), [(0.0, 0.5), (1.533, 0.10), (2.132, 0.05), (3.747, 0.01), (7.173, 0.001), (-3.747, 0.99)]
)
def test_the_share_of_late_frames_is_that_of_students_t_with_four_degrees_of_freedom(
    deviations: float, share: float
) -> None:
    """Against the printed table of its quantiles."""
    assert late_share(deviations) == pytest.approx(share, rel=1e-3)


def test_a_ladder_of_one_point_is_a_ladder() -> None:
    device = SimulatedDevice([LadderPoint("only", 0.5, 5.0)])
    device.slowdown = 9.0
    assert {d.point for d in device.run(2.0)} == {"only"}
