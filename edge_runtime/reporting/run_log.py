"""A recorded run as a report wants it: columns of numbers, one entry a frame. `run_reader` makes it from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.run_points import LoggedPoint

Numbers = npt.NDArray[np.float64]
FRAME_NUMBERS = (
    "captured_s", "latency_ms", "run_ms", "preprocess_ms", "deadline_ms", "predicted_ms", "slowdown", "own_load",
    "foreign_load", "temperature_c", "battery_share", "memory_available_bytes", "dropped", "confidence", "steps",
)  # fmt: skip
"""Keys of a frame that become columns."""
CARRIED_NUMBERS = ("min_accuracy", "power_w")
"""Keys of the lines between frames that hold until the next such line."""
NUMBERS = (*FRAME_NUMBERS, *CARRIED_NUMBERS)


@dataclass(frozen=True)
class RunLog:
    """One recorded run with at least one frame; every array and sequence has one entry a frame."""

    path: str
    bundle: str
    backend: str
    started: str
    facts: Mapping[str, Any]
    """The first line."""
    points: tuple[LoggedPoint, ...]
    """Operating points of the bundle, and others that frames name."""
    point: npt.NDArray[np.int64]
    """Index into `points`."""
    at_s: Numbers
    """Since the first frame; never falls."""
    columns: Mapping[str, Numbers]
    """NUMBERS -> values; NaN is unknown."""
    on_time: npt.NDArray[np.bool_]
    feasible: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    """What kept a more accurate point from being used; the reason where the recording does not say."""
    late_because: tuple[str, ...]
    """What took most of a late frame's time; empty when it was on time or the recording does not say."""
    point_latency_ms: Sequence[Mapping[str, float] | None]
    """What each point would have taken in this frame, where a benchmark measured it."""
    complete: bool
    """The run came to its own end."""
    notes: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.at_s)

    @property
    def duration_s(self) -> float:
        """From the first frame to the last."""
        return float(self.at_s[-1])

    def known(self, key: str) -> bool:
        """Whether any frame has this number."""
        return bool(np.isfinite(self.columns[key]).any())
