"""What a run was worth: attainment, in-time accuracy, regret, switches, recovery after a step and the way back up."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.simulator import RunLog

STEADY_FRAMES = 5
"""A run has recovered when so many feasible frames in a row are answered in time."""
UP_TOLERANCE = 0.02
"""A run is back up when its points are within so much accuracy of those that it used before."""
EXPECTED_EDGES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Frames whose expected probabilities lie between two of these are compared with their real share in time."""
SETTLED_S = 2.0
"""A calm this old is settled; shorter ones do not tell how fast a run comes back."""


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
    """Median over the releases: seconds until the points are as accurate again as where the machine was calm."""
    calibration_error: float | None
    """Mean distance between the expected and the real share of answers in time, over frames that expected alike; None
    for a policy without such an estimate."""

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
    up = [_up_s(run, *span) for span in _releases(run)] if run.marks else []
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
        calibration_error=_calibration_error(run),
    )


def _calibration_error(run: RunLog) -> float | None:
    known = np.isfinite(run.expected) & (run.point >= 0)
    if not known.any():
        return None
    expected, on_time = run.expected[known], run.on_time[known]
    group = np.digitize(expected, EXPECTED_EDGES)
    gaps = [
        abs(float(expected[group == g].mean() - on_time[group == g].mean())) * float((group == g).mean())
        for g in set(group.tolist())
    ]
    return sum(gaps)


def _recovery_frames(run: RunLog, at_s: float) -> float:
    """Frames from `at_s` until STEADY_FRAMES feasible ones in a row are in time; infinite if that never happens."""
    first = math.ceil(at_s * run.fps - 1e-6)
    return _first_steady(run.feasible[first:], run.on_time[first:])


def _up_s(run: RunLog, at_s: float, until_s: float) -> float:
    """Seconds from `at_s` until STEADY_FRAMES feasible frames in a row use points about as accurate as the run's own
    where the machine was calm; infinite if that does not happen before `until_s`.

    A frame that was interrupted says nothing of the point, so a late frame's point counts, not its score.
    """
    accuracy = np.array([p.accuracy for p in run.points], np.float32)
    chosen = np.where(run.point >= 0, accuracy[run.point], 0.0)
    calm = _calm_frames(run)
    if not calm.any():
        return math.inf
    near = chosen >= float(np.median(chosen[calm])) - UP_TOLERANCE
    first, last = math.ceil(at_s * run.fps - 1e-6), int(until_s * run.fps)
    return _first_steady(run.feasible[first:last], near[first:last]) / run.fps


def _releases(run: RunLog) -> list[tuple[float, float]]:
    """(from, until) seconds of each calm that follows a load and lasts long enough to judge."""
    ends = [*run.marks[1:], (len(run.score) / run.fps, "end")]
    spans = [(at_s, end_s) for (at_s, what), (end_s, _) in zip(run.marks, ends, strict=True) if what == "load off"]
    return [(at_s, end_s) for at_s, end_s in spans if end_s - at_s > SETTLED_S]


def _calm_frames(run: RunLog) -> npt.NDArray[np.bool_]:
    """Frames before the first load, and those of each calm after the time in which a run may still be on its way."""
    at_s = np.arange(len(run.score)) / run.fps
    calm = at_s < run.marks[0][0]
    for from_s, until_s in _releases(run):
        calm |= (at_s >= from_s + SETTLED_S) & (at_s < until_s)
    return calm & run.feasible


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
