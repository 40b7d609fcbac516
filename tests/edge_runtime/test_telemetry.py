"""Telemetry: every documented key with its unit, strict JSON, and a disk that fills up does not end the run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeClock

from edge_runtime.errors import SinkError
from edge_runtime.frame import Frame
from edge_runtime.look_trail import LookTrail
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Box, Classification, Decision, Result
from edge_runtime.telemetry import FLUSH_EVERY_S, TelemetryFile, frame_record

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "telemetry.md"
RESULT = Result(
    Frame(np.zeros((2, 2, 3), np.uint8), 7, 12.3456789), Classification("cup", 0.87654321), (),
    Decision("p1", "best within the deadline", 1.23456, 1.5, True, False), 0.123456, 2.0, 3.0, 33.3, 4, False,
)  # fmt: skip

VIEW = (0.0, 0.0, 2.0, 2.0)
FOUND_TWO = dataclasses.replace(
    RESULT, boxes=(Box("cup", 0.9, 0.0, 0.0, 2.0, 2.0), Box("dog", 0.8, 0.0, 0.0, 1.0, 1.0))
)
LOOKED_TWICE = dataclasses.replace(RESULT, trail=LookTrail(2, 5, "sure", VIEW, (VIEW,)))


def test_a_frames_line_says_everything_that_happened() -> None:
    readings = Readings(own_load=0.5, temperature_c=61.0, battery_share=0.4, memory_available_bytes=5, throttled=False)
    assert frame_record(RESULT, readings) == {
        "event": "frame", "index": 7, "captured_s": 12.345679, "point": "p1", "reason": "best within the deadline",
        "switched": True, "feasible": False, "on_time": False, "deadline_ms": 33.3, "latency_ms": 3.0,
        "preprocess_ms": 0.1235, "run_ms": 2.0, "predicted_ms": 1.23456, "slowdown": 1.5, "on_time_share": None,
        "limited_by": "", "late_because": None, "decode_ms": None, "sink_ms": 0.0, "dropped": 4, "label": "cup",
        "confidence": 0.8765, "own_load": 0.5, "foreign_load": None, "temperature_c": 61.0, "battery_share": 0.4,
        "memory_available_bytes": 5, "throttled": False,
    }  # fmt: skip


def test_the_looks_of_a_network_with_early_exits_are_recorded() -> None:
    added = {**frame_record(LOOKED_TWICE, UNKNOWN)}
    for key in frame_record(RESULT, UNKNOWN):
        del added[key]
    assert added == {"steps": 2, "stopped_because": "sure"}


def test_of_boxes_the_number_is_recorded() -> None:
    added = {**frame_record(FOUND_TWO, UNKNOWN)}
    for key in frame_record(RESULT, UNKNOWN):
        del added[key]
    assert added == {"boxes": 2}
    assert frame_record(dataclasses.replace(RESULT, boxes=()), UNKNOWN)["boxes"] == 0


@pytest.mark.parametrize("result", [LOOKED_TWICE, FOUND_TWO])
def test_every_key_is_documented(result: Result) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [key for key in frame_record(result, UNKNOWN) if f"`{key}`" not in text] == []


def test_lines_reach_the_disk_about_once_a_second(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "t.jsonl"
    file = TelemetryFile(path, clock=clock)
    file.write({"a": 1})
    assert path.read_text() == ""
    clock.wait_ms(FLUSH_EVERY_S * 1000 + 1)
    file.write({"a": 2})
    assert path.read_text() == '{"a":1}\n{"a":2}\n'
    file.write({"a": 3})
    file.close()
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("old\n")
    TelemetryFile(path).close()
    assert path.read_text() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("lines", [1, 5000])
def test_a_full_disk_is_told_once_and_the_run_goes_on(lines: int) -> None:
    told: list[str] = []
    clock = FakeClock()
    file = TelemetryFile("/dev/full", told.append, clock)
    for _ in range(lines):
        clock.wait_ms(100)
        file.write(frame_record(RESULT, UNKNOWN))
    file.close()
    file.write({"a": 1})
    file.close()
    assert told == ["/dev/full: telemetry stops here: No space left on device; the run goes on"]


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "t.jsonl"):
        with pytest.raises(SinkError, match=r"telemetry cannot be written: .*; choose another path") as caught:
            TelemetryFile(path)
        assert caught.value.exit_code == 8
