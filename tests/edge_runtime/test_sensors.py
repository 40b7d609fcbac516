"""The device's eyes on emulated machines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import device_trees as trees
import pytest
from device_trees import CPU, known, process_stat, put, stat_line

from edge_runtime.readings import Readings
from edge_runtime.sensors import DeviceSensors


def test_a_machine_without_any_sensor_knows_nothing_and_nothing_raises(tmp_path: Path) -> None:
    readings = DeviceSensors(tmp_path).read(12.5)
    assert readings == Readings(taken_s=12.5)


def test_a_root_that_does_not_exist_knows_nothing(tmp_path: Path) -> None:
    assert known(DeviceSensors(tmp_path / "nowhere").read(0.0)) == set()


def test_the_clock_gives_the_time_where_none_is_told(tmp_path: Path) -> None:
    assert DeviceSensors(tmp_path, clock=lambda: 77.0).read().taken_s == 77.0


# ---- load


def test_load_is_split_into_own_and_foreign(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.quiet_linux(tmp_path))
    put(tmp_path, {"proc/stat": stat_line(user=60, idle=30, steal=10), "proc/self/stat": process_stat(15, 5)})
    readings = sensors.read(1.0)
    assert readings.own_load == pytest.approx(0.20)
    assert readings.foreign_load == pytest.approx(0.50)  # 40 of other processes, 10 stolen by the host


def test_load_is_unknown_before_time_has_passed_and_kept_over_a_short_interval(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.quiet_linux(tmp_path))
    assert sensors.read(0.0).own_load is None
    put(tmp_path, {"proc/stat": stat_line(user=50, idle=50)})
    assert sensors.read(1.0).foreign_load == pytest.approx(0.5)
    put(tmp_path, {"proc/stat": stat_line(user=59, idle=50)})  # nine ticks
    assert sensors.read(1.1).foreign_load == pytest.approx(0.5)


def test_a_living_child_counts_as_own_and_its_end_is_no_burst(tmp_path: Path) -> None:
    child = {"proc/self/task/4242/children": "51", "proc/51/stat": process_stat(1000)}
    sensors = DeviceSensors(put(trees.quiet_linux(tmp_path), child))
    put(tmp_path, {"proc/stat": stat_line(100, 0), "proc/51/stat": process_stat(1030)})
    assert sensors.read(1.0).own_load == pytest.approx(0.30)
    ended = {"proc/self/task/4242/children": "", "proc/self/stat": process_stat(0, cutime=1040)}
    put(tmp_path, {"proc/stat": stat_line(200, 0), **ended})
    assert sensors.read(2.0).own_load == pytest.approx(0.10)


def test_children_are_foreign_if_the_program_says_so(tmp_path: Path) -> None:
    child = {"proc/self/task/4242/children": "51", "proc/51/stat": process_stat(0)}
    sensors = DeviceSensors(put(trees.quiet_linux(tmp_path), child), count_children=False)
    put(tmp_path, {"proc/stat": stat_line(50, 50), "proc/51/stat": process_stat(40)})
    readings = sensors.read(1.0)
    assert (readings.own_load, readings.foreign_load) == (0.0, pytest.approx(0.5))


def test_a_command_with_brackets_and_spaces_does_not_shift_the_fields(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.quiet_linux(tmp_path))
    put(tmp_path, {"proc/stat": stat_line(100, 0), "proc/self/stat": process_stat(25, command="a) R 9 9 (b")})
    assert sensors.read(1.0).own_load == pytest.approx(0.25)


def test_counters_that_go_backwards_give_unknown_then_recover(tmp_path: Path) -> None:
    sensors = DeviceSensors(put(trees.quiet_linux(tmp_path), {"proc/stat": stat_line(500, 500)}))
    put(tmp_path, {"proc/stat": stat_line(10, 10)})
    assert sensors.read(1.0).foreign_load is None
    put(tmp_path, {"proc/stat": stat_line(110, 10)})
    assert sensors.read(2.0).foreign_load == pytest.approx(1.0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_real_work_of_this_process_and_its_child_shows_as_own_load() -> None:
    sensors = DeviceSensors()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        readings = sensors.read()
    finally:
        busy.kill()
        busy.wait()
    assert readings.own_load is not None
    assert readings.own_load > 0.1 / (os.cpu_count() or 1)


# ---- a Raspberry Pi


def test_a_raspberry_pi_tells_frequency_heat_and_pressure(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.raspberry_pi_5(tmp_path)).read(1.0)
    assert readings.core_frequency_mhz == (2400.0, 2400.0, 2400.0, 2400.0)
    assert readings.temperature_c == pytest.approx(61.25)
    assert readings.throttled is False  # a running fan is not throttling
    assert readings.cpu_pressure == pytest.approx(0.125)
    assert readings.memory_pressure == pytest.approx(0.004)
    assert readings.battery_share is None
    assert readings.on_battery is None
    assert readings.sources["temperature_c"] == "/sys/class/thermal/thermal_zone0/temp"


@pytest.mark.parametrize(
    ("word", "throttled"),
    [("0", False), ("50000", False), ("50005", True), ("0x8", True), ("80008", True), ("-1", False), ("zz", False)],
)
def test_the_firmware_word_tells_throttling_now_and_not_in_the_past(tmp_path: Path, word: str, throttled: bool) -> None:
    sensors = DeviceSensors(trees.raspberry_pi_5(tmp_path))
    put(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": word})
    assert sensors.read(1.0).throttled is throttled


def test_an_undervoltage_alarm_is_throttling(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.raspberry_pi_5(tmp_path))
    put(tmp_path, {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": 1})
    assert sensors.read(1.0).throttled is True


def test_a_processor_cooling_device_in_use_is_throttling(tmp_path: Path) -> None:
    cooling = "sys/class/thermal/cooling_device"
    put(tmp_path, {f"{cooling}0/type": "thermal-cpufreq-0", f"{cooling}0/cur_state": 2})
    assert DeviceSensors(tmp_path).read(1.0).throttled is True


# ---- a laptop


def test_a_laptop_tells_the_package_temperature_and_not_the_board_s_or_one_core_s(tmp_path: Path) -> None:
    assert DeviceSensors(trees.laptop(tmp_path)).read(1.0).temperature_c == pytest.approx(72.0)


def test_zones_named_by_a_profile_replace_the_usual_ones(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.laptop(tmp_path), temperature_zones=("no-such", "acpitz"))
    assert sensors.read(1.0).temperature_c == pytest.approx(95.0)


def test_batteries_are_joined_by_capacity_and_a_mouse_does_not_count(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.laptop(tmp_path)).read(1.0)
    assert readings.battery_share == pytest.approx((0.2 * 30 + 1.0 * 10) / 40)
    assert readings.on_battery is True
    assert readings.power_w == pytest.approx(9.0)
    assert readings.core_frequency_mhz == (1200.0, 3400.0)


def test_charging_is_not_living_on_the_battery_and_its_power_is_not_ours(tmp_path: Path) -> None:
    trees.laptop(tmp_path)
    supply = "sys/class/power_supply"
    sensors = DeviceSensors(put(tmp_path, {f"{supply}/AC/online": 1, f"{supply}/BAT0/status": "Charging"}))
    put(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": 1000000})
    assert sensors.read(1.0).on_battery is False
    put(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": 7000000})
    readings = sensors.read(3.0)
    assert readings.power_w == pytest.approx(3.0)  # 6 J in 2 s, of the package alone
    assert readings.sources["power_w"] == "/sys/class/powercap/intel-rapl:0/energy_uj"


def test_an_energy_counter_that_wraps_gives_the_right_power(tmp_path: Path) -> None:
    domain = "sys/class/powercap/intel-rapl:0"
    sensors = DeviceSensors(
        put(
            tmp_path, {f"{domain}/name": "package-0", f"{domain}/energy_uj": 900, f"{domain}/max_energy_range_uj": 1000}
        )
    )
    sensors.read(0.0)
    put(tmp_path, {f"{domain}/energy_uj": 100})
    assert sensors.read(1.0).power_w == pytest.approx(200e-6)


def test_current_times_voltage_is_power_whatever_its_sign(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/BAT0"
    put(tmp_path, {f"{supply}/type": "Battery", f"{supply}/status": "Discharging", f"{supply}/capacity": 50})
    put(tmp_path, {f"{supply}/current_now": -500000, f"{supply}/voltage_now": 4000000})
    assert DeviceSensors(tmp_path).read(1.0).power_w == pytest.approx(2.0)


def test_a_jetson_s_input_rail_is_the_board_s_power(tmp_path: Path) -> None:
    monitor = "sys/class/hwmon/hwmon1"
    put(
        tmp_path,
        {f"{monitor}/name": "ina3221", f"{monitor}/in1_label": "VDD_CPU_GPU_CV", f"{monitor}/in2_label": "VDD_IN"},
    )
    put(tmp_path, {f"{monitor}/in2_input": 5000, f"{monitor}/curr2_input": 1400})
    assert DeviceSensors(tmp_path).read(1.0).power_w == pytest.approx(7.0)


def test_a_grown_throttle_counter_is_throttling_until_it_rests(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.laptop(tmp_path))
    assert sensors.read(1.0).throttled is False
    put(tmp_path, {f"{CPU}/cpu0/thermal_throttle/package_throttle_count": 9})
    assert sensors.read(2.0).throttled is True
    assert sensors.read(3.0).throttled is False


# ---- temperature that makes no sense


@pytest.mark.parametrize(
    ("raw", "celsius"),
    [
        ("45000", 45.0),
        ("45", 45.0),
        ("-5000", -5.0),
        ("0", None),
        ("-273000", None),
        ("-273150", None),
        ("200000", None),
        ("200", None),
        ("255000", None),
        ("", None),
        ("hot", None),
        ("45.5.5", None),
        ("9" * 500, None),
    ],
)
def test_an_implausible_temperature_is_unknown_and_never_zero(tmp_path: Path, raw: str, celsius: float | None) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    put(tmp_path, {f"{zone}/type": "cpu-thermal", f"{zone}/temp": raw})
    assert DeviceSensors(tmp_path).read(1.0).temperature_c == celsius


def test_a_dead_best_sensor_leaves_the_word_to_the_next_kind(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    put(tmp_path, {f"{zone}0/type": "cpu-thermal", f"{zone}0/temp": "-273000"})
    put(tmp_path, {f"{zone}1/type": "soc-thermal", f"{zone}1/temp": "50000"})
    put(tmp_path, {f"{zone}2/type": "gpu-thermal", f"{zone}2/temp": "99000"})
    assert DeviceSensors(tmp_path).read(1.0).temperature_c == pytest.approx(50.0)


def test_zones_of_other_parts_do_not_count_even_if_their_names_look_alike(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    put(tmp_path, {f"{zone}0/type": "soc-thermal", f"{zone}0/temp": "50000"})
    for index, name in enumerate(("soc-gpu", "battery-soc", "skin-soc", "soc-wifi"), start=1):
        put(tmp_path, {f"{zone}{index}/type": name, f"{zone}{index}/temp": "90000"})
    assert DeviceSensors(tmp_path).read(1.0).temperature_c == pytest.approx(50.0)


def test_the_hottest_of_several_processor_zones_counts(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    put(tmp_path, {f"{zone}2/type": "cpu-1-thermal", f"{zone}2/temp": "81000"})
    put(tmp_path, {f"{zone}10/type": "cpu-0-thermal", f"{zone}10/temp": "64000"})
    assert DeviceSensors(tmp_path).read(1.0).temperature_c == pytest.approx(81.0)


def test_a_sensor_that_dies_while_running_becomes_unknown(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.raspberry_pi_5(tmp_path))
    assert sensors.read(1.0).temperature_c is not None
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    readings = sensors.read(2.0)
    assert readings.temperature_c is None
    assert "temperature_c" not in readings.sources
