"""What a frame usually costs beside the engine: resize, normalise, answer."""

from __future__ import annotations

OVERHEAD_MEMORY = 0.9  # weight of the past
FALLING_MEMORY = 0.5  # against a frame that cost less than half: only a frame that costs more can be an accident
MOST_TIMES = 2.0  # one frame counts at most as so many times the mean: a preempted one says nothing of the next


class Overhead:
    """A running mean that single late frames hardly move: in milliseconds."""

    def __init__(self) -> None:
        self.mean_ms = 0.0

    def take(self, beside_ms: float) -> None:
        """Take in one frame."""
        if self.mean_ms <= 0.0:
            self.mean_ms = beside_ms if beside_ms > 0.0 else 0.0
            return
        counted_ms = min(max(beside_ms, 0.0), MOST_TIMES * self.mean_ms)
        memory = OVERHEAD_MEMORY if 2.0 * counted_ms > self.mean_ms else FALLING_MEMORY
        self.mean_ms = memory * self.mean_ms + (1.0 - memory) * counted_ms
