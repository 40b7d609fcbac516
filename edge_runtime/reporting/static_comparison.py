"""What each operating point alone would have scored on the frames of a recorded run: computed, not run.

For each frame, a point's engine time is taken to be its tabled latency times the run's own estimate of the slowdown.
What the frame took beyond that for the point that did run (pre- and postprocessing, queueing, a stall) is added to
every point alike, so the run's own choices come out exactly as they were. A stall that would have grown with the work
counts as if it had not: that flatters the points that are larger than the one that ran.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.run_log import Numbers, RunLog

SLOW_LIMIT = re.compile("hot|heat|therm|battery|memory|power", re.IGNORECASE)
"""Limits of the controller's slow loop, which a static point ignores."""
MEASURED, COMPUTED = "measured", "computed"
MEASURED_TABLE = "what each point took in every frame, measured beside the run"
ADAPTIVE, STATIC, CLAIRVOYANT = "adaptive", "static", "clairvoyant"


@dataclass(frozen=True)
class Score:
    """How one way to choose points did, over the frames that could be computed."""

    title: str
    kind: str
    """adaptive, static or clairvoyant."""
    basis: str
    """measured or computed."""
    on_time: npt.NDArray[np.bool_]
    """For each compared frame."""
    accuracy: Numbers
    """Expected accuracy of each compared frame's point, 0-1."""
    point: str = ""

    @property
    def on_time_share(self) -> float:
        """Frames answered by their deadline."""
        return float(self.on_time.mean())

    @property
    def mean_accuracy(self) -> float:
        """Expected accuracy of the answers, late or not."""
        return float(self.accuracy.mean())

    @property
    def useful_accuracy(self) -> float:
        """Expected share of frames answered rightly *and* by their deadline."""
        return float((self.accuracy * self.on_time).mean())

    def useful_on(self, chosen: npt.NDArray[np.bool_]) -> float:
        """`useful_accuracy` on some of the frames."""
        return float((self.accuracy * self.on_time)[chosen].mean())

    @property
    def late(self) -> int:
        """Frames answered after their deadline."""
        return int((~self.on_time).sum())


@dataclass(frozen=True)
class Comparison:
    """Adaptive against static, on the same frames."""

    frames: npt.NDArray[np.int64]
    """Which frames of the run were compared."""
    scores: tuple[Score, ...]
    """The run as it was, clairvoyant, then each static point, the best first."""
    without_table: int
    """Points that are left out because their latency is not known."""
    table: str
    """Where the tabled latencies come from, in words."""
    held: npt.NDArray[np.bool_]
    """For each compared frame, whether heat, battery or memory, not the deadline, limited the adaptive run."""

    @property
    def adaptive(self) -> Score:
        """The run as it was."""
        return self.scores[0]

    @property
    def static(self) -> tuple[Score, ...]:
        """One for each point, the best first."""
        return tuple(score for score in self.scores if score.kind == STATIC)


def compare_with_static(run: RunLog, profiled_ms: Mapping[str, float] | None = None) -> Comparison | None:
    """Score the run and each static point on the same frames.

    Args:
        run: the recording.
        profiled_ms: point -> median latency from a profile of this bundle on this device, if there is one.
    Returns:
        None when the recording lacks what it takes: slowdown, deadline, accuracies, or any tabled latency.
    """
    tabled_ms, table = tabled_latencies(run, profiled_ms)
    known = [i for i, p in enumerate(run.points) if p.name in tabled_ms and p.accuracy is not None]
    slowdown, deadline_ms = run.columns["slowdown"], run.columns["deadline_ms"]
    frames = np.flatnonzero(np.isfinite(slowdown) & np.isfinite(deadline_ms) & np.isin(run.point, known))
    if not len(frames) or len(known) < 2:
        return None
    engine_ms = np.array([tabled_ms[run.points[i].name] for i in known])[:, None] * slowdown[frames]  # (points, frames)
    measured = _measured_for_all(run, [run.points[i].name for i in known], frames)
    if measured is not None:
        engine_ms, table = measured, MEASURED_TABLE
    row, each = np.searchsorted(known, run.point[frames]), np.arange(len(frames))
    beyond_ms = run.columns["latency_ms"][frames] - engine_ms[row, each]
    in_time = engine_ms + beyond_ms <= deadline_ms[frames]
    in_time[row, each] = run.on_time[frames]  # the run itself knows best
    accuracy = np.array([run.points[i].accuracy for i in known], dtype=np.float64)
    best = np.where(in_time, accuracy[:, None], 0.0).max(axis=0)
    scores = [
        Score("adaptive", ADAPTIVE, MEASURED, np.asarray(run.on_time[frames]), accuracy[row]),
        Score("clairvoyant", CLAIRVOYANT, COMPUTED, np.asarray(in_time.any(axis=0)), best),
    ]
    static = [
        Score(run.points[i].label, STATIC, COMPUTED, in_time[k], np.full(len(frames), accuracy[k]), run.points[i].name)
        for k, i in enumerate(known)
    ]
    static.sort(key=lambda score: (-score.useful_accuracy, score.late))
    held = np.array([SLOW_LIMIT.search(run.limits[frame]) is not None for frame in frames])
    return Comparison(frames, (*scores, *static), len(run.points) - len(known), table, held)


def _measured_for_all(run: RunLog, names: list[str], frames: npt.NDArray[np.int64]) -> Numbers | None:
    """(points, frames) milliseconds that a benchmark measured, or None when any of them is missing."""
    rows = [run.point_latency_ms[frame] for frame in frames]
    if any(row is None or any(name not in row for name in names) for row in rows):
        return None
    return np.array([[row[name] for row in rows if row is not None] for name in names])


def tabled_latencies(run: RunLog, profiled_ms: Mapping[str, float] | None = None) -> tuple[dict[str, float], str]:
    """Point -> latency without slowdown, milliseconds, and where it comes from.

    What the controller itself used comes first: its prediction divided by its slowdown, the last one of each point that
    it visited. Other points are filled in from the recording's table, then from a profile.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = run.columns["predicted_ms"] / run.columns["slowdown"]
    found: dict[str, float] = {}
    for index in np.flatnonzero(np.isfinite(quotient) & (quotient > 0.0)):
        found[run.points[run.point[index]].name] = float(quotient[index])
    sources = ["the controller's own predictions"] if found else []
    listed = {p.name: p.latency_ms for p in run.points if p.latency_ms is not None}
    for values, source in ((listed, "the recording's query table"), (profiled_ms or {}, "the profile in this report")):
        fresh = {n: v for n, v in values.items() if n not in found and any(p.name == n for p in run.points)}
        if fresh:
            found.update(fresh)
            sources.append(source)
    return found, " and ".join(sources) or "nowhere"
