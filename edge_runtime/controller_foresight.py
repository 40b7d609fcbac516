"""Foreign load fed forward: a rise raises the expected slowdown before the first late frame."""

from __future__ import annotations

from edge_runtime.controller_filter import SlowdownFilter
from edge_runtime.controller_settings import ControllerSettings

LEAST_CHANGE = 0.05
"""Smaller changes of the load say nothing of its effect."""
BLUR = 0.01
"""Square of a change of the load that teaches half as much as a large one."""


class LoadForesight:
    """How much the slowdown rises with the foreign load: slowdown gained = gain x share of all cores, learned.

    Args:
        settings: constants.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.gain = settings.foreign_gain
        self._load: float | None = None
        self._slowdown = 1.0

    def take_load(self, load: float | None, slowdown: SlowdownFilter) -> None:
        """Take in a reading of the foreign load (0-1; None is unknown), and warn the filter of a rise.

        What the frames since the last reading have already told is not counted twice.
        """
        if load is None:
            return
        before, self._load = self._load, load
        if before is not None:
            change = load - before
            if change > LEAST_CHANGE or change < -LEAST_CHANGE:
                self._learn(change, slowdown.mean - self._slowdown)
            if change > LEAST_CHANGE:
                slowdown.expect(self._slowdown + self.gain * change)
        self._slowdown = slowdown.mean

    def _learn(self, change: float, gained: float) -> None:
        settings, square = self._settings, change * change
        weight = settings.foreign_gain_rate * square / (square + BLUR)
        gain = self.gain + weight * (gained / change - self.gain)
        self.gain = min(max(gain, 0.0), settings.max_foreign_gain)
