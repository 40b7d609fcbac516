"""The slowdown: observed / tabled latency, its uncertainty, and whether a late frame was an accident or a change.

Only + - * / sqrt and comparisons; the order of operations is that of docs/controller.md.
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


class SlowdownFilter:
    """A Kalman filter of the slowdown that learns its noise, its drift, and what its late frames mean.

    A frame that is preempted takes many times its time and says nothing of the next one; a frame that is slow because
    the machine has changed does. The first late frame raises an alarm: until the next frame, the slowdown is the late
    one with the learned probability that late frames stay (`persistence`), else what it was. A second late frame in a
    row is believed at once.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.mean = 1.0
        self.variance = settings.first_variance
        """Of the mean, relative to its square."""
        self.noise_ms2: float | None = None
        """Variance of one frame around the mean, as a part of the tabled latency, square milliseconds: what takes the
        core away adds milliseconds, which weigh less the longer a point runs. None before the first frame."""
        self.drift = settings.min_drift
        """Variance that the mean gains from frame to frame, relative to its square."""
        self.total = 0.0
        """Expected variance of the last frame's innovation."""
        self.alarm: float | None = None
        """Slowdown of the last frame, if that was late and is not yet explained."""
        self.persistence = 0.5
        """Learned share of late frames that a second one followed."""
        self.frames = 0
        self._alarm_extra_ms = 0.0
        self._low: float | None = None
        self._stayed = self._passed = 1.0
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

    def observe(self, slowdown: float, cost_ms: float, table_variance: float) -> float | None:
        """Take in one frame.

        Args:
            slowdown: observed latency / `cost_ms`, > 0.
            cost_ms: corrected tabled latency of the point.
            table_variance: of that, relative.
        Returns:
            the relative innovation, whose expected variance is `total`; None when the frame was set aside or believed
            at once.
        """
        settings = self._settings
        slowdown = min(max(slowdown, settings.min_slowdown), settings.max_slowdown)
        self.frames += 1
        innovation = slowdown / self.mean - 1.0
        noise = self._noise(cost_ms)
        total = self.total = self.variance + self.drift + table_variance + noise
        limit = settings.jump_sigmas * sqrt(total)
        if limit < settings.jump_share:
            limit = settings.jump_share
        if innovation > limit:
            self._remember(None)
            self._take_late(slowdown, cost_ms)
            return None
        self._remember(innovation / sqrt(total))
        if self.alarm is not None:
            self._learn_persistence(stayed=False)
            self.alarm = None
        if innovation < -limit:
            if self._low is not None:  # the second in a row: the load is gone
                self._jump(max(slowdown, self._low))
                return None
            self._low = slowdown
            innovation = -limit
        else:
            self._low = None
        self._update(innovation, noise, table_variance, cost_ms)
        return innovation

    def expect(self, slowdown: float) -> None:
        """Raise the mean to a slowdown that is foreseen, with half of the rise as its standard deviation."""
        slowdown = min(slowdown, self._settings.max_slowdown)
        if slowdown > self.mean:
            rise = slowdown / self.mean - 1.0
            self.variance = min(self.variance + 0.25 * rise * rise, 1.0)
            self.mean = slowdown

    def rescale(self, factor: float) -> None:
        """Tabled latencies were divided by `factor`: keep what is expected of the current point."""
        settings = self._settings
        self.mean = min(max(self.mean * factor, settings.min_slowdown), settings.max_slowdown)
        self.variance = max(self.variance, settings.first_variance)
        self.alarm = self._low = None

    def late_probability(self, cost_ms: float, time_ms: float, table_variance: float) -> float:
        """P(a point is late), 0-1.

        Args:
            cost_ms: its corrected tabled latency.
            time_ms: time left for it.
            table_variance: of its cost, relative.
        """
        if time_ms <= 0.0:
            return 1.0
        expected_ms = cost_ms * self.mean
        allowed = time_ms / expected_ms - 1.0
        deviation = sqrt(self.variance + self.drift + self._noise(cost_ms) + table_variance)
        late = self._surprised(allowed / deviation) + self._spiked(time_ms / cost_ms, time_ms - expected_ms)
        if self.alarm is not None:
            factor = self.alarm / self.mean
            if self._alarm_extra_ms < expected_ms * (factor - 1.0):  # the lesser of a factor and an addition
                factor = 1.0 + self._alarm_extra_ms / expected_ms
            alarming = self._surprised(((1.0 + allowed) / factor - 1.0) / deviation)
            if alarming > late:
                late = late + self.persistence * (alarming - late)
        return late

    def _surprised(self, deviations: float) -> float:
        """P(the surprise is larger), from Student's t and from the surprises of late, weighted by their number."""
        prior = self._settings.prior_frames
        above = len(self._sorted) - bisect_right(self._sorted, deviations)
        return (prior * late_share(SQRT2 * deviations) + above) / (prior + len(self._recent))

    def _spiked(self, slowdown: float, extra_ms: float) -> float:
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

    def _remember(self, surprise: float | None) -> None:
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

    def _noise(self, cost_ms: float) -> float:
        """Variance of one frame of a point around the mean, relative to its square."""
        settings = self._settings
        if self.noise_ms2 is None:
            return settings.first_noise
        noise = self.noise_ms2 / (cost_ms * cost_ms)
        if noise < settings.min_noise:
            return settings.min_noise
        return settings.max_noise if noise > settings.max_noise else noise

    def _update(self, innovation: float, noise: float, table_variance: float, cost_ms: float) -> None:
        """Drift, prior, gain, mean, variance, noise: in this order."""
        settings = self._settings
        step = (self.variance + self.drift) / self.total * innovation
        drift = settings.drift_memory * self.drift + (1.0 - settings.drift_memory) * step * step
        self.drift = min(max(drift, settings.min_drift), settings.max_drift)
        prior = self.variance + self.drift
        gain = prior / (prior + noise + table_variance)
        self.mean = min(max(self.mean * (1.0 + gain * innovation), settings.min_slowdown), settings.max_slowdown)
        self.variance = (1.0 - gain) * prior
        learned = noise + settings.noise_rate * ((1.0 - gain) * innovation * innovation - noise)
        self.noise_ms2 = learned * cost_ms * cost_ms

    def _take_late(self, slowdown: float, cost_ms: float) -> None:
        """Raise an alarm, or believe the lesser of two late frames in a row."""
        self._low = None
        extra_ms = cost_ms * (slowdown - self.mean)
        if len(self._spikes) < SPIKES:
            self._spikes.append((slowdown, extra_ms))
        else:
            self._spikes[self._next_spike] = (slowdown, extra_ms)
        self._next_spike = (self._next_spike + 1) % SPIKES
        factors, additions_ms = zip(*self._spikes, strict=True)
        self._least_spike = min(factors), min(additions_ms)
        self._largest_spike = max(factors), max(additions_ms)
        if self.alarm is not None:
            self._learn_persistence(stayed=True)
            self._jump(min(slowdown, self.alarm))
            return
        self.alarm, self._alarm_extra_ms = slowdown, extra_ms

    def _jump(self, slowdown: float) -> None:
        self.mean = slowdown
        self.variance = self._settings.first_variance
        self.drift = self._settings.min_drift
        self.alarm = self._low = None

    def _learn_persistence(self, *, stayed: bool) -> None:
        if stayed:
            self._stayed += 1.0
        else:
            self._passed += 1.0
        if self._stayed + self._passed > self._settings.persistence_memory:
            self._stayed, self._passed = 0.5 * self._stayed, 0.5 * self._passed
        self.persistence = self._stayed / (self._stayed + self._passed)
