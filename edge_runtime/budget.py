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
    target_fps: float | None = None
    """Frames per second that must be kept up: the engine's time must fit in one period, however long the deadline."""
    max_memory_bytes: int | None = None
    """What all resident points together may take; a point that alone takes more is not used."""
    max_power_w: float | None = None
    """Upper limit of the power drawn: by the points' energy where it is known, and by the power sensor."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.deadline_ms) and self.deadline_ms > 0):
            raise BudgetError(
                f"deadline is {self.deadline_ms} ms, expected more than 0; give a positive latency or fps"
            )
        if not 0.0 <= self.min_accuracy <= 1.0:
            raise BudgetError(f"minimum accuracy is {self.min_accuracy}, expected 0 to 1 (0.6 means 60 %)")
        if self.battery_floor_share is not None and not 0.0 <= self.battery_floor_share <= 1.0:
            raise BudgetError(f"battery floor is {self.battery_floor_share}, expected 0 to 1")
        if self.target_fps is not None and not (math.isfinite(self.target_fps) and self.target_fps > 0):
            raise BudgetError(f"target is {self.target_fps} frames per second, expected more than 0")
        if self.max_memory_bytes is not None and self.max_memory_bytes <= 0:
            raise BudgetError(f"memory limit is {self.max_memory_bytes} bytes, expected more than 0")
        if self.max_power_w is not None and not (math.isfinite(self.max_power_w) and self.max_power_w > 0):
            raise BudgetError(f"power limit is {self.max_power_w} W, expected more than 0")

    @staticmethod
    def from_fps(target_fps: float, min_accuracy: float = 0.0) -> Budget:
        """One frame period as the deadline."""
        if not (math.isfinite(target_fps) and target_fps > 0):
            raise BudgetError(f"target is {target_fps} frames per second, expected more than 0")
        return Budget(1000.0 / target_fps, min_accuracy)
