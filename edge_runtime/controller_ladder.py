"""What a policy knows of the operating points: the query table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LadderPoint:
    """What a policy knows of one operating point; None is unknown."""

    name: str
    accuracy: float
    """Expected, 0-1, on the select split."""
    latency_ms: float
    """Query table: the engine's time for one frame, measured on this device when it was quiet."""
    p99_ms: float | None = None
    """99th percentile of that time."""
    memory_bytes: int | None = None
    """What the point takes while it is resident."""
    energy_j: float | None = None
    """Energy of one frame, joules."""
    threads: int | None = None
    """Threads that its engine uses; points may differ in nothing else."""


def by_latency(ladder: Sequence[LadderPoint]) -> tuple[LadderPoint, ...]:
    """The ladder with the fastest point first.

    Raises:
        ValueError: it is empty, or two points have one name.
    """
    if not ladder:
        raise ValueError("the ladder is empty")
    if len({point.name for point in ladder}) < len(ladder):
        raise ValueError("two points of the ladder have the same name")
    return tuple(sorted(ladder, key=lambda point: point.latency_ms))


def pareto(ladder: Sequence[LadderPoint]) -> tuple[LadderPoint, ...]:
    """The points that no faster point reaches in accuracy, fastest first."""
    kept: list[LadderPoint] = []
    for point in by_latency(ladder):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return tuple(kept)
