"""What one state of the machine has taught about its late frames: noise, surprises, and the sizes of those set aside.

A calm machine and a loaded one surprise in different ways. What was learned in one state is kept while the machine is
in the other, so that neither has to be learned again each time a load comes and goes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import sqrt

from edge_runtime.controller_settings import ControllerSettings

SPIKES = 8
"""Late frames whose sizes are remembered; their number is counted over all remembered frames."""
SQRT2 = 1.4142135623730951
"""Student's t with four degrees of freedom has twice the variance of its scale's square."""


def late_share(deviations: float) -> float:
    """P(T > deviations) of Student's t with four degrees of freedom, 0-1.

    Its distribution function is algebraic, and its tails are as heavy as those of real latencies.
    """
    if deviations > 1e4:
        return 0.0
    if deviations < -1e4:
        return 1.0
    square = deviations * deviations
    spread = 1.0 + 0.25 * square
    return 0.5 - 0.375 * (deviations / sqrt(spread)) * (1.0 - square / (12.0 * spread))


class Surprises:
    """The frames of one state of the machine.

    Args:
        settings: constants.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.noise_ms2: float | None = None
        """Variance of one frame around the mean, as a part of the tabled latency, square milliseconds: what takes the
        core away adds milliseconds, which weigh less the longer a point runs. None before the first frame."""
        self.level = 1.0
        """Mean slowdown in this state."""
        self._recent: list[float | None] = []
        """Surprises in standard deviations, in order of time from `_next` on; None stands for a late frame."""
        self._next = 0
        self._sorted: list[float] = []
        """Those that are numbers."""
        self._spikes: list[tuple[float, float]] = []
        """(slowdown, milliseconds beyond the expected) of the last late frames, in order from `_next_spike` on."""
        self._next_spike = 0
        self._least_spike = self._largest_spike = (0.0, 0.0)
        """The least and the largest of both numbers among `_spikes`, so that most questions need no look at each."""

    @property
    def known(self) -> int:
        """Frames remembered."""
        return len(self._recent)

    def noise(self, cost_ms: float) -> float:
        """Variance of one frame of a point around the mean, relative to its square."""
        settings = self._settings
        if self.noise_ms2 is None:
            return settings.first_noise
        noise = self.noise_ms2 / (cost_ms * cost_ms)
        if noise < settings.min_noise:
            return settings.min_noise
        return settings.max_noise if noise > settings.max_noise else noise

    def surprised(self, deviations: float) -> float:
        """P(the surprise is larger), from Student's t and from the surprises of late, weighted by their number."""
        prior = self._settings.prior_frames
        above = len(self._sorted) - bisect_right(self._sorted, deviations)
        return (prior * late_share(SQRT2 * deviations) + above) / (prior + len(self._recent))

    def spiked(self, slowdown: float, extra_ms: float) -> float:
        """P(a frame is late beyond all surprises, and too late): by the lesser of a factor and an addition."""
        spikes = self._spikes
        if not spikes:
            return 0.0
        if self._largest_spike[0] <= slowdown or self._largest_spike[1] <= extra_ms:
            return 0.0
        above = len(spikes)
        if self._least_spike[0] <= slowdown or self._least_spike[1] <= extra_ms:
            above = 0
            for factor, addition_ms in spikes:
                if factor > slowdown and addition_ms > extra_ms:
                    above += 1
        seen = len(self._recent) - len(self._sorted)
        return seen * (above / len(spikes)) / (self._settings.prior_frames + len(self._recent))

    def remember(self, surprise: float | None) -> None:
        """Add a surprise in standard deviations; None stands for a late frame."""
        recent, ordered = self._recent, self._sorted
        if len(recent) < self._settings.remembered_frames:
            recent.append(surprise)
        else:
            oldest = recent[self._next]
            if oldest is not None:
                del ordered[bisect_left(ordered, oldest)]
            recent[self._next] = surprise
        self._next = (self._next + 1) % self._settings.remembered_frames
        if surprise is not None:
            insort(ordered, surprise)

    def remember_size(self, slowdown: float, extra_ms: float) -> None:
        """Add the size of a late frame: its slowdown, and its milliseconds beyond the expected."""
        if len(self._spikes) < SPIKES:
            self._spikes.append((slowdown, extra_ms))
        else:
            self._spikes[self._next_spike] = (slowdown, extra_ms)
        self._next_spike = (self._next_spike + 1) % SPIKES
        factors, additions_ms = zip(*self._spikes, strict=True)
        self._least_spike = min(factors), min(additions_ms)
        self._largest_spike = max(factors), max(additions_ms)
