"""Read a recorded run (docs/telemetry.md) as a report wants it: columns of numbers, and what is wrong with the file.

Lenient on purpose: a run that was killed, that lost lines, or that comes from an older version still has a story to
tell. What was left out is said in `notes`. Keys that are not known are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ResultError
from edge_runtime.reporting.run_points import LoggedPoint, read_points
from edge_runtime.telemetry import TELEMETRY_SCHEMA

Numbers = npt.NDArray[np.float64]
MAX_LINE_BYTES = 1 << 20
MAX_TEXT = 200
"""Texts of a file are cut here: a label or reason that is longer is no label or reason."""
NUMBER_KEYS = (
    "captured_s", "latency_ms", "run_ms", "preprocess_ms", "deadline_ms", "predicted_ms", "slowdown", "own_load",
    "foreign_load", "temperature_c", "battery_share", "memory_available_bytes", "dropped", "confidence", "steps",
    "min_accuracy",
)  # fmt: skip
"""Keys of a frame that become columns; NaN where a frame does not have them."""


@dataclass(frozen=True)
class RunLog:
    """One recorded run with at least one frame; every array has one entry a frame."""

    path: str
    bundle: str
    backend: str
    started: str
    facts: Mapping[str, Any]
    """The first line."""
    points: tuple[LoggedPoint, ...]
    """Operating points of the bundle, and others that frames name."""
    point: npt.NDArray[np.int64]
    """Index into `points`."""
    at_s: Numbers
    """Since the first frame; never falls."""
    columns: Mapping[str, Numbers]
    """NUMBER_KEYS -> values; NaN is unknown."""
    on_time: npt.NDArray[np.bool_]
    feasible: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    """What kept a more accurate point from being used; the reason where the recording does not say."""
    complete: bool
    """The run came to its own end."""
    notes: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.at_s)

    @property
    def duration_s(self) -> float:
        """From the first frame to the last."""
        return float(self.at_s[-1])

    def known(self, key: str) -> bool:
        """Whether any frame has this number."""
        return bool(np.isfinite(self.columns[key]).any())


def looks_like_run(first_line: bytes) -> bool:
    """Whether a file that begins so is telemetry."""
    found = _parse(first_line)
    return found is not None and found.get("event") in ("start", "frame", "end")


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


def _lines(stream: Any) -> Iterator[tuple[int, bytes]]:
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


def _text(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _number(value: object) -> float:
    """A finite number, or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


class _Reader:
    """Takes line after line, keeps the numbers, counts what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Any] = {}
        self._ended = False
        self._broken: list[int] = []
        self._unusable = 0
        self._not_finite = 0
        self._last = 0
        self._columns: dict[str, list[float]] = {key: [] for key in NUMBER_KEYS}
        self._names: list[str] = []
        self._reasons: list[str] = []
        self._limits: list[str] = []
        self._flags: list[tuple[object, object]] = []

    def take(self, number: int, line: bytes) -> None:
        """One line; `number` counts from 1."""
        self._last = number
        if not line.strip():
            return
        found = _parse(line)
        event = None if found is None else found.get("event")
        if found is None or event not in ("start", "frame", "end"):
            if found is None or "event" not in found:
                self._broken.append(number)  # another event of a later version is no damage
            if self._broken and not self._names and not self._facts:
                raise ResultError(f"{self._path}: line {number} is not telemetry; record a run with --telemetry FILE")
        elif event == "start":
            self._start(number, found)
        elif event == "end":
            self._ended = True
        else:
            self._frame(found)

    def _start(self, number: int, found: dict[str, Any]) -> None:
        if self._facts or self._names:
            raise ResultError(f"{self._path}: line {number} starts a second run; give each run a file of its own")
        version = found.get("schema_version")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= TELEMETRY_SCHEMA:
            raise ResultError(
                f"{self._path}: telemetry schema {str(version)[:40]} is unknown, expected 1 to {TELEMETRY_SCHEMA}; "
                "update edge-runtime"
            )
        self._facts = found

    def _frame(self, found: dict[str, Any]) -> None:
        values = {key: _number(found.get(key)) for key in NUMBER_KEYS}
        self._not_finite += any(isinstance(v, float) and not math.isfinite(v) for v in found.values())
        if not _text(found.get("point")) or not values["latency_ms"] > 0.0:
            self._unusable += 1
            return
        for key, value in values.items():
            self._columns[key].append(value)
        self._names.append(_text(found["point"]))
        self._reasons.append(_text(found.get("reason")))
        limit = found.get("limited_by")
        self._limits.append(_text(limit) if isinstance(limit, str) else self._reasons[-1])
        self._flags.append((found.get("on_time"), found.get("feasible")))

    def log(self) -> RunLog:
        """Everything that was taken."""
        if not self._names:
            what = "no frames" if self._facts or self._unusable else "empty"
            raise ResultError(f"{self._path}: the recording has {what}; record a run that answers at least one frame")
        columns = {key: np.array(values) for key, values in self._columns.items()}
        at_s, backwards = _time_axis(columns["captured_s"])
        late = columns["latency_ms"] > columns["deadline_ms"]
        flags = self._flags
        on_time = [said if isinstance(said, bool) else not late[i] for i, (said, _) in enumerate(flags)]
        feasible = [said if isinstance(said, bool) else True for _, said in flags]
        points, index = read_points(self._facts, self._names)
        return RunLog(
            str(self._path), _text(self._facts.get("bundle")), _text(self._facts.get("backend")),
            _text(self._facts.get("started")), self._facts, points, index, at_s, columns, np.array(on_time),
            np.array(feasible), tuple(self._reasons), tuple(self._limits), self._ended, tuple(self._notes(backwards)),
        )  # fmt: skip

    def _notes(self, backwards: int) -> Iterator[str]:
        frames = f"{len(self._names):,} frames"
        if not self._facts:
            yield "The first line of the recording is missing: bundle and accuracies of the points are unknown."
        if self._broken and self._broken[-1] == self._last:
            yield f"The last line is cut off: the run was killed. The {frames} before it are shown."
            self._broken.pop()
        elif not self._ended:
            yield f"The recording has no end: the run was killed or still goes on. Its {frames} so far are shown."
        if self._broken:
            yield f"{len(self._broken):,} lines are damaged and left out, the first is line {self._broken[0]:,}."
        if self._unusable:
            yield f"{self._unusable:,} frames without a point or a positive latency are left out."
        if self._not_finite:
            yield f"{self._not_finite:,} frames hold NaN or infinity; those values count as unknown."
        if backwards:
            yield f"The clock went backwards {backwards:,} times; those steps count as no time at all."


def _time_axis(captured_s: Numbers) -> tuple[Numbers, int]:
    """Seconds since the first frame that never fall, and how often the clock did. Unknown times repeat the last one."""
    if not np.isfinite(captured_s).any():
        return np.arange(len(captured_s), dtype=np.float64), 0  # without a clock, frames are the time
    position = np.maximum.accumulate(np.where(np.isfinite(captured_s), np.arange(len(captured_s)), 0))
    filled = captured_s[position]
    filled[~np.isfinite(filled)] = captured_s[np.isfinite(captured_s)][0]
    steps = np.diff(filled, prepend=filled[0])
    return np.cumsum(np.maximum(steps, 0.0)), int((steps < 0.0).sum())
