"""Whatever the files of /proc and /sys hold, readings are within their ranges or unknown."""

from __future__ import annotations

import os
from pathlib import Path

import device_trees as trees
import pytest
from device_trees import known
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.readings import Readings
from edge_runtime.sensors import DeviceSensors

GARBAGE = [
    "",
    "\x00\x00",
    "NaN",
    "inf",
    "-1",
    "max",
    "1e309",
    "some avg10=oops",
    "cpu a b c d e f g h",
    "é" * 3000,
    "9" * 5000,
]


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize("machine", [trees.raspberry_pi_5, trees.laptop, trees.container_v2, trees.container_v1])
def test_garbage_in_every_file_never_raises(tmp_path: Path, machine: object, content: str) -> None:
    machine(tmp_path)  # type: ignore[operator]
    before = DeviceSensors(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_text(content)
    for sensors in (before, DeviceSensors(tmp_path)):
        for now_s in (1.0, 2.0):
            assert_sane(sensors.read(now_s))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_in_any_file_give_readings_within_their_ranges(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("machine")
    for machine in (trees.laptop, trees.raspberry_pi_5, trees.container_v2):
        machine(root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    sensors = DeviceSensors(root)
    numbers = st.integers(-(10**20), 10**20).map(lambda number: str(number).encode())
    for path in data.draw(st.lists(st.sampled_from(files), max_size=8)):
        path.write_bytes(data.draw(numbers | st.binary(max_size=60)))
    for now_s in (1.0, 1.0, 0.5, 2.0):
        assert_sane(sensors.read(now_s))
    assert_sane(DeviceSensors(root).read(1.0))


def test_a_folder_or_a_pipe_in_place_of_a_file_is_unknown(tmp_path: Path) -> None:
    trees.raspberry_pi_5(tmp_path)
    zone, memory = tmp_path / "sys/class/thermal/thermal_zone0/temp", tmp_path / "proc/meminfo"
    zone.unlink()
    zone.mkdir()
    memory.unlink()
    os.mkfifo(memory)
    readings = DeviceSensors(tmp_path).read(1.0)
    assert readings.temperature_c is None
    assert readings.memory_limit_bytes is None


def assert_sane(readings: Readings) -> None:
    for name in ("own_load", "foreign_load", "battery_share", "memory_pressure", "cpu_pressure"):
        value = getattr(readings, name)
        assert value is None or 0.0 <= value <= 1.0, name
    assert readings.temperature_c is None or -40.0 <= readings.temperature_c <= 130.0
    assert readings.power_w is None or 0.0 <= readings.power_w <= 5000.0
    assert readings.memory_available_bytes is None or readings.memory_available_bytes >= 0
    assert readings.memory_limit_bytes is None or readings.memory_limit_bytes > 0
    assert set(readings.sources) == known(readings)
