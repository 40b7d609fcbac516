"""How many tasks want a core as a frame begins: the sensor, and what the controller makes of it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine, tiny_bundle
from simulated_device import ALL, COOL, LADDER, SimulatedDevice

from edge_runtime import Budget, Runtime
from edge_runtime.controller import ControllerSettings
from edge_runtime.controller_crowding import FREE, FULL, OVERFULL, UNKNOWN, Crowding, degree_of
from edge_runtime.device_profile import load_profile
from edge_runtime.readings import UNKNOWN as NO_READINGS
from edge_runtime.readings import Readings
from edge_runtime.result import Decision
from edge_runtime.sensing.run_queue import RunQueue
from edge_runtime.sensor_loop import NoSensors, TrustedSensors
from edge_runtime.sensors import SYSTEM_ROOT, DeviceSensors
from edge_runtime.telemetry import TelemetryFile

CALM, CROWDED = 0.5, 1.5


def write_queue(root: Path, text: str) -> None:
    """A machine's /proc/loadavg."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "loadavg").write_text(text)


def test_the_run_queue_is_read_anew_each_time_and_leaves_the_caller_out(tmp_path: Path) -> None:
    write_queue(tmp_path, "0.20 0.18 0.12 1/80 11206\n")
    queue = RunQueue(tmp_path, cores=4)
    assert queue.crowding(threads=2) == 0.5
    write_queue(tmp_path, "9.20 0.18 0.12 7/80 11206\n")
    assert queue.crowding(threads=2) == 2.0
    assert queue.crowding(threads=1) == 1.75


@pytest.mark.parametrize("text", ["", "0.1 0.1", "0.1 0.1 0.1 x/8 1", "0.1 0.1 0.1 /8 1", "\x00" * 80])
def test_a_run_queue_that_says_nothing_is_unknown(tmp_path: Path, text: str) -> None:
    write_queue(tmp_path, text)
    assert RunQueue(tmp_path).crowding(1) is None


def test_a_machine_without_a_run_queue_does_not_know_it_and_a_pipe_does_not_stop_the_caller(tmp_path: Path) -> None:
    assert RunQueue(tmp_path).crowding(1) is None
    assert DeviceSensors(tmp_path).crowding(1) is None
    if hasattr(os, "mkfifo"):
        (tmp_path / "proc").mkdir()
        os.mkfifo(tmp_path / "proc" / "loadavg")
        assert RunQueue(tmp_path).crowding(1) is None


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="Linux counts runnable tasks")
def test_this_machine_has_at_least_the_engine_s_threads() -> None:
    found = RunQueue(SYSTEM_ROOT).crowding(threads=3)
    assert found is not None
    assert found >= 3 / (os.cpu_count() or 1)


def test_the_crowding_is_trusted_where_the_load_is(tmp_path: Path) -> None:
    write_queue(tmp_path, "0.20 0.18 0.12 3/80 11206\n")
    profile = load_profile("laptop-x86")
    sensors = DeviceSensors(tmp_path)
    assert "foreign_load" in profile.sensors
    assert TrustedSensors(sensors, profile).crowding(1) == sensors.crowding(1) is not None
    blind = dataclasses.replace(profile, sensors=tuple(s for s in profile.sensors if s != "foreign_load"))
    assert TrustedSensors(sensors, blind).crowding(1) is None
    assert TrustedSensors(NoSensors(), profile).crowding(1) is None


def test_degrees_begin_where_there_is_no_core_for_everybody() -> None:
    assert [degree_of(value) for value in (0.25, 1.0, 1.25, 2.0, 2.5, math.inf)] == [
        FREE, FREE, FULL, FULL, OVERFULL, OVERFULL,
    ]  # fmt: skip
    assert [degree_of(value) for value in (None, -1.0, math.nan, -math.inf)] == [UNKNOWN] * 4


