"""The slow loop: heat, battery, memory, load, from readings and from emulated /sys and /proc trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import device_trees
import pytest
from device_trees import MIB, put
from simulated_device import COOL, LADDER, SimulatedDevice

from edge_runtime.budget import Budget
from edge_runtime.controller import ControllerSettings, DeviceLimits
from edge_runtime.controller_bands import Band, BandTracker
from edge_runtime.device_profile import list_profiles, load_profile
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.sensors import DeviceSensors

WARM_HOT = (Band("warm", 70.0, 65.0, 0.65), Band("hot", 80.0, 75.0, 0.35))
"""p5 takes 12 ms: warm leaves p2 (6 ms) and less, hot p1 (4 ms)."""
BATTERY = (Band("saver", -0.2, -0.25, 0.5), Band("last", -0.1, -0.15, 0.2))


def device_with(**bands: tuple[Band, ...]) -> SimulatedDevice:
    """Only these bands."""
    return SimulatedDevice(limits=DeviceLimits(**{"thermal": (), **bands}))


class Thermometer:
    """Reads a device at a temperature, once a second."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device, self.second = device, 0

    def point_at(self, temperature_c: float | None, seconds: int = 1) -> str:
        """The point after so many seconds at the temperature."""
        for _ in range(seconds):
            self.second += 1
            self.device.readings = Readings(taken_s=float(self.second), temperature_c=temperature_c)
            decision = self.device.run(1.0)[-1]
        return decision.point


# Bands


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([60, 70, 71, 66, 64, 66], [None, None, "warm", "warm", None, None]),
        ([81, 76, 74, 66, 64], ["hot", "hot", "warm", "warm", None]),
        ([90, 50, 90], ["hot", None, "hot"]),
    ],
)
def test_a_band_is_entered_above_one_value_and_left_below_another(values: list[float], names: list[str]) -> None:
    tracker = BandTracker(WARM_HOT)
    seen = []
    for value in values:
        tracker.update(value)
        seen.append(tracker.name)
    assert seen == names


def test_limits_survive_their_record() -> None:
    for profile in list_profiles():
        limits = DeviceLimits.from_profile(profile)
        assert DeviceLimits.from_dict(limits.to_dict()) == limits


def test_a_falling_band_of_a_profile_rises_when_negated() -> None:
    limits = DeviceLimits.from_profile(load_profile("generic-android"))
    tracker = BandTracker(limits.battery)
    for share, cap_share in ((0.5, 1.0), (0.21, 1.0), (0.19, 0.5), (0.24, 0.5), (0.26, 1.0), (0.09, 0.25)):
        tracker.update(-share)
        assert tracker.cap_share == cap_share


# Heat


def test_a_hot_device_steps_down_holds_while_warm_and_returns_when_cool() -> None:
    device = SimulatedDevice()
    device.settle()
    device.readings = Readings(temperature_c=90.0)
    hot = device.frame()
    assert (hot.point, hot.reason, hot.limited_by) == ("p1", "device hot", "device hot")
    device.readings = Readings(temperature_c=80.0)
    assert {d.point for d in device.run(2.0)} == {"p1"}
    device.readings = COOL
    assert device.run(1.0)[-1].point == "p5"


def test_an_overheating_device_steps_down_band_by_band_before_it_throttles() -> None:
    heat = Thermometer(device_with(thermal=WARM_HOT))
    points = [heat.point_at(temperature_c) for temperature_c in range(60, 90)]
    warm, hot = points.index("p2"), points.index("p1")
    assert 60 + warm < 70  # by its trend, some degrees early
    assert 60 + warm >= 65  # but not where it would leave the band at once
    assert 75 <= 60 + hot < 80
    assert points == ["p5"] * warm + ["p2"] * (hot - warm) + ["p1"] * (30 - hot)


def test_a_temperature_that_stands_still_below_a_band_is_left_alone() -> None:
    heat = Thermometer(device_with(thermal=WARM_HOT))
    assert {heat.point_at(69.0 + 0.5 * (second % 2)) for second in range(60)} == {"p5"}


@pytest.mark.parametrize("replaced", [False, True])
def test_an_unknown_temperature_holds_the_cap_and_never_steps_up(replaced: bool) -> None:
    device = SimulatedDevice()
    device.readings = Readings(temperature_c=90.0)
    assert device.run(1.0)[-1].point == "p1"
    device.readings = UNKNOWN
    if replaced:  # a new table is no news about the heat
        device.policy.replace_ladder([replace(p, latency_ms=p.latency_ms * 0.9) for p in LADDER])
    assert {d.point for d in device.run(5.0)} == {"p1"}


