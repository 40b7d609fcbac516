"""How latency varies on a real machine, fitted to recordings; the generated traces draw from it.

The recordings show no bell curve. A frame's engine time is CPU time, which varies by a few percent around a level that
drifts slowly, plus time off the core: nothing in most frames, a time slice of several milliseconds in some. So a state
of the machine (idle, loaded) is described by

- `cpu_ratio`: median CPU time over the quiet table's: what shared caches, memory and sibling threads cost;
- `cpu_drift`, `cpu_drift_memory`: deviation and correlation from frame to frame of the log of the CPU time;
- `cpu_jitter`: the deviation of what is left, from frame to frame;
- `interruptions_per_ms`: how often the core is taken away, per millisecond of CPU time used;
- `off_core_ms`: quantiles of how long it stays away each time: the heavy tail, taken as it was measured;
- `wake_ms`: quantiles of how late an idle runtime gets its core when a frame arrives;
- `beside_ms`: quantiles of a frame's cost beside the engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.frame_loop import FrameRow
from benchmarks.record import RESULTS
from benchmarks.traces import Array, TracePoint

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True)
class Noise:
    """One state of the machine; see above."""

    cpu_ratio: float
    cpu_drift: float
    cpu_drift_memory: float
    cpu_jitter: float
    interruptions_per_ms: float
    off_core_ms: tuple[float, ...]
    wake_ms: tuple[float, ...]
    beside_ms: tuple[float, ...]

    def scattered(self, factor: float) -> Noise:
        """The same state with more or less scatter of CPU time; what interruptions cost stays."""
        return replace(self, cpu_drift=self.cpu_drift * factor, cpu_jitter=self.cpu_jitter * factor)

    def tails_scaled(self, factor: float) -> Noise:
        """The same state whose interruptions, wake-ups and other costs lie nearer to their medians, or farther."""
        names = ("off_core_ms", "wake_ms", "beside_ms")
        middle = QUANTILES.index(0.5)
        scaled = {
            n: tuple(max(0.0, v[middle] + factor * (x - v[middle])) for x in v)
            for n in names
            for v in [getattr(self, n)]
        }
        return replace(self, **scaled)

    def off_core(self, uniform: Array) -> Array:
        """Lengths of interruptions for uniform draws."""
        return np.interp(uniform, QUANTILES, self.off_core_ms)

    def wake(self, uniform: Array) -> Array:
        """Latenesses of wake-ups for uniform draws."""
        return np.interp(uniform, QUANTILES, self.wake_ms)

    def beside(self, uniform: Array) -> Array:
        """Costs beside the engine for uniform draws."""
        return np.interp(uniform, QUANTILES, self.beside_ms)


STATES = {"quiet": (("stationary",), 0.0), "loaded": (("step",), 1.0)}
"""State -> the loads and the phase it is fitted to."""


def fit_noise(
    blocks: Sequence[tuple[str, Sequence[FrameRow], Array]], points: tuple[TracePoint, ...]
) -> dict[str, Any]:
    """Fit every state of STATES that was recorded: (load, rows, phase of each frame) -> JSON."""
    quiet_ms = {p.name: p.quiet_ms for p in points}
    found = {}
    for state, (loads, phase) in STATES.items():
        rows = [r for load, rs, phase_of in blocks if load in loads for r in rs if phase_of[r.index] == phase]
        if len(rows) > 10:
            found[state] = asdict(_fit(rows, quiet_ms))
    return found


def load_noise() -> dict[str, Noise]:
    """The states that were recorded on this machine."""
    values = json.loads((RESULTS / "contention_noise.json").read_text(encoding="utf-8"))["noise"]
    return {
        state: Noise(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        for state, fields in values.items()
    }


def _fit(rows: Sequence[FrameRow], quiet_ms: dict[str, float]) -> Noise:
    log_ratio = np.log([max(r.cpu_ms, 1e-3) / quiet_ms[r.point] for r in rows])
    names = np.array([r.point for r in rows])
    centred = log_ratio.copy()
    for name in set(names):
        centred[names == name] -= np.median(log_ratio[names == name])
    covered = np.clip(centred, *np.quantile(centred, [0.01, 0.99]))  # the tail is the interruptions' matter
    variance = float(covered.var())
    neighbours = float(np.mean(covered[:-1] * covered[1:]))
    after_next = float(np.mean(covered[:-2] * covered[2:]))
    # a drift with memory m and variance d over white jitter: covariances d m and d m m at one and two frames
    memory = float(np.clip(after_next / neighbours, 0.0, 0.99)) if neighbours > 0 else 0.0
    drift = float(np.clip(neighbours / memory, 0.0, variance)) if memory > 0 else 0.0
    off_ms = np.array([max(0.0, r.run_ms - r.cpu_ms) for r in rows])
    counts = np.array([r.interruptions if off > 0.05 else 0 for r, off in zip(rows, off_ms, strict=True)])
    counts = np.where((counts == 0) & (off_ms > 0.05), 1, counts)
    lengths = np.concatenate([np.full(c, off / c) for c, off in zip(counts, off_ms, strict=True) if c] or [np.zeros(1)])
    return Noise(
        cpu_ratio=_rounded(float(np.exp(np.median(log_ratio)))),
        cpu_drift=_rounded(drift**0.5),
        cpu_drift_memory=_rounded(memory),
        cpu_jitter=_rounded(max(0.0, variance - drift) ** 0.5),
        interruptions_per_ms=_rounded(float(counts.sum() / max(1e-9, sum(r.cpu_ms for r in rows)))),
        off_core_ms=_quantiles(lengths),
        wake_ms=_quantiles(np.array([r.age_ms for r in rows if r.idle] or [0.0])),
        beside_ms=_quantiles(np.array([r.beside_ms for r in rows])),
    )


def _quantiles(values: Array) -> tuple[float, ...]:
    return tuple(_rounded(float(v)) for v in np.quantile(values, QUANTILES))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