def bursts(device: SimulatedDevice, count: int, *, seen: bool, calm_frames: int = 20) -> list[list[Decision]]:
    """Loads of ten frames that double every latency; `seen`: they are counted before the first frame of each."""
    found = []
    for _ in range(count):
        device.slowdown, device.crowding = 1.0, CALM if seen else None
        for _ in range(calm_frames):
            device.frame()
        device.slowdown, device.crowding = 2.0, CROWDED if seen else None
        found.append([device.frame() for _ in range(10)])
    return found


def test_a_load_that_is_counted_makes_no_frame_late_and_one_that_is_not_makes_one_each_time() -> None:
    blind, seeing = SimulatedDevice(deadline_ms=14.0), SimulatedDevice(deadline_ms=14.0)
    bursts(blind, 6, seen=False)
    bursts(seeing, 6, seen=True)
    assert blind.late >= 6
    assert seeing.late == 0


def test_the_first_load_ever_is_expected_to_share_the_core() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    (first,) = bursts(device, 1, seen=True)
    assert first[0].slowdown == pytest.approx(2.0, rel=0.05)
    assert device.true_ms[first[0].point] * 2.0 <= 14.0


def test_a_shared_core_is_expected_to_scatter_more_than_a_free_one() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    device.crowding = CALM
    device.settle()
    calm = device.policy.filter
    device.policy.take_crowding(CROWDED)
    crowded = device.policy.filter
    assert crowded is not calm
    assert crowded._memory.noise(1.0) == pytest.approx(4.0 * calm._memory.noise_ms2)
    device.policy.take_crowding(CALM)
    assert device.policy.filter is calm


def test_when_the_load_is_gone_the_next_frame_is_accurate_again() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    bursts(device, 3, seen=True)
    device.slowdown, device.crowding = 1.0, CALM
    assert device.frame().point == "p5"


def test_tasks_that_slow_nothing_down_are_soon_no_reason_to_step_down() -> None:
    """Tasks of low priority are counted as well."""
    device = SimulatedDevice(deadline_ms=14.0)
    device.crowding = CALM
    device.settle()
    device.crowding = CROWDED
    points = [device.frame().point for _ in range(10)]
    assert points[0] != "p5"
    assert points[-1] == "p5"
    device.crowding = CALM
    device.frame()
    device.crowding = CROWDED
    assert device.frame().point == "p5"  # it was learned


def passing_tasks(device: SimulatedDevice, count: int) -> list[str]:
    """Tasks that are counted in one frame of ten and slow nothing down; the points of those frames."""
    found = []
    for _ in range(count):
        device.crowding = CALM
        device.run(0.3)
        device.crowding = CROWDED
        found.append(device.frame().point)
    return found


def test_tasks_that_only_pass_by_are_soon_ignored_until_a_second_reading_finds_them() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    points = passing_tasks(device, 12)
    assert points[0] != "p5"
    assert points[6:] == ["p5"] * 6
    device.crowding = CALM
    device.run(0.3)
    device.slowdown, device.crowding = 2.0, CROWDED
    assert device.frame().point == "p5"  # it is late, as it would be without the count
    assert device.frame().point != "p5"


def test_loads_that_slow_frames_down_are_believed_again_after_tasks_that_passed_by() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    passing_tasks(device, 12)
    bursts(device, 8, seen=True)
    device.late = 0
    bursts(device, 3, seen=True)
    assert device.late == 0


def test_a_late_frame_that_the_count_explains_raises_no_alarm_in_the_calm_after_it() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    bursts(device, 2, seen=True)
    device.slowdown, device.crowding = 1.0, CALM
    device.run(0.5)
    device.slowdown = 2.0
    device.frame()  # the load came while the engine worked
    assert device.policy.filter.alarm is not None
    device.crowding = CROWDED
    device.run(0.3)
    device.slowdown, device.crowding = 1.0, CALM
    assert device.frame().point == "p5"
    assert device.policy.filter.alarm is None


def test_a_rise_of_the_mean_load_says_nothing_more_where_tasks_are_counted() -> None:
    device = SimulatedDevice()
    device.crowding = CALM
    device.readings = Readings(taken_s=1.0, temperature_c=50.0, foreign_load=0.0)
    before = device.settle().slowdown
    device.readings = Readings(taken_s=2.0, temperature_c=50.0, foreign_load=1.0)
    assert device.frame().slowdown == pytest.approx(before, rel=0.02)


