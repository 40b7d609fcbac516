"""What the other operating points would have taken in a frame in which one was measured.

The engine call of point p took C ms of CPU and W ms off its core in n interruptions. Two assumptions, both stated
because the oracle and the feasible frames rest on them:

1. CPU time: point q takes C * (quiet_q * e_q) / (quiet_p * e_p). e is how much a point suffers from this state of the
   machine beyond the others (cache, memory); it is measured where all points are recorded in turn, else 1.
2. Interruptions come by the CPU time used. One at u * C (u uniform in 0..1, drawn from a seed) hits every point that
   computes longer than that, takes W / n, and comes again each C: a shorter point may finish before it, a longer one
   may be hit more often, and for the measured point the result is what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.frame_loop import FrameRow
from benchmarks.traces import Array, Trace, TracePoint
from edge_runtime.budget import Budget

NEVER_MS = 60_000.0
"""Stands for a frame that nobody could have answered; fits float16."""


def rebuild(
    name: str,
    fps: float,
    frame_count: int,
    points: tuple[TracePoint, ...],
    rows: Sequence[FrameRow],
    *,
    slept_through: dict[int, float],
    phase_of: Array,
    seed: int,
    learn_effects: bool,
) -> Trace:
    """A trace of a block of frames, with the latency of every point in every frame; its deadline is one frame period.

    Args:
        rows: the answered frames, in order.
        slept_through: frames during which the process waited for a core; nobody could have answered them.
        phase_of: (frame_count,) number of the state of the machine (idle, loaded), for the effects and for frames
            without a row.
        seed: for the positions of interruptions.
        learn_effects: rows hold all points in turn, so that e can be measured in each phase.
    """
    position = {p.name: i for i, p in enumerate(points)}
    quiet_ms = np.array([p.quiet_ms for p in points])
    effects = _effects(rows, position, quiet_ms, phase_of) if learn_effects else {}
    draw = np.random.default_rng(seed)
    latency_ms = np.zeros((frame_count, len(points)), np.float32)
    beside_ms = np.zeros(frame_count, np.float32)
    known = np.full(frame_count, -1)
    for number, row in enumerate(rows):
        effect = effects.get(float(phase_of[row.index]), np.ones(len(points)))
        latency_ms[row.index] = _latencies(row, position[row.point], quiet_ms * effect, draw)
        beside_ms[row.index], known[row.index] = row.beside_ms, number
    _fill(known, phase_of)
    index_of = np.array([row.index for row in rows])
    latency_ms, beside_ms = latency_ms[index_of[known]], beside_ms[index_of[known]]
    wake_ms = _wake(rows, frame_count, phase_of)
    for index, late_ms in slept_through.items():
        wake_ms[index] = min(late_ms, NEVER_MS)
    crowding = None
    if all(row.crowding is not None for row in rows):
        crowding = np.array([row.crowding for row in rows], np.float32)[known]
    return Trace(
        name, fps, points, latency_ms, beside_ms, wake_ms, ((0.0, Budget(1000.0 / fps)),), crowding=crowding
    )  # fmt: skip


def estimated_over_measured(trace: Trace, rows: Sequence[FrameRow]) -> dict[str, float]:
    """How far the two assumptions hold: per point the latencies that were derived from other points' frames, against
    those that were measured in its own frames.

    Returns:
        median over the points, and the one furthest from 1, of estimated / measured at the median and at the 90th
        percentile.
    """
    measured_in = np.full(trace.frames, -1)
    for row in rows:
        measured_in[row.index] = [p.name for p in trace.points].index(row.point)
    found: dict[str, float] = {}
    for share in (0.5, 0.9):
        ratios = [
            float(np.quantile(trace.latency_ms[(measured_in >= 0) & ~own, i], share) / np.quantile(column, share))
            for i in range(len(trace.points))
            if (own := measured_in == i).any() and len(column := trace.latency_ms[own, i])
        ]
        name = f"p{100 * share:g}"
        found[f"{name}_median_point"] = round(float(np.median(ratios)), 4)
        found[f"{name}_worst_point"] = round(max(ratios, key=lambda ratio: abs(math.log(ratio))), 4)
    return found


def _latencies(row: FrameRow, point: int, scaled_ms: Array, draw: np.random.Generator) -> Array:
    """Latency of all points in the frame of one row, milliseconds."""
    off_core_ms = max(0.0, row.run_ms - row.cpu_ms)
    cpu_ms = row.cpu_ms * scaled_ms / scaled_ms[point]
    count = max(1, row.interruptions)
    at_ms = draw.uniform(0.0, 1.0, count) * row.cpu_ms
    # hits of one interruption that comes at `at` and again each row.cpu_ms
    hits = np.ceil(np.maximum(0.0, cpu_ms[:, None] - at_ms[None, :]) / max(row.cpu_ms, 1e-6))
    latency_ms: Array = cpu_ms + hits.sum(axis=1) * off_core_ms / count
    latency_ms[point] = row.run_ms
    return latency_ms


def _effects(
    rows: Sequence[FrameRow], position: dict[str, int], quiet_ms: Array, phase_of: Array
) -> dict[float, Array]:
    """Phase -> how much more each point's CPU time grows than the median point's."""
    found = {}
    for phase in sorted({float(value) for value in phase_of}):
        ratios: list[list[float]] = [[] for _ in quiet_ms]
        for row in rows:
            if float(phase_of[row.index]) == phase:
                ratios[position[row.point]].append(row.cpu_ms / quiet_ms[position[row.point]])
        medians = np.array([float(np.median(r)) if r else math.nan for r in ratios])
        if np.isfinite(medians).any():
            medians = np.where(np.isfinite(medians), medians, np.nanmedian(medians))
            found[phase] = medians / np.median(medians)
    return found


def _fill(known: Array, phase_of: Array) -> None:
    """Give frames without a row the nearest row of their phase; of any phase if there is none."""
    have = np.flatnonzero(known >= 0)
    for index in np.flatnonzero(known < 0):
        same = have[phase_of[have] == phase_of[index]]
        near = same if len(same) else have
        known[index] = known[near[np.argmin(np.abs(near - index))]]


def _wake(rows: Sequence[FrameRow], frame_count: int, phase_of: Array) -> Array:
    """Lateness of an idle runtime's wake-up in each frame; where it was busy, that of the nearest idle frame."""
    known = np.full(frame_count, -1)
    idle = [row for row in rows if row.idle]
    if not idle:
        return np.zeros(frame_count, np.float32)
    for number, row in enumerate(idle):
        known[row.index] = number
    _fill(known, phase_of)
    return np.array([idle[number].age_ms for number in known], np.float32)
