"""What the overlay shows, gathered from results one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.look_trail import LookTrail
from edge_runtime.point_names import without_shared_ending
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Box, Result

HISTORY_S = 6.0
"""Length of the sparkline."""
FPS_FRAMES = 30


class LadderPoint(Protocol):
    """The part of an operating point that the overlay needs; `edge_runtime`'s own has more."""

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> float: ...
    @property
    def size_hw(self) -> tuple[int, int]: ...
    @property
    def accuracy(self) -> Any: ...


@dataclass(frozen=True)
class GridPoint:
    """An operating point as a cell of the grid."""

    name: str
    width: float
    """Share of the channels, 0-1."""
    size: tuple[int, ...]
    """Height and width of its input; frames before them, where it reads clips."""
    accuracy: float | None = None
    """0-1 on the select split, where it was measured."""
    label: str = ""
    """What people call it, where width and resolution do not tell points apart: a network that looks several times."""
    cost_share: float = 1.0
    """Its multiply-adds, as a share of the dearest point's."""


@dataclass(frozen=True)
class LatencySample:
    """One frame of the sparkline."""

    at_s: float
    latency_ms: float
    deadline_ms: float


@dataclass(frozen=True)
class HudState:
    """Everything that the overlay draws; None is unknown and shown as a dash."""

    label: str = ""
    confidence: float = 0.0
    unsure: bool = False
    top: tuple[tuple[str, float], ...] = ()
    point: str = ""
    points: tuple[GridPoint, ...] = ()
    latency_ms: float = 0.0
    deadline_ms: float = 1000.0 / 30.0
    history: tuple[LatencySample, ...] = ()
    readings: Readings = UNKNOWN
    dropped: int = 0
    fps: float | None = None
    attainment: float | None = None
    phase: str = ""
    switch: str = ""
    """Last switch: "0.75 × 56 → 0.50 × 48"."""
    switch_reason: str = ""
    switch_age_s: float | None = None
    pinned: bool = False
    paused: bool = False
    trail: LookTrail | None = None
    """Where the network looked, where it looks several times."""
    boxes: tuple[Box, ...] = ()
    """What a detector found, the surest first, in pixels of the frame."""
    labels: tuple[str, ...] = ()
    """Of the network, for the colours of the boxes."""
    measure: str = "accuracy"
    """What the points' accuracy is: "AP" (average precision) of detectors."""


def grid_points(points: Sequence[LadderPoint]) -> tuple[GridPoint, ...]:
    """The ladder as cells; accuracy on the select split, or on the only one there is."""
    cells = []
    names = dict(zip((p.name for p in points), without_shared_ending([p.name for p in points]), strict=True))
    dearest = max((getattr(point, "madds", 0) for point in points), default=0) or 1
    for point in points:
        by_split = dict(point.accuracy or {})
        value = by_split.get("select", next(iter(by_split.values()), None))
        label = names[point.name] if getattr(point, "exit", None) is not None else ""
        cost_share = getattr(point, "madds", dearest) / dearest
        size = tuple(getattr(point, "size", point.size_hw))
        cells.append(GridPoint(point.name, float(point.width), size, value, label, cost_share))
    return tuple(cells)


def size_text(size: tuple[int, ...]) -> str:
    """ "56" for a square, "48x64" (columns x rows, as people say screen sizes) otherwise; "8 × 56" for eight frames."""
    height, width = size[-2:]
    text = str(height) if height == width else f"{width}x{height}"
    return text if len(size) == 2 else f"{size[0]} × {text}"


def point_caption(point: GridPoint | None) -> str:
    """What the parts of `point_text` are."""
    if point is not None and point.label:
        return "LOOKS"
    return "WIDTH × RESOLUTION" if point is None or len(point.size) == 2 else "WIDTH × FRAMES × PX"


def point_text(point: GridPoint | None, name: str = "") -> str:
    """A point for people: "0.75 × 56", or its name where it looks several times."""
    if point is None:
        return name
    return point.label or f"{point.width:.2f} × {size_text(point.size)}"


class HudTracker:
    """Follows a run and makes the state of each frame.

    Args:
        points: operating points of the run.
        labels: of the network.
    """

    def __init__(self, points: Sequence[LadderPoint], labels: tuple[str, ...] = ()) -> None:
        self._points, self._labels = grid_points(points), labels
        self._measure = "accuracy" if all(getattr(point, "anchors", None) is None for point in points) else "AP"
        self._by_name = {point.name: point for point in self._points}
        self._history: deque[LatencySample] = deque()
        self._times_s: deque[float] = deque(maxlen=FPS_FRAMES + 1)
        self._frames = self._on_time = 0
        self._point: str | None = None
        self._switch, self._reason = "", ""
        self._switched_s: float | None = None

    def state(
        self, result: Result, now_s: float, readings: Readings = UNKNOWN, phase: str = "", pinned: bool = False
    ) -> HudState:
        """Take one result in, and say what to draw.

        Args:
            result: the newest.
            now_s: any clock that runs evenly.
            readings: the newest of the device.
            phase: name of the scenario's phase, or "".
            pinned: the point is held by hand.
        """
        decision = result.decision
        if self._point is not None and decision.point != self._point:
            before, after = (self._by_name.get(name) for name in (self._point, decision.point))
            self._switch = f"{point_text(before, self._point)} → {point_text(after, decision.point)}"
            self._reason, self._switched_s = decision.reason, now_s
        self._point = decision.point
        self._frames += 1
        self._on_time += result.on_time
        self._times_s.append(now_s)
        self._history.append(LatencySample(now_s, result.latency_ms, result.deadline_ms))
        while now_s - self._history[0].at_s > HISTORY_S:
            self._history.popleft()
        answer = result.answer
        return HudState(
            label=answer.label,
            confidence=answer.confidence,
            unsure=answer.label == "unsure",
            top=answer.top,
            point=decision.point,
            points=self._points,
            latency_ms=result.latency_ms,
            deadline_ms=result.deadline_ms,
            history=tuple(self._history),
            readings=readings,
            dropped=result.dropped,
            fps=self._fps(),
            attainment=self._on_time / self._frames,
            phase=phase,
            switch=self._switch,
            switch_reason=self._reason,
            switch_age_s=None if self._switched_s is None else now_s - self._switched_s,
            pinned=pinned,
            trail=result.trail,
            boxes=result.boxes or (),
            labels=self._labels,
            measure=self._measure,
        )

    def _fps(self) -> float | None:
        span_s = self._times_s[-1] - self._times_s[0]
        return (len(self._times_s) - 1) / span_s if span_s > 0 else None
