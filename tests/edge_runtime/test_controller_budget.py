"""The controller under every budget an application may set: accuracy, memory, power, a pinned point."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_device import LADDER, SimulatedDevice, first_choice

from edge_runtime.budget import Budget
from edge_runtime.readings import UNKNOWN, Readings


def test_points_below_the_accuracy_floor_are_not_used() -> None:
    assert first_choice(20.0, min_accuracy=0.6).point == "p5"
    infeasible = first_choice(5.0, min_accuracy=0.6)  # p2 needs 6 ms: late, but accurate enough
    assert infeasible.point == "p2"
    assert not infeasible.feasible


def test_a_raised_accuracy_floor_holds_from_the_next_frame() -> None:
    device = SimulatedDevice(deadline_ms=5.0)
    assert device.settle().point == "p1"
    device.budget = Budget(5.0, min_accuracy=0.6)
    decision = device.frame()
    assert decision.point == "p2"
    assert decision.reason == "accuracy floor before deadline"


@pytest.mark.parametrize(
    ("deadline_ms", "floor", "point", "reason"),
    [
        (0.5, 0.0, "p0", "deadline out of reach"),
        (0.5, 0.7, "p4", "accuracy floor before deadline"),
        (20.0, 0.99, "p5", "accuracy floor out of reach"),
        (0.5, 0.99, "p0", "nothing meets the budget"),
    ],
)
def test_a_budget_that_cannot_be_met_gets_the_least_bad_point_and_says_so(
    deadline_ms: float, floor: float, point: str, reason: str
) -> None:
    decision = first_choice(deadline_ms, min_accuracy=floor)
    assert (decision.point, decision.reason, decision.feasible) == (point, reason, False)


def test_a_point_that_takes_more_memory_than_allowed_is_not_used() -> None:
    ladder = tuple(replace(p, memory_bytes=(i + 1) * 10) for i, p in enumerate(LADDER))
    device = SimulatedDevice(ladder)
    device.budget = Budget(20.0, max_memory_bytes=35)
    decision = device.frame()
    assert (decision.point, decision.reason, decision.limited_by) == ("p2", "memory limit", "memory limit")
    device.budget = Budget(20.0, max_memory_bytes=5)
    decision = device.frame()
    assert (decision.point, decision.reason, decision.feasible) == ("p0", "memory limit out of reach", False)


def test_a_power_limit_keeps_to_points_whose_energy_fits_the_frame_rate() -> None:
    ladder = tuple(replace(p, energy_j=0.01 * (i + 1)) for i, p in enumerate(LADDER))  # p5: 1.8 W at 30 frames/s
    device = SimulatedDevice(ladder)
    device.budget = Budget(20.0, max_power_w=1.0)
    decision = device.settle()
    assert (decision.point, decision.limited_by) == ("p2", "power limit")


def test_a_power_sensor_over_the_limit_lowers_the_cap_until_it_is_kept() -> None:
    device = SimulatedDevice()
    device.budget = Budget(20.0, max_power_w=5.0)
    powers = []
    for second in range(60):
        cost_ms = device.true_ms[device.frame().point]
        powers.append(2.0 + 0.5 * cost_ms)  # p5 draws 8 W, p2 5 W
        device.readings = Readings(taken_s=float(second), power_w=powers[-1])
        device.run(1.0)
    assert powers[0] == 8.0
    assert sum(powers[-20:]) / 20 <= 5.2
    device.readings = UNKNOWN  # nothing more is known: the cap stays
    held = {d.point for d in device.run(3.0)}
    assert "p5" not in held
    device.budget = Budget(20.0)
    assert device.run(1.0)[-1].point == "p5"
