"""Scenarios: the file, the phases, the overridden sensors and the busy children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.camera.busy_children import BusyChildren
from apps.camera.scenario import (
    OverriddenSensors,
    ScenarioError,
    ScenarioPlayer,
    load_scenario,
    usable_cores,
)
from edge_runtime.budget import Budget
from edge_runtime.readings import Readings

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
title = "test"
[[phase]]
name = "calm"
start_s = 0
[[phase]]
name = "tight"
start_s = 2.5
deadline_ms = 4
min_accuracy = 0.5
cpu_load = 2
[[phase]]
name = "saver"
start_s = 5.0
target_fps = 10
battery_share = 0.1
on_battery = true
temperature_c = 71
battery_floor_share = 0.2
cpu_load = "all"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return path


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class FakeSensors:
    def read(self, now_s: float) -> Readings:
        return Readings(taken_s=now_s, battery_share=0.9, temperature_c=40.0, sources={"temperature_c": "zone0"})


class FakeBusy:
    def __init__(self) -> None:
        self.counts: list[int] = []

    def set_count(self, count: int) -> None:
        self.counts.append(count)


def test_a_scenario_is_read_with_all_its_values(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    calm, tight, saver = scenario.phases
    assert (scenario.title, calm.name, calm.cpu_load) == ("test", "calm", 0)
    assert (tight.start_s, tight.deadline_ms, tight.min_accuracy, tight.cpu_load) == (2.5, 4.0, 0.5, 2)
    assert saver.cpu_load == usable_cores()
    assert saver.overrides() == {"battery_share": 0.1, "on_battery": True, "temperature_c": 71.0}
    assert [scenario.phase_at(at_s).name for at_s in (-1, 0, 2.49, 2.5, 5, 99)] == [
        "calm", "calm", "calm", "tight", "saver", "saver",
    ]  # fmt: skip


def test_a_phase_stands_alone_over_the_command_lines_budget(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    base = Budget(20.0, 0.3)
    budgets = [phase.budget(base) for phase in scenario.phases]
    assert [budget.deadline_ms for budget in budgets] == [20.0, 4.0, 100.0]
    assert [budget.min_accuracy for budget in budgets] == [0.3, 0.5, 0.3]
    assert [budget.battery_floor_share for budget in budgets] == [None, None, 0.2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no phases"),
        ("phase = 3", "no phases"),
        ("phase = []", "no phases"),
        ("[[phase", "not valid TOML"),
        ("speed = 3\n[[phase]]\nname='a'\nstart_s=0", "unknown key 'speed'"),
        ("[[phase]]\nname='a'\nstart_s=0\ndeadline=3", "phase 1: unknown key 'deadline'"),
        ("[[phase]]\nstart_s=0", "key 'name' is missing"),
        ("[[phase]]\nname='a'\nstart_s='x'", "start_s"),
        ("[[phase]]\nname='a'\nstart_s=1", "expected 0 first"),
        ("[[phase]]\nname='a'\nstart_s=0\n[[phase]]\nname='b'\nstart_s=0", "rising times"),
        ("[[phase]]\nname='a'\nstart_s=0\ndeadline_ms=0", "deadline is 0.0 ms"),
        ("[[phase]]\nname='a'\nstart_s=0\ndeadline_ms=nan", "deadline_ms"),
        ("[[phase]]\nname='a'\nstart_s=0\ntarget_fps=-1", "target is -1.0 frames per second"),
        ("[[phase]]\nname='a'\nstart_s=0\ndeadline_ms=5\ntarget_fps=30", "give one of them"),
        ("[[phase]]\nname='a'\nstart_s=0\nmin_accuracy=60", "expected 0 to 1"),
        ("[[phase]]\nname='a'\nstart_s=0\nbattery_share=15", "expected 0 to 1"),
        ("[[phase]]\nname='a'\nstart_s=0\ncpu_load=-1", "cpu_load is -1"),
        ("[[phase]]\nname='a'\nstart_s=0\ncpu_load=100000", "cpu_load is 100000"),
        ("[[phase]]\nname='a'\nstart_s=0\ncpu_load='many'", "cpu_load"),
        ("[[phase]]\nname='a'\nstart_s=0\non_battery=1", "on_battery"),
    ],
)
def test_a_bad_scenario_names_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(write(tmp_path, text))
    assert words in str(caught.value)
    assert "scenario.toml" in str(caught.value)


def test_a_missing_scenario_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load_scenario(tmp_path / "none.toml")


def test_the_shipped_scenario_has_seven_phases_within_the_demo_clip() -> None:
    scenario = load_scenario(ROOT / "apps" / "demo" / "scenario.toml")
    assert len(scenario.phases) == 7
    assert scenario.phases[-1].start_s < 15
    assert any(phase.cpu_load > 0 for phase in scenario.phases)
    assert scenario.phases[0].overrides() == {}
    # a machine without a thermometer or battery never hears that it has cooled and is charged, so the script says it
    assert scenario.phases[-1].overrides() == {"temperature_c": 55.0, "battery_share": 0.8, "on_battery": False}


def test_the_player_applies_each_phase_once(tmp_path: Path) -> None:
    budgets: list[Budget] = []
    sensors, busy = OverriddenSensors(FakeSensors()), FakeBusy()
    player = ScenarioPlayer(load_scenario(write(tmp_path, GOOD)), Budget(20.0), budgets.append, sensors, busy)
    for at_s in (0.0, 1.0, 2.4, 2.6, 3.0):
        player.advance(at_s)
    assert [budget.deadline_ms for budget in budgets] == [20.0, 4.0]
    assert busy.counts == [0, 2]
    assert player.phase is not None
    assert player.phase.name == "tight"
    assert sensors.read(1.0) == FakeSensors().read(1.0)
    player.advance(6.0)
    readings = sensors.read(7.0)
    assert (readings.battery_share, readings.on_battery, readings.temperature_c) == (0.1, True, 71.0)
    assert readings.sources == {
        "temperature_c": "scenario", "battery_share": "scenario", "on_battery": "scenario",
    }  # fmt: skip


def test_busy_children_come_and_go_as_asked() -> None:
    with BusyChildren() as busy:
        busy.set_count(2)
        first, second = busy.pids
        assert alive(first)
        assert alive(second)
        busy.set_count(1)
        assert busy.pids == (first,)
        assert not alive(second)
    assert not alive(first)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_busy_child_really_uses_the_processor() -> None:
    with BusyChildren() as busy:
        busy.set_count(1)
        limit_s = time.monotonic() + 20
        ticks = 0
        while ticks < 5 and time.monotonic() < limit_s:
            user, system = Path(f"/proc/{busy.pids[0]}/stat").read_text().rpartition(")")[2].split()[11:13]
            ticks = int(user) + int(system)
            time.sleep(0.02)
    assert ticks >= 5


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_busy_children_do_not_outlive_a_parent_that_is_killed() -> None:
    script = (
        "import sys, time; from apps.camera.busy_children import BusyChildren\n"
        "busy = BusyChildren(); busy.set_count(2); print(*busy.pids, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    limit_s = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < limit_s:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


class CountingSensors(FakeSensors):
    """Also count tasks."""

    def crowding(self, threads: int) -> float:
        return 0.25 * threads


def test_made_up_readings_leave_the_count_of_tasks_to_the_device() -> None:
    assert OverriddenSensors(CountingSensors()).crowding(2) == 0.5
    assert OverriddenSensors(FakeSensors()).crowding(2) is None
