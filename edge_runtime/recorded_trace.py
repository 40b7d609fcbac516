"""A recorded run, read from telemetry: what decided about each frame, and what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.budget import Budget
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.errors import BudgetError, ReplayError
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.records import RecordError, read_record, read_value
from edge_runtime.result import Decision
from edge_runtime.telemetry import TELEMETRY_SCHEMA

DECISION_KEYS = ("point", "reason", "predicted_ms", "slowdown", "switched", "feasible", "limited_by", "on_time_share")
OLD_READINGS = (
    "own_load", "foreign_load", "temperature_c", "battery_share", "memory_available_bytes", "throttled",
)  # fmt: skip


@dataclass(frozen=True)
class RecordedFrame:
    """One frame: the inputs of the decision, the decision, and what came of it."""

    index: int
    now_s: float
    age_ms: float
    budget: Budget
    readings: Readings
    resident: frozenset[str]
    ladder: tuple[LadderPoint, ...]
    pinned: str | None
    decision: Decision
    recorded: dict[str, Any]
    """The decision as far as the record states it."""
    run_ms: float | None
    """None: the engine did not answer."""
    observed_ms: float | None
    """What the policy learned: the run time, or for an engine with early exits the time that all its steps take."""
    latency_ms: float | None
    point_latency_ms: dict[str, float] = field(default_factory=dict)
    """What each point would have taken, where the record knows it."""
    crowding: float | None = None
    """Tasks that wanted a core as the frame began, for each core."""


@dataclass(frozen=True)
class RecordedTrace:
    """A recorded run with at least one frame."""

    name: str
    schema_version: int
    policy: str
    settings: dict[str, Any] | None
    limits: DeviceLimits | None
    frames: tuple[RecordedFrame, ...]
    complete: bool
    """The record has its end; a killed run has not."""


def read_trace(path: str | Path) -> RecordedTrace:
    """Read a telemetry file.

    Raises:
        ReplayError: it cannot be read, is no telemetry of a known schema, or holds no frame.
    """
    reader = _Reader(Path(path))
    for number, record in _lines(Path(path)):
        try:
            reader.take(record)
        except (RecordError, BudgetError, KeyError, ValueError) as error:
            what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise ReplayError(f"{path}: line {number}: {what}; record the run again") from error
    return reader.trace()


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers; a last line that was cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReplayError(f"{path}: cannot be read: {reason}; give a file that --telemetry wrote") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and number > 1:
                return
            raise ReplayError(f"{path}: line {number} is not JSON; give a file that --telemetry wrote") from error
        if not isinstance(record, dict):
            raise ReplayError(f"{path}: line {number} is no object with keys; give a file that --telemetry wrote")
        yield number, record


class _Reader:
    """Follows the inputs through the lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start: dict[str, Any] | None = None
        self._budget, self._readings = Budget(), UNKNOWN
        self._resident: frozenset[str] = frozenset()
        self._ladder: tuple[LadderPoint, ...] = ()
        self._pinned: str | None = None
        self._frames: list[RecordedFrame] = []
        self._old: list[dict[str, Any]] = []
        self._complete = False

    def take(self, record: dict[str, Any]) -> None:
        """One line; events of other kinds are left to others."""
        event = record.pop("event", None)
        if event == "start":
            self._begin(record)
        elif self._start is None:
            raise ReplayError(f"{self._path}: does not begin with a start line; give a file that --telemetry wrote")
        elif event == "table":
            points = read_value(tuple[LadderPoint, ...], record.get("points"), "table")
            if not points:
                raise RecordError("table: it is empty")
            self._ladder = points
        elif event == "budget":
            self._budget = read_record(Budget, record, "budget")
        elif event == "readings":
            self._readings = read_record(Readings, record, "readings")
        elif event == "resident":
            self._resident = frozenset(read_value(tuple[str, ...], record.get("names"), "resident"))
        elif event == "pin":
            self._pinned = read_value(str | None, record.get("point"), "pin")
        elif event in ("frame", "failed"):
            if self._start["schema_version"] == 1:
                self._old.append(record)
            else:
                self._frames.append(self._frame(record, failed=event == "failed"))
        elif event == "end":
            self._complete = True

    def trace(self) -> RecordedTrace:
        """All that was read."""
        if self._start is None:
            raise ReplayError(f"{self._path}: is empty; give a file that --telemetry wrote")
        frames = self._frames or self._old_frames()
        if not frames:
            raise ReplayError(f"{self._path}: holds no frame; there is nothing to replay")
        limits = self._start.get("limits")
        return RecordedTrace(
            self._path.name,
            self._start["schema_version"],
            read_value(str, self._start.get("policy", "ours"), "start: policy"),
            self._start.get("settings"),
            None if limits is None else read_record(DeviceLimits, limits, "start: limits"),
            tuple(frames),
            self._complete,
        )

    def _begin(self, record: dict[str, Any]) -> None:
        version = record.get("schema_version")
        if version not in range(1, TELEMETRY_SCHEMA + 1) or isinstance(version, bool):
            raise ReplayError(
                f"{self._path}: telemetry schema is {str(version)[:40]}, this version reads 1 to {TELEMETRY_SCHEMA}; "
                "update edge-runtime"
            )
        settings = record.get("settings")
        if settings is not None and not isinstance(settings, dict):
            raise RecordError("start: settings: expected an object")
        self._start = record

    def _frame(self, record: dict[str, Any], *, failed: bool) -> RecordedFrame:
        where = "frame"
        number: Any = float
        recorded = {} if failed else {key: record[key] for key in DECISION_KEYS if key in record}
        names = [point.name for point in self._ladder]
        if not failed and record["point"] not in names:
            raise RecordError(f"frame: point {str(record['point'])[:80]!r} is not in the table")
        if not self._resident & set(names):
            raise RecordError("frame: no resident point is in the table")
        return RecordedFrame(
            index=read_value(int, record["index"], f"{where}: index"),
            now_s=read_value(number, record["now_s"], f"{where}: now_s"),
            age_ms=read_value(number, record["age_ms"], f"{where}: age_ms"),
            budget=self._budget,
            readings=self._readings,
            resident=self._resident,
            ladder=self._ladder,
            pinned=self._pinned,
            decision=Decision("", "failed", 0.0, 1.0) if failed else _decision(recorded),
            recorded=recorded,
            run_ms=None if failed else read_value(number, record["run_ms"], f"{where}: run_ms"),
            observed_ms=None if failed else read_value(number, record["observed_ms"], f"{where}: observed_ms"),
            latency_ms=None if failed else read_value(number, record["latency_ms"], f"{where}: latency_ms"),
            point_latency_ms=read_value(
                dict[str, float], record.get("point_latency_ms") or {}, f"{where}: point_latency_ms"
            ),
            crowding=read_value(float | None, record.get("crowding"), f"{where}: crowding"),
        )

    def _old_frames(self) -> list[RecordedFrame]:
        """Frames of schema 1: no query table, no age, rounded numbers."""
        ladder = _old_ladder(self._start or {}, self._old)
        resident = frozenset(point.name for point in ladder)
        frames = []
        for record in self._old:
            readings = read_record(Readings, {key: record.get(key) for key in OLD_READINGS}, "frame")
            recorded = {key: record[key] for key in DECISION_KEYS if key in record}
            run_ms = read_value(float, record["run_ms"], "frame: run_ms")
            latency_ms = read_value(float, record["latency_ms"], "frame: latency_ms")
            frames.append(
                RecordedFrame(
                    index=read_value(int, record["index"], "frame: index"),
                    now_s=read_value(float, record["captured_s"], "frame: captured_s"),
                    age_ms=max(0.0, latency_ms - run_ms),
                    budget=Budget(read_value(float, record["deadline_ms"], "frame: deadline_ms")),
                    readings=readings,
                    resident=resident,
                    ladder=ladder,
                    pinned=None,
                    decision=_decision(recorded),
                    recorded=recorded,
                    run_ms=run_ms,
                    observed_ms=run_ms,
                    latency_ms=latency_ms,
                )
            )
        return frames


def _decision(recorded: dict[str, Any]) -> Decision:
    return read_record(Decision, recorded, "frame")


def _old_ladder(start: dict[str, Any], frames: list[dict[str, Any]]) -> tuple[LadderPoint, ...]:
    """The tabled latency of a point that was used is predicted / slowdown; of the others, in proportion to MAdds."""
    tabled = {str(f["point"]): float(f["predicted_ms"]) / float(f["slowdown"]) for f in frames if f["slowdown"]}
    points = start.get("points") or []
    per_madd = sorted(tabled[p["name"]] / p["madds"] for p in points if p["name"] in tabled)
    if not per_madd:
        return ()
    middle = per_madd[len(per_madd) // 2]
    return tuple(
        LadderPoint(str(p["name"]), float(p["accuracy"]), max(1e-6, tabled.get(p["name"], p["madds"] * middle)))
        for p in points
    )
