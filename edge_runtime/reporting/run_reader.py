"""Read a recorded run (docs/telemetry.md), leniently.

A run that was killed, that lost lines, or that comes from an older version still has a story to tell. What was left out
is said in `RunLog.notes`. Keys and events that are not known are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge_runtime.errors import ResultError
from edge_runtime.reporting.run_log import CARRIED_NUMBERS, FRAME_NUMBERS, NUMBERS, Numbers, RunLog
from edge_runtime.reporting.run_points import clean_text, read_points
from edge_runtime.telemetry import TELEMETRY_SCHEMA

MAX_LINE_BYTES = 1 << 20


def looks_like_run(first_line: bytes) -> bool:
    """Whether a file that begins so is telemetry."""
    found = _parse(first_line)
    return found is not None and isinstance(found.get("event"), str)


def read_run(path: str | Path) -> RunLog:
    """Read a telemetry file.

    Raises:
        ResultError: it cannot be read, is no telemetry, comes from a newer version, holds two runs or no frame.
    """
    reader = _Reader(Path(path))
    try:
        with Path(path).open("rb") as stream:
            for number, line in _lines(stream):
                reader.take(number, line)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    return reader.log()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        yield number, line


def _parse(line: bytes) -> dict[str, Any] | None:
    """One line as an object, or None when it is not one."""
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _number(value: object) -> float:
    """A finite number, or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _latencies(value: object) -> dict[str, float] | None:
    """What each point would have taken, if a benchmark wrote it."""
    if not isinstance(value, dict):
        return None
    return {clean_text(name): ms for name, found in value.items() if (ms := _number(found)) > 0.0}