def test_an_unknown_count_changes_nothing() -> None:
    told, untold = SimulatedDevice(), SimulatedDevice()
    untold.policy.take_crowding = lambda crowding: None
    for slowdown in (1.0, 2.0, 1.0, 3.0):
        told.slowdown = untold.slowdown = slowdown
        assert told.run(1.0) == untold.run(1.0)


def test_after_a_load_that_is_seen_to_end_a_step_up_does_not_wait() -> None:
    points = {}
    for seen in (True, False):
        device = SimulatedDevice(deadline_ms=14.0, settings=ControllerSettings(step_up_dwell_s=0.5))
        device.crowding = CALM
        device.settle()
        device.slowdown, device.crowding = 2.0, CROWDED
        device.run(0.1)
        device.slowdown, device.crowding = 1.0, CALM if seen else None
        points[seen] = [device.frame().point for _ in range(5)]
    assert points[True] == ["p5"] * 5
    assert "p5" not in points[False]


@pytest.mark.parametrize(("slowdown", "believed"), [(1.1, FREE), (1.9, FULL)])
def test_a_rise_is_judged_by_which_degree_explains_its_first_frame(slowdown: float, believed: int) -> None:
    crowding = Crowding(ControllerSettings())
    for reading, usual in ((CALM, 1.0), (CROWDED, 2.0)):
        for _ in range(50):
            crowding.take(reading).observe(usual, 10.0, 0.0)
    for _ in range(12):
        crowding.take(CALM)
        crowding.take(CROWDED)
        crowding.judge(slowdown)
    crowding.take(CALM)
    crowding.take(CROWDED)
    assert crowding.degree == believed
    crowding.take(CROWDED)
    assert crowding.degree == FULL


def test_a_count_that_is_lost_and_found_leaves_what_was_learned() -> None:
    device = SimulatedDevice(deadline_ms=30.0)
    device.slowdown, device.crowding = 2.0, CALM
    device.settle()
    for crowding in (None, CALM, None):
        device.crowding = crowding
        assert device.frame().slowdown == pytest.approx(2.0, rel=0.05)


def test_a_new_query_table_holds_for_every_degree() -> None:
    device = SimulatedDevice(deadline_ms=14.0)
    bursts(device, 3, seen=True)
    half = [type(p)(p.name, p.accuracy, p.latency_ms / 2.0) for p in LADDER]
    device.policy.replace_ladder(half)
    device.policy.take_crowding(CALM)
    calm = device.policy.choose(device.now_s, Budget(14.0), COOL, ALL)
    assert calm.predicted_ms == pytest.approx(device.true_ms[calm.point], rel=0.1)


class Counting:
    """Sensors that know the crowding alone."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def read(self, now_s: float) -> Readings:
        """Unknown."""
        return NO_READINGS

    def crowding(self, threads: int) -> float | None:
        """As it was asked for."""
        self.threads.append(threads)
        return 1.25


@pytest.mark.parametrize(("policy", "expected"), [("ours", 1.25), ("threshold", None)])
def test_the_runtime_asks_before_each_frame_for_policies_that_listen(
    tmp_path: Path, policy: str, expected: float | None
) -> None:
    engine, sensors, bundle = FakeEngine(), Counting(), tiny_bundle(tmp_path)
    path = tmp_path / "run.jsonl"
    with Runtime(
        bundle, engine, bundle.manifest.points, budget=Budget(9.0), sensors=sensors, clock=engine.clock,
        sensor_period_s=1e6, policy=policy, telemetry=TelemetryFile(path), threads=3,
    ) as runtime:  # fmt: skip
        for _ in range(2):
            runtime.infer(np.zeros((24, 24, 3), np.uint8))
    frames = [record for line in path.read_text().splitlines() if (record := json.loads(line))["event"] == "frame"]
    assert [frame["crowding"] for frame in frames] == [expected] * 2
    assert sensors.threads == ([3, 3] if policy == "ours" else [])
