"""Traces that a test can work out by hand: three points, constant times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.noise_model import QUANTILES, Noise
from benchmarks.traces import Trace, TracePoint
from edge_runtime.budget import Budget

POINTS = (TracePoint("small", 0.4, 4.0), TracePoint("middle", 0.5, 10.0), TracePoint("large", 0.6, 20.0))
STILL = Noise(1.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * len(QUANTILES), (0.0,) * len(QUANTILES), (0.0,) * len(QUANTILES))
"""A machine without any noise."""


def small_trace(frames: int = 60, fps: float = 30.0, deadline_ms: float = 25.0, **changes: Any) -> Trace:
    """Every frame takes each point its quiet time, and 1 ms beside."""
    trace = Trace(
        "small", fps, POINTS, np.tile(np.array([p.quiet_ms for p in POINTS], np.float32), (frames, 1)),
        np.full(frames, 1.0, np.float32), np.zeros(frames, np.float32), ((0.0, Budget(deadline_ms)),),
    )  # fmt: skip
    return replace(trace, **changes)


def slowed(trace: Trace, from_frame: int, to_frame: int, factor: float) -> Trace:
    """The same trace with slower frames in between, marked as a load."""
    latency_ms = trace.latency_ms.copy()
    latency_ms[from_frame:to_frame] *= factor
    marks = ((from_frame / trace.fps, "load on"), (to_frame / trace.fps, "load off"))
    return replace(trace, latency_ms=latency_ms, marks=marks)