class _Reader:
    """Takes line after line, keeps the numbers, counts what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Any] = {}
        self._table: list[Any] = []
        self._carried = dict.fromkeys(CARRIED_NUMBERS, math.nan)
        self._columns: dict[str, list[float]] = {key: [] for key in NUMBERS}
        self._texts: dict[str, list[str]] = {"point": [], "reason": [], "limit": [], "late_because": []}
        self._flags: list[tuple[object, object]] = []
        self._measured: list[dict[str, float] | None] = []
        self._broken: list[int] = []
        self._last = self._unusable = self._not_finite = self._failed = self._pins = 0
        self._ended = False

    def take(self, number: int, line: bytes) -> None:
        """One line; `number` counts from 1."""
        if not line.strip():
            return
        self._last = number
        found = _parse(line)
        event = None if found is None else found.get("event")
        if found is None or not isinstance(event, str):
            if not self._facts and not self._texts["point"]:
                raise ResultError(f"{self._path}: line {number} is not telemetry; record a run with --telemetry FILE")
            self._broken.append(number)
        elif event == "start":
            self._start(number, found)
        elif event == "frame":
            self._frame(found)
        else:
            self._between(event, found)

    def _start(self, number: int, found: dict[str, Any]) -> None:
        if self._facts or self._texts["point"]:
            raise ResultError(f"{self._path}: line {number} starts a second run; give each run a file of its own")
        version = found.get("schema_version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= TELEMETRY_SCHEMA:
            raise ResultError(
                f"{self._path}: telemetry schema {str(version)[:40]} is unknown, expected 1 to {TELEMETRY_SCHEMA}; "
                "update edge-runtime"
            )
        self._facts = {clean_text(k): clean_text(v) if isinstance(v, str) else v for k, v in found.items()}

    def _between(self, event: str, found: dict[str, Any]) -> None:
        """A line that is no frame."""
        if event == "table" and isinstance(found.get("points"), list):
            self._table = found["points"]
        elif event in ("budget", "readings"):
            self._carried.update({key: _number(found[key]) for key in CARRIED_NUMBERS if key in found})
        elif event == "failed":
            self._failed += 1
        elif event == "pin" and isinstance(found.get("point"), str):
            self._pins += 1
        elif event == "end":
            self._ended = True

    def _frame(self, found: dict[str, Any]) -> None:
        values = {key: _number(found.get(key)) for key in FRAME_NUMBERS}
        self._not_finite += any(isinstance(v, float) and not math.isfinite(v) for v in found.values())
        point = clean_text(found.get("point"))
        if not point or not values["latency_ms"] > 0.0:
            self._unusable += 1
            return
        for key, value in {**values, **self._carried}.items():
            self._columns[key].append(value)
        reason, limit = clean_text(found.get("reason")), found.get("limited_by")
        told = {"point": point, "reason": reason, "limit": clean_text(limit) if isinstance(limit, str) else reason}
        for key, text in {**told, "late_because": clean_text(found.get("late_because"))}.items():
            self._texts[key].append(text)
        self._flags.append((found.get("on_time"), found.get("feasible")))
        self._measured.append(_latencies(found.get("point_latency_ms")))

    def log(self) -> RunLog:
        """Everything that was taken."""
        names = self._texts["point"]
        if not names:
            what = "has no frames" if self._facts or self._unusable else "is empty"
            raise ResultError(f"{self._path}: the recording {what}; record a run that answers at least one frame")
        columns = {key: np.array(values) for key, values in self._columns.items()}
        at_s, backwards = _time_axis(columns["captured_s"])
        late = columns["latency_ms"] > columns["deadline_ms"]
        on_time = [said if isinstance(said, bool) else not late[i] for i, (said, _) in enumerate(self._flags)]
        feasible = [said if isinstance(said, bool) else True for _, said in self._flags]
        points, index = read_points(self._facts.get("points"), self._table, names)
        texts = {key: tuple(values) for key, values in self._texts.items()}
        return RunLog(
            path=str(self._path), bundle=clean_text(self._facts.get("bundle")),
            backend=clean_text(self._facts.get("backend")), started=clean_text(self._facts.get("started")),
            facts=self._facts, points=points, point=index, at_s=at_s, columns=columns, on_time=np.array(on_time),
            feasible=np.array(feasible), reasons=texts["reason"], limits=texts["limit"],
            late_because=texts["late_because"], point_latency_ms=self._measured, complete=self._ended,
            notes=tuple(self._notes(backwards)),
        )  # fmt: skip

    def _notes(self, backwards: int) -> Iterator[str]:
        """What is wrong with the file, or unusual about the run."""
        frames = f"{len(self._texts['point']):,} frames"
        if not self._facts:
            yield "The first line of the recording is missing: bundle and accuracies of the points are unknown."
        if self._broken and self._broken[-1] == self._last:
            yield f"The last line is cut off: the run was killed. The {frames} before it are shown."
            self._broken.pop()
        elif not self._ended:
            yield f"The recording has no end: the run was killed or still goes on. Its {frames} so far are shown."
        if self._broken:
            yield f"{len(self._broken):,} lines are damaged and left out, the first is line {self._broken[0]:,}."
        counted = (
            (self._unusable, "frames without a point or a positive latency are left out."),
            (self._not_finite, "frames hold NaN or infinity; those values count as unknown."),
            (backwards, "times the clock went backwards; those steps count as no time at all."),
            (self._failed, "frames were not answered, because the engine failed."),
            (self._pins, "times a point was pinned: the controller was not free then."),
        )
        yield from (f"{count:,} {sentence}" for count, sentence in counted if count)


def _time_axis(captured_s: Numbers) -> tuple[Numbers, int]:
    """Seconds since the first frame that never fall, and how often the clock did. Unknown times repeat the last one."""
    known = np.isfinite(captured_s)
    if not known.any():
        return np.arange(len(captured_s), dtype=np.float64), 0  # without a clock, frames are the time
    position = np.maximum.accumulate(np.where(known, np.arange(len(captured_s)), 0))
    filled = np.where(np.isfinite(captured_s[position]), captured_s[position], captured_s[known][0])
    steps = np.diff(filled, prepend=filled[0])
    return np.cumsum(np.maximum(steps, 0.0)), int((steps < 0.0).sum())
