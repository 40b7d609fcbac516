"""One JSON line a frame; docs/telemetry.md describes every key."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from edge_runtime.errors import SinkError
from edge_runtime.readings import Readings
from edge_runtime.result import Result

TELEMETRY_SCHEMA = 3
"""2 has no `crowding`; all else is equal, and it replays to the same decisions."""
FLUSH_EVERY_S = 1.0


def frame_record(result: Result, readings: Readings) -> dict[str, Any]:
    """The line of one frame, with units in its keys. What a replay needs is not rounded."""
    decision, trail = result.decision, result.trail
    looked = {} if trail is None else {"steps": trail.looks, "stopped_because": trail.reason}
    found = {} if result.boxes is None else {"boxes": len(result.boxes)}
    return {
        "event": "frame",
        "index": result.frame.index,
        "captured_s": round(result.frame.captured_s, 6),
        "point": decision.point,
        "reason": decision.reason,
        "switched": decision.switched,
        "feasible": decision.feasible,
        "on_time": result.on_time,
        "deadline_ms": result.deadline_ms,
        "latency_ms": round(result.latency_ms, 4),
        "preprocess_ms": round(result.preprocess_ms, 4),
        "run_ms": result.run_ms,
        "predicted_ms": decision.predicted_ms,
        "slowdown": decision.slowdown,
        "on_time_share": decision.on_time_share,
        "limited_by": decision.limited_by,
        "late_because": result.late_because,
        "decode_ms": None if result.frame.decode_ms is None else round(result.frame.decode_ms, 4),
        "sink_ms": round(result.sink_ms, 4),
        "dropped": result.dropped,
        "label": result.answer.label,
        "confidence": round(result.answer.confidence, 4),
        "own_load": readings.own_load,
        "foreign_load": readings.foreign_load,
        "temperature_c": readings.temperature_c,
        "battery_share": readings.battery_share,
        "memory_available_bytes": readings.memory_available_bytes,
        "throttled": readings.throttled,
        **looked,
        **found,
    }


class TelemetryFile:
    """Writes lines; a disk that is full or gone is told once and ends the recording, not the run.

    Args:
        path: file to create or replace.
        warn: receives the one sentence.
        clock: seconds, for flushing.
    Raises:
        SinkError: the file cannot be created.
    """

    def __init__(
        self,
        path: str | Path,
        warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._warn, self._clock = Path(path), warn, clock
        self._stream: TextIO | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("w", encoding="utf-8", buffering=1 << 16)
        except OSError as error:
            raise SinkError(
                f"{self._path}: telemetry cannot be written: {error.strerror}; choose another path"
            ) from error
        self._flushed_s = clock()

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(record, separators=(",", ":")) + "\n")
            now_s = self._clock()
            if now_s - self._flushed_s >= FLUSH_EVERY_S:
                self._stream.flush()
                self._flushed_s = now_s
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError as error:
                self._give_up(error)
            self._stream = None

    def _give_up(self, error: OSError) -> None:
        stream, self._stream = self._stream, None
        self._warn(f"{self._path}: telemetry stops here: {error.strerror}; the run goes on")
        if stream is not None:
            with contextlib.suppress(OSError):  # the same failure again; it was told
                stream.close()
