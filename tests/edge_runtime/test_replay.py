"""Recorded runs decide again: bit for bit under their own policy, and plausibly under another one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_engine import FakeEngine, tiny_bundle

from edge_runtime import Budget, Runtime, controller_crowding
from edge_runtime.cli import cli
from edge_runtime.controller import ControllerSettings
from edge_runtime.controller_crowding import degree_of
from edge_runtime.errors import BackendError, ReplayError
from edge_runtime.policies import POLICIES
from edge_runtime.readings import Readings
from edge_runtime.recorded_trace import read_trace
from edge_runtime.replay import first_difference, recorded_decisions, replay_same, summarise, what_if
from edge_runtime.telemetry import TelemetryFile

TRACES = Path(__file__).resolve().parent / "traces"
TRACE = TRACES / "demo-scenario.jsonl"
"""The shipped bundle under apps/demo/scenario.toml with 5 ms a frame, beside busy processes on both of two cores."""
DECISIONS = TRACES / "demo-scenario.decisions.jsonl"
CROWDED = TRACES / "demo-crowded.jsonl"
"""The same beside busy processes that come and go, on a machine that counts the tasks that want a core."""
PIXELS = np.zeros((24, 24, 3), np.uint8)


def replay(*arguments: str | Path) -> Result:
    """The command; expected failures are raised."""
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)], catch_exceptions=True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """A file of records."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


