"""Sensors where there is no /proc: what psutil knows, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from device_trees import known

import edge_runtime.sensors
from edge_runtime.sensors import DeviceSensors


class FakePsutil:
    """As on macOS: no steal or iowait in cpu_times."""

    def __init__(self) -> None:
        self.user_s, self.idle_s, self.own_s = 0.0, 0.0, 0.0
        self.fails = False

    def _check(self) -> None:
        if self.fails:
            raise RuntimeError("host_statistics failed")

    def cpu_times(self) -> tuple[float, ...]:
        self._check()
        from collections import namedtuple

        return namedtuple("CpuTimes", "user nice system idle")(self.user_s, 0.0, 0.0, self.idle_s)

    def Process(self) -> SimpleNamespace:  # noqa: N802 (psutil's name)
        return SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=self.own_s, system=0.0))

    def virtual_memory(self) -> SimpleNamespace:
        self._check()
        return SimpleNamespace(available=5, total=8)

    def sensors_battery(self) -> SimpleNamespace:
        self._check()
        return SimpleNamespace(percent=40, power_plugged=False)


@pytest.fixture
def psutil_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePsutil:
    """A system root without /proc, and a psutil that answers."""
    fake = FakePsutil()
    monkeypatch.setattr(edge_runtime.sensors, "SYSTEM_ROOT", tmp_path)
    monkeypatch.setattr(edge_runtime.sensors, "_installed_psutil", lambda: fake)
    return fake


def test_without_proc_psutil_answers(psutil_only: FakePsutil, tmp_path: Path) -> None:
    sensors = DeviceSensors(tmp_path)
    psutil_only.user_s, psutil_only.idle_s, psutil_only.own_s = 6.0, 4.0, 2.5
    readings = sensors.read(1.0)
    assert (readings.own_load, readings.foreign_load) == (pytest.approx(0.25), pytest.approx(0.35))
    assert (readings.memory_available_bytes, readings.memory_limit_bytes) == (5, 8)
    assert (readings.battery_share, readings.on_battery) == (pytest.approx(0.4), True)
    assert readings.sources["own_load"] == "psutil"


def test_a_psutil_that_fails_gives_unknown(psutil_only: FakePsutil, tmp_path: Path) -> None:
    sensors = DeviceSensors(tmp_path)
    psutil_only.fails = True
    assert known(sensors.read(1.0)) == set()
    assert known(DeviceSensors(tmp_path).read(1.0)) == set()
