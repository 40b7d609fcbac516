"""The answer for one frame, with everything that led to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.frame import Frame
from edge_runtime.look_trail import LookTrail


@dataclass(frozen=True)
class Decision:
    """Which operating point, and why."""

    point: str
    """Name of the operating point."""
    reason: str
    """Why this point: one of the controller's fixed phrases."""
    predicted_ms: float
    """Expected latency of the point under the estimated slowdown."""
    slowdown: float
    """Estimated ratio of observed latency to the query table."""
    switched: bool = False
    """The point differs from the previous frame's."""
    feasible: bool = True
    """The point is expected to meet the budget: more likely on time than not, and within every other limit."""
    limited_by: str = ""
    """What kept a more accurate point from being used: "deadline", "device hot", "battery low", ...; empty: nothing."""
    on_time_share: float | None = None
    """Expected probability that the frame is on time, 0-1; None where the policy has no such estimate."""


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a frame, or the surest box of a detector."""

    label: str
    """Best label, or "unsure" when the confidence is below the point's threshold."""
    confidence: float
    """Calibrated probability of the best label, 0-1."""
    top: tuple[tuple[str, float], ...] = ()
    """Best labels with their probabilities, best first; of a detector each label's surest box."""


@dataclass(frozen=True)
class Box:
    """One thing that a detector found. Sides are in pixels of the frame, between its edges, top < bottom."""

    label: str
    confidence: float
    """Calibrated, 0-1."""
    top: float
    left: float
    bottom: float
    right: float


@dataclass(frozen=True)
class Result:
    """One processed frame."""

    frame: Frame
    answer: Classification
    outputs: tuple[npt.NDArray[np.float32], ...]
    """Raw network outputs, (1, classes) or (1, anchors, 4 + labels) float32; copies, owned by the result."""
    decision: Decision
    preprocess_ms: float
    run_ms: float
    """Time inside the engine, all steps."""
    latency_ms: float
    """From capture to answer for a live source; from the start of processing for a file."""
    deadline_ms: float
    dropped: int = 0
    """Frames that the source dropped so far."""
    on_time: bool = True
    late_because: str | None = None
    """Why it was late: source, decode, sink, compute or throttled (edge_runtime/late_cause.py); None when on time."""
    sink_ms: float = 0.0
    """How long whoever takes the answers held up the loop before this frame."""
    trail: LookTrail | None = None
    """Where a network that looks several times looked; None for all others."""
    clip_frames: int | None = None
    """How many different frames a network for clips read, fewer than its own number while a stream is young or slow;
    None for networks that read pictures."""
    boxes: tuple[Box, ...] | None = None
    """What a detector found, the surest first; None for classifiers."""