class ScriptedSensors:
    """Says what the test wants."""

    readings = Readings(taken_s=1.0, temperature_c=50.0)

    def __init__(self) -> None:
        self._asked = 0

    def read(self, now_s: float) -> Readings:
        return self.readings

    def crowding(self, threads: int) -> float | None:
        """Free, full and unknown in turn, a few frames each."""
        self._asked += 1
        return (0.5, 1.5, None, 2.5)[self._asked // 7 % 4]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run in which everything happens: slowdown, budgets, heat, a pin, an engine that fails, late residents."""
    path, engine, sensors = tmp_path / "run.jsonl", FakeEngine(held=True), ScriptedSensors()
    bundle = tiny_bundle(tmp_path)
    with Runtime(
        bundle, engine, bundle.manifest.points, budget=Budget(9.0), sensors=sensors, clock=engine.clock,
        sensor_period_s=1e6, telemetry=TelemetryFile(path), resident="all",
    ) as runtime:  # fmt: skip

        def run(frames: int) -> None:
            for _ in range(frames):
                engine.clock.wait_ms(30.0)
                runtime.infer(PIXELS)

        run(3)
        engine.release.set()
        assert runtime.wait_ready(30)
        run(20)
        engine.slowdown = 2.7
        run(20)
        runtime.budget = Budget(5.0, min_accuracy=0.52)
        run(10)
        engine.run_error = BackendError("device lost")
        with pytest.raises(BackendError):
            runtime.infer(PIXELS)
        engine.run_error, engine.slowdown = None, 1.0
        runtime._sensors.latest = Readings(taken_s=2.0, temperature_c=90.0, foreign_load=0.1 + 0.2)
        run(10)
        runtime.pin("w0.50-r032")
        run(5)
        runtime.unpin()
        run(10)
    return path


# The committed trace


def test_the_committed_trace_replays_to_the_committed_decisions_bit_for_bit() -> None:
    """Fails when a constant or the order of an operation changes: record it anew with --write-decisions if meant."""
    frames = replay_same(read_trace(TRACE))
    expected = [(record.pop("index"), record) for record in lines_of(DECISIONS)]
    assert len(expected) > 400
    assert first_difference(frames, expected) is None


def test_the_committed_trace_is_of_a_real_run_in_which_much_happens() -> None:
    trace = read_trace(TRACE)
    reasons = {frame.decision.reason for frame in trace.frames}
    limits = {frame.decision.limited_by for frame in trace.frames}
    assert {"battery low", "device hot", "deadline"} <= limits
    assert any(reason.startswith("step up") for reason in reasons)
    assert len({frame.decision.point for frame in trace.frames}) >= 4
    assert TRACE.stat().st_size + DECISIONS.stat().st_size < 400_000


FAST_LOOP = {
    "miss_weight": 2.0, "margin_share": 0.04, "switch_cost_ms": 0.3, "step_up_share": 0.2, "step_up_dwell_s": 0.3,
    "keep_share": 0.0, "first_variance": 0.02, "first_noise": 0.005, "min_drift": 0.0004, "drift_memory": 0.7,
    "noise_rate": 0.05, "jump_sigmas": 3.0, "jump_share": 0.2, "remembered_frames": 32, "prior_frames": 8.0,
    "first_table_variance": 0.005, "persistence_memory": 4.0, "hopeless_below": 0.9,
    "jump_variance": 0.1, "state_step": 1.2, "calm_sigmas": -100.0, "load_cap_s": 1.0,
}  # fmt: skip
"""Constants of the fast loop, changed."""


@pytest.mark.parametrize("name", FAST_LOOP)
def test_a_changed_constant_is_noticed(name: str) -> None:
    trace = read_trace(TRACE)
    changed = replace(ControllerSettings(), **{name: FAST_LOOP[name]})
    assert first_difference(replay_same(trace, changed), recorded_decisions(trace)) is not None


def test_every_constant_is_in_the_record_and_is_the_recorded_one() -> None:
    assert read_trace(TRACE).settings == asdict(ControllerSettings())
    assert {field.name for field in fields(ControllerSettings)} >= set(FAST_LOOP)


def test_a_run_on_a_machine_that_counts_tasks_replays_to_the_committed_decisions_bit_for_bit() -> None:
    trace = read_trace(CROWDED)
    assert len({degree_of(frame.crowding) for frame in trace.frames}) == 3
    expected = [(record.pop("index"), record) for record in lines_of(CROWDED.with_suffix(".decisions.jsonl"))]
    assert len(expected) > 400
    assert first_difference(replay_same(trace), expected) is None


def test_the_count_of_tasks_and_the_doubt_of_it_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = read_trace(CROWDED)
    uncounted = replace(trace, frames=tuple(replace(frame, crowding=None) for frame in trace.frames))
    assert first_difference(replay_same(uncounted), recorded_decisions(trace)) is not None
    monkeypatch.setattr(controller_crowding, "DOUBT", 0.0)
    assert first_difference(replay_same(trace), recorded_decisions(trace)) is not None


# Any run


def test_a_run_replays_to_its_own_decisions(recorded: Path) -> None:
    trace = read_trace(recorded)
    assert trace.complete
    assert {frame.run_ms is None for frame in trace.frames} == {True, False}
    assert {frame.pinned for frame in trace.frames} == {None, "w0.50-r032"}
    assert len({frame.resident for frame in trace.frames}) >= 2
    assert len({id(frame.ladder) for frame in trace.frames}) >= 2
    assert first_difference(replay_same(trace), recorded_decisions(trace)) is None
    answer = replay(recorded)
    assert answer.exit_code == 0
    assert f"all {len(trace.frames)} decisions are the expected ones" in answer.output


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_can_be_tried_on_a_recorded_run(recorded: Path, policy: str) -> None:
    answer = replay(recorded, "--policy", policy, "--what-if", "--format", "json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert found["policy"] == policy
    assert 0.0 <= found["on_time_share"] <= 1.0
    assert found["compared"] is False


def test_nobody_is_better_than_the_oracle(recorded: Path) -> None:
    for path in (recorded, TRACE):
        trace = read_trace(path)
        accuracy = {name: summarise(name, what_if(trace, name)).in_time_accuracy or 0.0 for name in POLICIES}
        assert all(value <= accuracy["oracle"] + 0.01 for value in accuracy.values()), accuracy
        assert accuracy["best-static"] >= accuracy["static"]


def test_the_recorded_latencies_of_other_points_go_before_the_table(recorded: Path, tmp_path: Path) -> None:
    records = lines_of(recorded)
    for record in records:
        if record["event"] == "frame":
            record["point_latency_ms"] = {"w1.00-r032": 77.0}
    trace = read_trace(write_lines(tmp_path / "other.jsonl", records))
    frames = what_if(trace, "static", point="w1.00-r032")
    mine = [f for f, r in zip(frames, trace.frames, strict=True) if r.decision.point != "w1.00-r032" and r.run_ms]
    assert {f.run_ms for f in mine if f.decision.point == "w1.00-r032"} == {77.0}


def test_other_decisions_end_with_the_first_difference_and_what_has_changed(recorded: Path, tmp_path: Path) -> None:
    records = lines_of(recorded)
    frame = [record for record in records if record["event"] == "frame"][7]
    frame["reason"] = "because"
    records[0]["settings"]["miss_weight"] = 99.0
    answer = replay(write_lines(tmp_path / "other.jsonl", records))
    assert isinstance(answer.exception, ReplayError)
    assert answer.exception.exit_code == 9
    assert f"frame {frame['index']}: reason is" in str(answer.exception)
    assert "expected 'because'; constants have changed: miss_weight was 99.0 and is" in str(answer.exception)


def test_decisions_are_written_and_compared(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    assert replay(recorded, "--policy", "alert", "--write-decisions", file).exit_code == 0
    assert replay(recorded, "--policy", "alert", "--expect", file).exit_code == 0
    other = replay(recorded, "--policy", "pi", "--expect", file)
    assert isinstance(other.exception, ReplayError)
    file.write_text("[1]\n")
    bad = replay(recorded, "--expect", file)
    assert "it is not a file of decisions; --write-decisions makes one" in str(bad.exception)


# Records that are not as they should be


def test_a_record_that_was_cut_off_is_replayed_as_far_as_it_goes(recorded: Path, tmp_path: Path) -> None:
    text = recorded.read_text(encoding="utf-8")
    path = tmp_path / "cut.jsonl"
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    trace = read_trace(path)
    assert not trace.complete
    assert first_difference(replay_same(trace), recorded_decisions(trace)) is None
    assert "cut off" in replay(path).output


def test_a_record_of_schema_1_serves_for_what_if_only(tmp_path: Path) -> None:
    start = {
        "event": "start", "schema_version": 1, "bundle": "tiny", "backend": "fake",
        "points": [{"name": f"p{i}", "width": 1.0, "size_hw": [8, 8], "accuracy": 0.5 + i / 10, "madds": 10 * (i + 1)}
                   for i in range(3)],
    }  # fmt: skip
    frame = {
        "event": "frame", "captured_s": 1.0, "point": "p1", "reason": "best", "switched": False, "feasible": True,
        "on_time": True, "deadline_ms": 10.0, "latency_ms": 5.0, "preprocess_ms": 1.0, "run_ms": 4.0,
        "predicted_ms": 4.0, "slowdown": 2.0, "dropped": 0, "label": "cup", "confidence": 0.5, "own_load": None,
        "foreign_load": 0.5, "temperature_c": None, "battery_share": None, "memory_available_bytes": None,
        "throttled": None,
    }  # fmt: skip
    path = write_lines(tmp_path / "old.jsonl", [start, *({**frame, "index": i} for i in range(5))])
    trace = read_trace(path)
    assert [p.latency_ms for p in trace.frames[0].ladder] == pytest.approx([1.0, 2.0, 3.0])
    assert {f.decision.point for f in what_if(trace, "static")} == {"p2"}
    assert what_if(trace, "static")[0].run_ms == pytest.approx(6.0)
    assert "does not hold every digit; name a --policy" in str(replay(path).exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("nonsense\n", "line 1 is not JSON"),
        ("[1]\n", "line 1 is no object"),
        ('{"event":"frame"}\n', "does not begin with a start line"),
        ('{"event":"start","schema_version":99}\n', "telemetry schema is 99, this version reads 1 to 3; update"),
        ('{"event":"start","schema_version":true}\n', "telemetry schema is True"),
        ('{"event":"start","schema_version":2}\n', "holds no frame"),
        ('{"event":"start","schema_version":2}\n{"event":"frame","point":"p"}\n', "point 'p' is not in the table"),
        ('{"event":"start","schema_version":2}\n{"event":"table","points":[]}\n', "line 2: table: it is empty"),
        ('{"event":"start","schema_version":2}\n{"event":"budget","deadline_ms":-1}\n', "deadline is -1"),
        ('{"event":"start","schema_version":2}\n{"event":"budget","deadline_ms":NaN}\n', "expected a finite number"),
        ('{"event":"start","schema_version":2}\n{"event":"readings","smell":1}\n', "unknown key 'smell'"),
        ('{"event":"start","schema_version":2,"settings":5}\n', "settings: expected an object"),
    ],
)
def test_what_is_no_telemetry_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReplayError, match=re.escape(message)):
        read_trace(path)


@pytest.mark.parametrize("key", ["index", "now_s", "age_ms", "run_ms", "observed_ms", "latency_ms", "point"])
@pytest.mark.parametrize("value", [None, "x", [], float("nan"), 1e400])
def test_a_frame_with_a_value_without_sense_is_named(recorded: Path, tmp_path: Path, key: str, value: Any) -> None:
    records = lines_of(recorded)
    number = next(i for i, record in enumerate(records) if record["event"] == "frame")
    records[number][key] = value
    with pytest.raises(ReplayError, match=rf"line {number + 1}: "):
        read_trace(write_lines(tmp_path / "bad.jsonl", records))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be read: No such file or directory; give a file that --telemetry"):
        read_trace(tmp_path / "none.jsonl")
