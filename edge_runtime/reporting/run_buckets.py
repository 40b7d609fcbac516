"""Make a long run short enough to draw: frames are gathered in stretches of equal time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.run_log import Numbers, RunLog


@dataclass(frozen=True)
class Buckets:
    """Stretches of time, and the frames that fall into each; empty stretches are left out."""

    start_s: Numbers
    end_s: Numbers
    of_frame: npt.NDArray[np.int64]
    """For each frame, its stretch."""

    def percentile(self, values: Numbers, rank: float) -> Numbers:
        """Of the known values in each stretch; NaN where there are none."""
        return np.array([_percentile(values[frames], rank) for frames in self._frames()])

    def mean(self, values: npt.NDArray[np.generic]) -> Numbers:
        """Mean of each stretch; all values must be known."""
        count = np.bincount(self.of_frame, minlength=len(self.start_s))
        total = np.bincount(self.of_frame, weights=values.astype(np.float64), minlength=len(self.start_s))
        return np.asarray(total / count, dtype=np.float64)

    def _frames(self) -> list[npt.NDArray[np.int64]]:
        order = np.argsort(self.of_frame, kind="stable")
        cuts = np.cumsum(np.bincount(self.of_frame, minlength=len(self.start_s)))[:-1]
        return np.split(order, cuts)


def _percentile(values: Numbers, rank: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, rank, method="nearest")) if len(known) else float("nan")


def gather(at_s: Numbers, most: int) -> Buckets:
    """At most so many stretches over the whole time; fewer frames than that make fewer stretches.

    Args:
        at_s: time of each frame, never falling, the first at 0.
        most: how many stretches may be drawn.
    """
    count = max(1, min(most, len(at_s)))
    span_s = float(at_s[-1]) or 1.0
    edges = np.linspace(0.0, span_s, count + 1)
    slot = np.clip(np.searchsorted(edges, at_s, side="right") - 1, 0, count - 1)
    used, of_frame = np.unique(slot, return_inverse=True)
    return Buckets(edges[used], edges[used + 1], of_frame.astype(np.int64))


@dataclass(frozen=True)
class Stretch:
    """Frames in a row at one operating point."""

    point: int
    start_s: float
    end_s: float


def stretches(run: RunLog, most: int) -> list[Stretch]:
    """The run as a row of operating points, at most so many: the shortest are left out."""
    changes = np.flatnonzero(np.diff(run.point)) + 1
    firsts = np.concatenate([[0], changes])
    ends_s = np.append(run.at_s[firsts[1:]], run.at_s[-1])
    rows = [Stretch(int(run.point[f]), float(run.at_s[f]), float(e)) for f, e in zip(firsts, ends_s, strict=True)]
    if len(rows) <= most:
        return rows
    shortest = sorted(row.end_s - row.start_s for row in rows)[len(rows) - most]
    return [row for row in rows if row.end_s - row.start_s >= shortest][:most]
