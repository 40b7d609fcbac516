"""The memory that is left: the machine's, and that of every cgroup a process may be in."""

from __future__ import annotations

from pathlib import Path

import device_trees as trees
import pytest
from device_trees import MIB, put

from edge_runtime.sensors import DeviceSensors


def test_memory_of_a_machine_without_limits(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.quiet_linux(tmp_path)).read(1.0)
    assert readings.memory_limit_bytes == 4096 * MIB
    assert readings.memory_available_bytes == 3072 * MIB


def test_a_nested_cgroup_limits_memory_at_its_tightest_level(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.container_v2(tmp_path)).read(1.0)
    assert readings.memory_limit_bytes == 512 * MIB
    assert readings.memory_available_bytes == (512 - (400 - 100)) * MIB
    assert readings.sources["memory_limit_bytes"] == "/sys/fs/cgroup/pods.slice/pod7/memory.max"


def test_an_outer_group_that_is_nearly_full_is_the_room_that_is_left(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.container_v2(tmp_path))
    put(tmp_path, {"sys/fs/cgroup/pods.slice/memory.current": 2600 * MIB})
    readings = sensors.read(1.0)
    assert readings.memory_limit_bytes == 512 * MIB
    assert readings.memory_available_bytes == 48 * MIB


def test_a_limit_changed_while_running_is_seen(tmp_path: Path) -> None:
    sensors = DeviceSensors(trees.container_v2(tmp_path))
    put(tmp_path, {"sys/fs/cgroup/pods.slice/pod7/main/memory.max": 128 * MIB})
    assert sensors.read(1.0).memory_limit_bytes == 128 * MIB


def test_a_v1_container_without_namespace_is_found_at_its_mount(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.container_v1(tmp_path)).read(1.0)
    assert readings.memory_limit_bytes == 256 * MIB
    assert readings.memory_available_bytes == (256 - 150) * MIB


def test_v1_says_no_limit_with_a_huge_number(tmp_path: Path) -> None:
    trees.container_v1(tmp_path)
    put(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712})
    assert DeviceSensors(tmp_path).read(1.0).memory_limit_bytes == 4096 * MIB
    (tmp_path / "proc/meminfo").unlink()
    assert DeviceSensors(tmp_path).read(1.0).memory_limit_bytes is None


def test_a_container_that_hides_the_machine_s_pressure_tells_its_own(tmp_path: Path) -> None:
    readings = DeviceSensors(trees.container_v2(tmp_path)).read(1.0)
    assert readings.memory_pressure == pytest.approx(0.33)
    assert readings.cpu_pressure is None
