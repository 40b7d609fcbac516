"""What the controller looks ahead to: points it would like resident, and foreign load that is rising."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_device import ALL, COOL, SimulatedDevice

from edge_runtime.readings import Readings


def test_it_wishes_for_the_point_that_it_would_use_if_it_were_resident() -> None:
    device = SimulatedDevice()
    device.resident = frozenset(["p0", "p1"])
    assert device.policy.wish(ALL) is None
    device.settle()
    assert device.policy.wish(ALL) == "p5"


def test_it_wishes_for_nothing_that_a_cap_forbids() -> None:
    device = SimulatedDevice()
    device.resident = frozenset(["p0"])
    device.readings = Readings(temperature_c=95.0)
    device.settle()
    assert device.policy.wish(ALL) == "p1"


def test_a_wish_does_not_follow_single_frames() -> None:
    device = SimulatedDevice()
    device.resident = frozenset(["p0"])
    wishes = []
    for frame in range(90):
        device.age_ms = 15.0 if frame % 10 == 0 or frame >= 60 else 0.0
        device.frame()
        wishes.append(device.policy.wish(ALL))
    assert set(wishes[1:60]) == {wishes[1]}
    assert wishes[-1] in ("p0", "p1")


def test_a_rise_of_the_foreign_load_raises_the_expected_slowdown_before_the_first_late_frame() -> None:
    device = SimulatedDevice()
    device.readings = replace(COOL, taken_s=1.0, foreign_load=0.0)
    before = device.settle().slowdown
    device.readings = replace(COOL, taken_s=2.0, foreign_load=1.0)
    assert device.frame().slowdown > before + 0.3


def test_what_the_frames_have_told_already_is_not_counted_twice() -> None:
    device = SimulatedDevice(deadline_ms=100.0)
    device.readings = replace(COOL, taken_s=1.0, foreign_load=0.0)
    device.settle()
    device.slowdown = 2.0
    before = device.settle().slowdown
    device.readings = replace(COOL, taken_s=2.0, foreign_load=1.0)
    assert device.frame().slowdown == pytest.approx(before, rel=0.02)


def test_load_that_never_slows_this_device_down_is_no_longer_feared() -> None:
    device = SimulatedDevice(deadline_ms=100.0)
    gains = []
    for second in range(40):
        device.readings = replace(COOL, taken_s=float(second), foreign_load=float(second % 2))
        device.run(1.0)
        gains.append(device.policy._foresight.gain)
    assert gains[-1] < 0.25 * gains[0]


def test_the_same_readings_in_another_object_are_no_news() -> None:
    device = SimulatedDevice()
    device.readings = replace(COOL, taken_s=1.0, foreign_load=0.0)
    device.settle()
    device.readings = replace(COOL, taken_s=2.0, foreign_load=0.5)
    device.frame()
    gain = device.policy._foresight.gain
    device.readings = replace(device.readings)
    device.frame()
    assert device.policy._foresight.gain == gain
