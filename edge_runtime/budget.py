"""What the application wants now."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """A deadline, and limits on what may be given up for it. It may change between any two frames."""

    deadline_ms: float = 1000.0 / 30.0
    """From capture to answer."""
    min_accuracy: float = 0.0
    """Points whose expected accuracy (0-1, on the select split) is lower are not used."""
    battery_floor_share: float | None = None
    """Below this charge (0-1) only the cheapest admissible point is used."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.deadline_ms) and self.deadline_ms > 0):
            raise BudgetError(
                f"deadline is {self.deadline_ms} ms, expected more than 0; give a positive latency or fps"
            )
        if not 0.0 <= self.min_accuracy <= 1.0:
            raise BudgetError(f"minimum accuracy is {self.min_accuracy}, expected 0 to 1 (0.6 means 60 %)")
        if self.battery_floor_share is not None and not 0.0 <= self.battery_floor_share <= 1.0:
            raise BudgetError(f"battery floor is {self.battery_floor_share}, expected 0 to 1")

    @staticmethod
    def from_fps(target_fps: float, min_accuracy: float = 0.0) -> Budget:
        """One frame period as the deadline."""
        if not (math.isfinite(target_fps) and target_fps > 0):
            raise BudgetError(f"target is {target_fps} frames per second, expected more than 0")
        return Budget(1000.0 / target_fps, min_accuracy)
