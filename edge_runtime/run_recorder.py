"""Everything that decides about a run, line by line, so that `edge-runtime replay` comes to the same decisions.

Before a frame's line comes a line for each input that has changed since the frame before: the query table, the budget,
the readings, the resident points, the pin. Numbers are written with all their digits. docs/telemetry.md has the keys.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge_runtime.controller import Controller
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.manifest import OperatingPoint
from edge_runtime.pipeline import Choice
from edge_runtime.policies import Policy
from edge_runtime.readings import Readings
from edge_runtime.result import Result
from edge_runtime.telemetry import TELEMETRY_SCHEMA, TelemetryFile, frame_record


class RunRecorder:
    """Writes one run.

    Args:
        file: where to.
        policy: whose decisions are recorded.
    """

    def __init__(self, file: TelemetryFile, policy: Policy) -> None:
        self._file, self._policy = file, policy
        self._ladder: tuple[LadderPoint, ...] | None = None
        self._choice: Choice | None = None
        self._pinned: str | None = None

    def start(self, bundle: str, backend: str, points: Sequence[OperatingPoint]) -> None:
        """The first line: what runs, and by which constants."""
        policy = self._policy
        record: dict[str, Any] = {
            "event": "start", "schema_version": TELEMETRY_SCHEMA, "bundle": bundle, "backend": backend,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "policy": policy.name,
        }  # fmt: skip
        if isinstance(policy, Controller):
            record["settings"], record["limits"] = asdict(policy.settings), policy.limits.to_dict()
        record["points"] = [
            {
                "name": p.name, "width": p.width, "size_hw": p.size_hw, "accuracy": p.accuracy["select"],
                "madds": p.madds, **({} if p.frames is None else {"frames": p.frames}),
            }
            for p in points
        ]  # fmt: skip
        self._file.write(record)

    def frame(self, result: Result, choice: Choice, observed_ms: float) -> None:
        """An answered frame, and what the policy learned from it."""
        self._changes(choice)
        record = frame_record(result, choice.readings)
        record["now_s"], record["age_ms"], record["observed_ms"] = choice.now_s, choice.age_ms, observed_ms
        record["crowding"] = choice.crowding
        self._file.write(record)

    def failed(self, index: int, choice: Choice) -> None:
        """A frame for which a point was chosen and that the engine did not answer."""
        self._changes(choice)
        self._file.write({
            "event": "failed", "index": index, "now_s": choice.now_s, "age_ms": choice.age_ms,
            "crowding": choice.crowding,
        })  # fmt: skip

    def end(self, frames: int) -> None:
        """The last line."""
        self._file.write({"event": "end", "frames": frames, "switches": self._policy.switches})
        self._file.close()

    def _changes(self, choice: Choice) -> None:
        """Lines for what differs from the frame before."""
        policy, before, write = self._policy, self._choice, self._file.write
        if policy.ladder is not self._ladder:
            self._ladder = policy.ladder
            write({"event": "table", "points": [asdict(point) for point in policy.ladder]})
        if before is None or choice.budget != before.budget:
            write({"event": "budget", **asdict(choice.budget)})
        if before is None or choice.readings != before.readings:
            write({"event": "readings", **readings_record(choice.readings)})
        if before is None or choice.resident != before.resident:
            write({"event": "resident", "names": sorted(choice.resident)})
        if policy.pinned != self._pinned:
            self._pinned = policy.pinned
            write({"event": "pin", "point": policy.pinned})
        self._choice = choice


def readings_record(readings: Readings) -> dict[str, Any]:
    """All readings; not where they come from."""
    return {name: value for name, value in vars(readings).items() if name != "sources"}
