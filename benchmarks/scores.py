"""What a run was worth: attainment, in-time accuracy, regret, switches, recovery after a step and the way back up."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.simulator import RunLog

STEADY_FRAMES = 5
"""A run has recovered when so many feasible frames in a row are answered in time."""
UP_TOLERANCE = 0.02
"""A run is back up when its answers are within so much accuracy of the oracle's."""


@dataclass(frozen=True)
class Scores:
    """Of one run against the oracle of the same world; docs/controller.md defines each word."""

    frames: int
    feasible: int
    attainment: float | None
    """Share of the feasible frames that were answered in time; None if none was feasible."""
    in_time_accuracy: float
    """Mean over all frames of the expected accuracy; a late or dropped frame counts 0."""
    oracle_accuracy: float
    regret: float
    """(oracle's - own in-time accuracy) / oracle's."""
    switches_per_minute: float
    dropped: int
    p99_latency_ms: float | None
    recovery_frames: float | None
    """Median over the steps: frames from the step until feasible frames are answered in time again."""
    recovery_frames_worst: float | None
    up_s: float | None
    """Median over the releases: seconds until the accuracy is back at the oracle's."""

    def as_json(self) -> dict[str, Any]:
        """Rounded to what is worth writing down."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def score(run: RunLog, oracle: RunLog) -> Scores:
    """Judge a run.

    Args:
        oracle: the clairvoyant run through the same world.
    """
    feasible = int(run.feasible.sum())
    own, best = float(run.score.mean()), float(oracle.score.mean())
    answered = run.latency_ms[np.isfinite(run.latency_ms)]
    recovery = [_recovery_frames(run, at_s) for at_s, what in run.marks if what == "load on"]
    up = [_up_s(run, oracle, at_s) for at_s, what in run.marks if what == "load off"]
    return Scores(
        frames=len(run.score),
        feasible=feasible,
        attainment=float((run.on_time & run.feasible).sum() / feasible) if feasible else None,
        in_time_accuracy=own,
        oracle_accuracy=best,
        regret=(best - own) / best if best > 0 else 0.0,
        switches_per_minute=run.switches * 60.0 * run.fps / len(run.score),
        dropped=int((run.point < 0).sum()),
        p99_latency_ms=float(np.quantile(answered, 0.99)) if len(answered) else None,
        recovery_frames=statistics.median(recovery) if recovery else None,
        recovery_frames_worst=max(recovery) if recovery else None,
        up_s=statistics.median(up) if up else None,
    )


def _recovery_frames(run: RunLog, at_s: float) -> float:
    """Frames from `at_s` until STEADY_FRAMES feasible ones in a row are in time; infinite if that never happens."""
    first = math.ceil(at_s * run.fps - 1e-6)
    return _first_steady(run.feasible[first:], run.on_time[first:])


def _up_s(run: RunLog, oracle: RunLog, at_s: float) -> float:
    """Seconds from `at_s` until STEADY_FRAMES feasible frames in a row are as accurate as the oracle's, nearly.

    A frame that was interrupted says nothing of the point, so a late frame's point counts, not its score.
    """
    first = math.ceil(at_s * run.fps - 1e-6)
    accuracy = np.array([p.accuracy for p in run.points], np.float32)
    chosen = np.where(run.point >= 0, accuracy[run.point], 0.0)
    near = chosen >= oracle.score - UP_TOLERANCE
    return _first_steady(run.feasible[first:], near[first:]) / run.fps


def _first_steady(counted: Any, good: Any) -> float:
    """Index of the first counted entry from which STEADY_FRAMES counted ones in a row are good."""
    start, length = None, 0
    for index in np.flatnonzero(counted):
        if not good[index]:
            start, length = None, 0
            continue
        start = index if start is None else start
        length += 1
        if length == STEADY_FRAMES:
            # frames that nobody could have answered count as nothing
            return float(counted[:start].sum())
    return math.inf


def bootstrap_interval(values: list[float], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean, by drawing the values again with replacement."""
    draw = np.random.default_rng(seed)
    array = np.asarray(values, np.float64)
    means = array[draw.integers(0, len(array), (draws, len(array)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