def test_a_device_without_a_thermometer_uses_its_whole_ladder() -> None:
    device = SimulatedDevice()
    device.readings = UNKNOWN
    assert device.run(1.0)[-1].point == "p5"


@pytest.mark.parametrize("garbage_c", [0.0, -273.0, 1e9, -1e300, 65535.0])
def test_an_impossible_temperature_neither_frees_nor_binds(garbage_c: float) -> None:
    heat = Thermometer(device_with(thermal=WARM_HOT))
    assert heat.point_at(85.0) == "p1"
    if garbage_c != 0.0:  # 0 is possible here; the sensors refuse it (edge_runtime/sensing/thermal.py)
        assert heat.point_at(garbage_c, 3) == "p1"
    cool = Thermometer(device_with(thermal=WARM_HOT))
    cool.point_at(50.0)
    assert cool.point_at(garbage_c, 3) == "p5"


def test_a_throttled_device_is_capped_as_in_its_hottest_band() -> None:
    device = device_with(thermal=WARM_HOT)
    device.settle()
    device.readings = Readings(throttled=True)
    decision = device.frame()
    assert (decision.point, decision.limited_by) == ("p1", "device throttled")
    device.readings = UNKNOWN
    assert device.frame().point == "p1"
    device.readings = Readings(throttled=False)
    assert device.settle().point == "p5"


@pytest.mark.parametrize(("deadline_ms", "limited_by"), [(50.0, "device hot"), (4.4, "deadline")])
def test_heat_is_named_only_where_it_is_what_limits(deadline_ms: float, limited_by: str) -> None:
    device = SimulatedDevice(deadline_ms=deadline_ms)
    device.readings = Readings(temperature_c=90.0)
    device.slowdown = 1.0 if deadline_ms > 10.0 else 2.0
    assert device.settle().limited_by == limited_by


# Battery


@pytest.mark.parametrize(
    ("share", "on_battery", "point"),
    [
        (0.1, True, "p0"),
        (0.1, None, "p0"),
        (0.1, False, "p5"),
        (0.5, True, "p5"),
        (None, True, "p5"),
        (9.9, True, "p5"),
    ],
)
def test_below_the_battery_floor_the_cheapest_point_is_used(
    share: float | None, on_battery: bool | None, point: str
) -> None:
    device = SimulatedDevice()
    device.budget = Budget(20.0, battery_floor_share=0.2)
    device.readings = Readings(temperature_c=50.0, battery_share=share, on_battery=on_battery)
    assert device.run(1.0)[-1].point == point


def test_an_unknown_battery_holds_what_was_decided() -> None:
    device = SimulatedDevice()
    device.budget = Budget(20.0, battery_floor_share=0.2)
    device.readings = Readings(battery_share=0.1)
    device.frame()
    device.readings = UNKNOWN
    assert {d.point for d in device.run(2.0)} == {"p0"}


def test_a_low_battery_keeps_the_accuracy_floor() -> None:
    device = SimulatedDevice()
    device.budget = Budget(20.0, min_accuracy=0.6, battery_floor_share=0.2)
    device.readings = Readings(battery_share=0.1)
    decision = device.frame()
    assert (decision.point, decision.reason) == ("p2", "battery low")


def test_a_battery_that_runs_out_steps_down_band_by_band_and_returns_on_mains() -> None:
    device = device_with(battery=BATTERY)
    points = []
    for percent in range(30, 0, -1):
        device.readings = Readings(taken_s=30.0 - percent, battery_share=percent / 100.0, on_battery=True)
        points.append(device.run(0.5)[-1].point)
    assert points == ["p5"] * 11 + ["p2"] * 10 + ["p0"] * 9  # above 20 %, above 10 %, the rest
    device.readings = Readings(taken_s=99.0, battery_share=0.02, on_battery=False)
    assert device.settle().point == "p5"


# Memory and load


def test_memory_pressure_caps_until_it_has_gone() -> None:
    device = device_with(memory_pressure=(Band("squeezed", 0.1, 0.05, 0.5),))
    device.settle()
    for pressure, point in ((0.2, "p2"), (0.07, "p2"), (None, "p2"), (0.01, "p5")):
        device.readings = Readings(memory_pressure=pressure)
        decision = device.run(1.0)[-1]
        assert decision.point == point
    assert decision.limited_by == ""


