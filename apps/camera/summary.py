"""The numbers of a run, and the table at its end."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from edge_runtime.result import Result

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class PointShare:
    """Use of one operating point."""

    name: str
    frames: int
    time_s: float
    """From each of its answers back to the answer before."""


@dataclass(frozen=True)
class Summary:
    """A finished run."""

    frames: int
    wall_s: float
    """From the first answer to the last."""
    feasible: int
    """Frames for which some point was expected to meet the budget."""
    attainment: float | None
    """Share of the feasible frames that were answered in time; None when there were none."""
    late: int
    """Frames answered after their deadline, feasible or not."""
    switches: int
    dropped: int
    latency_ms: tuple[float, ...]
    """At PERCENTILES, interpolated; empty without frames."""
    points: tuple[PointShare, ...]
    """Most used first."""

    @property
    def fps(self) -> float | None:
        """Answers a second."""
        return (self.frames - 1) / self.wall_s if self.wall_s > 0 else None


class RunStatistics:
    """Adds up results; keeps eight bytes a frame."""

    def __init__(self) -> None:
        self._latency_ms = array("d")
        self._points: dict[str, PointShare] = {}
        self._last: str | None = None
        self._first_s = self._last_s = 0.0
        self._feasible = self._feasible_on_time = self._late = self._switches = self._dropped = 0

    def add(self, result: Result, now_s: float) -> None:
        """Count one result, answered at `now_s`."""
        decision = result.decision
        if not self._latency_ms:
            self._first_s = self._last_s = now_s
        self._latency_ms.append(result.latency_ms)
        before = self._points.get(decision.point, PointShare(decision.point, 0, 0.0))
        self._points[decision.point] = PointShare(
            decision.point, before.frames + 1, before.time_s + now_s - self._last_s
        )
        self._switches += self._last is not None and self._last != decision.point
        self._last, self._last_s = decision.point, now_s
        self._feasible += decision.feasible
        self._feasible_on_time += decision.feasible and result.on_time
        self._late += not result.on_time
        self._dropped = max(self._dropped, result.dropped)

    def summary(self) -> Summary:
        """The run so far."""
        latency_ms: tuple[float, ...] = ()
        if self._latency_ms:
            latency_ms = tuple(float(value) for value in np.percentile(np.array(self._latency_ms), PERCENTILES))
        return Summary(
            frames=len(self._latency_ms),
            wall_s=self._last_s - self._first_s,
            feasible=self._feasible,
            attainment=self._feasible_on_time / self._feasible if self._feasible else None,
            late=self._late,
            switches=self._switches,
            dropped=self._dropped,
            latency_ms=latency_ms,
            points=tuple(sorted(self._points.values(), key=lambda point: (-point.frames, point.name))),
        )


def summary_table(summary: Summary, names: dict[str, str] | None = None) -> Table:
    """The summary as a table for people.

    Args:
        summary: of the run.
        names: what to call each point, such as "0.75 × 56"; its own name where absent.
    """
    table = Table(title="Summary of the run", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    rate = "" if summary.fps is None else f" in {summary.wall_s:.1f} s ({summary.fps:.1f} a second)"
    table.add_row("frames", f"{summary.frames}{rate}")
    attained = "–" if summary.attainment is None else f"{summary.attainment:.1%} of {summary.feasible} feasible"
    table.add_row("answered in time", attained)
    table.add_row("late", str(summary.late))
    for rank, value in zip(PERCENTILES, summary.latency_ms, strict=False):
        table.add_row(f"latency p{rank}", f"{value:.2f} ms")
    table.add_row("switches", str(summary.switches))
    table.add_row("dropped", str(summary.dropped))
    table.add_section()
    for point in summary.points:
        share = point.frames / summary.frames
        name = (names or {}).get(point.name, point.name)
        table.add_row(name, f"{share:.1%}  {point.frames} frames  {point.time_s:.1f} s")
    return table
