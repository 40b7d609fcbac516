"""What happened to a device, frame by frame, with the true latency of every operating point: the simulator's input.

A trace is plain arrays. It was recorded (benchmarks/record_contention.py), rebuilt from a live run
(benchmarks/counterfactual.py) or generated from a seed (benchmarks/traces_generated.py). The controller never sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.budget import Budget
from edge_runtime.readings import UNKNOWN, Readings

Array = npt.NDArray[np.float32]
ROOM = 1.1
"""The most accurate point just fits when the machine is quiet; any contention then matters."""
FOLDER = Path(__file__).resolve().parent / "traces"


@dataclass(frozen=True)
class TracePoint:
    """An operating point as the bundle states it."""

    name: str
    accuracy: float
    """Expected, 0-1, on the select split: what the controller is told and what an answer in time scores."""
    quiet_ms: float
    """True engine time on the quiet device."""


@dataclass(frozen=True)
class FrameTruth:
    """What the simulator knows of one frame."""

    latency_ms: Sequence[float]
    """Engine time of every point, in the order of the trace's points."""
    beside_ms: float
    """What the frame costs beside the engine: resize, normalise, answer."""
    wake_ms: float
    """How late an idle runtime wakes for the frame."""
    budget: Budget
    readings: Readings
    resident: frozenset[str]
    crowding: float | None = None
    """Tasks that want a core as the frame begins, for each core; None where nobody counts."""


@dataclass(frozen=True)
class Trace:
    """A recorded or generated history. Frame i is captured at i / fps seconds."""

    name: str
    fps: float
    points: tuple[TracePoint, ...]
    latency_ms: Array
    """(frames, points)."""
    beside_ms: Array
    """(frames,)."""
    wake_ms: Array
    """(frames,)."""
    budgets: tuple[tuple[float, Budget], ...]
    """(from seconds on, budget), in order, the first from 0."""
    readings: tuple[tuple[float, Readings], ...] = ((0.0, UNKNOWN),)
    """(from seconds on, what the sensors say)."""
    resident: tuple[tuple[float, frozenset[str]], ...] = ()
    """(from seconds on, names of the points in memory); empty: all, always."""
    crowding: Array | None = None
    """(frames,): tasks that want a core, for each core, when an idle runtime begins the frame."""
    marks: tuple[tuple[float, str], ...] = ()
    """Moments for the scores: (seconds, "load on" or "load off")."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: seed, machine, command."""

    @property
    def frames(self) -> int:
        return int(self.latency_ms.shape[0])

    @property
    def duration_s(self) -> float:
        return self.frames / self.fps

    def fitting_deadline_ms(self, quiet: npt.NDArray[np.bool_] | None = None) -> float:
        """A deadline that matters: ROOM times the 99th percentile of the most accurate point's frames on the quiet
        machine, and never more than a frame period.

        Args:
            quiet: (frames,) which frames to look at; None: all.
        """
        top = max(range(len(self.points)), key=lambda i: self.points[i].accuracy)
        whole_ms = self.wake_ms + self.beside_ms + self.latency_ms[:, top]
        fitting_ms = ROOM * float(np.quantile(whole_ms if quiet is None or not quiet.any() else whole_ms[quiet], 0.99))
        return round(min(fitting_ms, 1000.0 / self.fps), 2)

    def with_deadline(self, deadline_ms: float, share: Callable[[float], float] = lambda at_s: 1.0) -> Trace:
        """The same history under a deadline, which may be another share of it at each time."""
        found: list[tuple[float, Budget]] = []
        for index in range(self.frames):
            budget = Budget(round(deadline_ms * share(index / self.fps), 3))
            if not found or found[-1][1] != budget:
                found.append((index / self.fps, budget))
        return replace(self, budgets=tuple(found))


class TraceWorld:
    """A trace as a world for the simulator: what the policy does changes nothing in it."""

    def __init__(self, trace: Trace) -> None:
        self.name, self.fps, self.frames = trace.name, trace.fps, trace.frames
        self.points, self.marks = trace.points, trace.marks
        self._latency_ms = trace.latency_ms.tolist()
        self._beside_ms, self._wake_ms = trace.beside_ms.tolist(), trace.wake_ms.tolist()
        self._crowding = None if trace.crowding is None else trace.crowding.tolist()
        everything = frozenset(p.name for p in trace.points)
        self._budgets = _Schedule(trace.budgets)
        self._readings = _Schedule(trace.readings)
        self._resident = _Schedule(trace.resident or ((0.0, everything),))

    def frame(self, index: int, now_s: float) -> FrameTruth:
        """The truth of one frame at a moment; asked in rising order of time."""
        return FrameTruth(
            self._latency_ms[index], self._beside_ms[index], self._wake_ms[index], self._budgets.at(now_s),
            self._readings.at(now_s), self._resident.at(now_s),
            None if self._crowding is None else self._crowding[index],
        )  # fmt: skip

    def spend(self, start_s: float, finish_s: float, busy_ms: float) -> None:
        """The device worked; nothing follows from that here."""


class _Schedule:
    """The value that holds at a time, for rising times."""

    def __init__(self, entries: Sequence[tuple[float, Any]]) -> None:
        self._entries, self._next = entries, 0

    def at(self, now_s: float) -> Any:
        while self._next + 1 < len(self._entries) and self._entries[self._next + 1][0] <= now_s:
            self._next += 1
        return self._entries[self._next][1]


def save_trace(path: Path, trace: Trace) -> None:
    """Write a recorded trace: float16 latencies, compressed; of budgets the deadlines. Readings are not kept."""
    about = {
        "name": trace.name, "fps": trace.fps, "points": [[p.name, p.accuracy, p.quiet_ms] for p in trace.points],
        "deadlines_ms": [[at_s, budget.deadline_ms] for at_s, budget in trace.budgets], "marks": trace.marks,
        "facts": trace.facts,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez_compressed(
            stream, about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            latency_ms=trace.latency_ms.astype(np.float16), beside_ms=trace.beside_ms.astype(np.float16),
            wake_ms=trace.wake_ms.astype(np.float16),
            **({} if trace.crowding is None else {"crowding": trace.crowding.astype(np.float16)}),
        )  # fmt: skip


def load_trace(path: Path) -> Trace:
    """Read what save_trace wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        latency_ms, beside_ms, wake_ms = (
            arrays[name].astype(np.float32) for name in ("latency_ms", "beside_ms", "wake_ms")
        )
        crowding = arrays["crowding"].astype(np.float32) if "crowding" in arrays else None
    return Trace(
        about["name"], about["fps"], tuple(TracePoint(*values) for values in about["points"]),
        latency_ms, beside_ms, wake_ms, tuple((at_s, Budget(limit_ms)) for at_s, limit_ms in about["deadlines_ms"]),
        crowding=crowding, marks=tuple((at_s, what) for at_s, what in about["marks"]), facts=about["facts"],
    )  # fmt: skip


def recorded_traces(folder: Path = FOLDER) -> list[Trace]:
    """All committed recordings, by name."""
    return [load_trace(path) for path in sorted(folder.glob("*.npz"))]