def test_a_load_band_caps_until_the_fast_loop_has_measured_the_load() -> None:
    device = device_with(load=(Band("busy", 0.5, 0.4, 0.5),))
    device.readings = Readings(taken_s=0.0, foreign_load=0.1)
    device.settle()
    device.readings = Readings(taken_s=1.0, foreign_load=0.9)
    decision = device.frame()
    assert (decision.point, decision.limited_by) == ("p2", "foreign load")
    seconds = ControllerSettings().load_cap_s
    assert device.run(0.9 * seconds)[-1].point == "p2"
    assert device.run(1.0)[-1].point == "p5"  # nothing became slower


def test_the_first_reading_of_a_load_is_no_rise() -> None:
    device = device_with(load=(Band("busy", 0.5, 0.4, 0.5),))
    device.readings = Readings(taken_s=1.0, foreign_load=0.9)
    assert device.settle().point == "p5"


# The same from emulated machines


def test_an_overheating_raspberry_pi_steps_down_and_returns(tmp_path: Path) -> None:
    root = device_trees.raspberry_pi_5(tmp_path)
    profile = load_profile("raspberry-pi-5")
    sensors = DeviceSensors(root, temperature_zones=profile.temperature_zones)
    device = SimulatedDevice(limits=DeviceLimits.from_profile(profile))
    assert read_and_run(device, sensors, 0).point == "p5"
    put(root, {"sys/class/thermal/thermal_zone0/temp": 81000})
    assert read_and_run(device, sensors, 1).limited_by == "device hot"
    (root / "sys/class/thermal/thermal_zone0/temp").unlink()  # the sensor dies while it is hot
    assert read_and_run(device, sensors, 2).point == "p3"  # 8 of 12 ms: the hot band's cap of 0.7 holds
    put(root, {"sys/class/thermal/thermal_zone0/temp": 55000})
    assert read_and_run(device, sensors, 3).point == "p5"


def test_a_raspberry_pi_whose_supply_is_too_weak_is_treated_as_throttled(tmp_path: Path) -> None:
    root = device_trees.raspberry_pi_5(tmp_path)
    sensors, device = DeviceSensors(root), SimulatedDevice()
    read_and_run(device, sensors, 0)
    put(root, {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": 1})
    assert read_and_run(device, sensors, 1).limited_by == "device throttled"


def test_a_machine_without_any_sensor_uses_its_whole_ladder(tmp_path: Path) -> None:
    sensors, device = DeviceSensors(tmp_path), SimulatedDevice()
    assert read_and_run(device, sensors, 0).point == "p5"


def test_a_laptop_whose_battery_runs_out_goes_to_its_cheapest_point(tmp_path: Path) -> None:
    root = device_trees.laptop(tmp_path)
    device = SimulatedDevice(limits=DeviceLimits(thermal=()))
    device.budget = Budget(20.0, battery_floor_share=0.3)
    sensors = DeviceSensors(root)
    assert read_and_run(device, sensors, 0).point == "p5"  # two batteries, 40 % of their charge
    put(root, {"sys/class/power_supply/BAT0/capacity": 5, "sys/class/power_supply/BAT1/capacity": 40})
    decision = read_and_run(device, sensors, 1)
    assert (decision.point, decision.limited_by) == ("p0", "battery low")
    put(root, {"sys/class/power_supply/AC/online": 1, "sys/class/power_supply/BAT0/status": "Charging"})
    assert read_and_run(device, sensors, 2).point == "p5"


def test_a_cgroup_memory_limit_keeps_points_out_that_would_not_fit_it(tmp_path: Path) -> None:
    sensors = DeviceSensors(device_trees.container_v2(tmp_path))  # 512 MiB
    ladder = tuple(replace(p, memory_bytes=(i + 1) * 100 * MIB) for i, p in enumerate(LADDER))
    device = SimulatedDevice(ladder)
    assert device.settle().point == "p5"
    decision = read_and_run(device, sensors, 1)
    assert (decision.point, decision.limited_by) == ("p3", "memory limit")  # 400 MiB of 512 x 0.8


def read_and_run(device: SimulatedDevice, sensors: DeviceSensors, second: int):  # type: ignore[no-untyped-def]
    """One reading, then a second of frames; the last decision."""
    device.readings = sensors.read(float(second * 60))
    return device.run(1.0)[-1]
