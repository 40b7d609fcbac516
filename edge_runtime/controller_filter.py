"""The slowdown: observed / tabled latency, its uncertainty, and whether a late frame was an accident or a change.

Only + - * / sqrt and comparisons; the order of operations is that of docs/controller.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import sqrt

from edge_runtime.controller_settings import ControllerSettings

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
        self.noise = settings.first_noise
        """Variance of one frame around the mean, relative to its square."""
        self.drift = settings.min_drift
        """Variance that the mean gains from frame to frame, relative to its square."""
        self.total = 0.0
        """Expected variance of the last frame's innovation."""
        self.alarm: float | None = None
        """Slowdown of the last frame, if that was late and is not yet explained."""
        self.persistence = 0.5
        """Learned share of late frames that a second one followed."""
        self.frames = 0
        self._alarm_cost_ms = self._alarm_extra_ms = 0.0
        self._low: float | None = None
        self._stayed = self._passed = 1.0
        self._recent: list[float] = []
        """Surprises in standard deviations, in order of time from `_next` on."""
        self._sorted: list[float] = []
        self._next = 0

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
        total = self.total = self.variance + self.drift + table_variance + self.noise
        limit = settings.jump_sigmas * sqrt(total)
        if limit < settings.jump_share:
            limit = settings.jump_share
        self._remember(innovation / sqrt(total))
        if innovation > limit:
            self._take_late(slowdown, cost_ms)
            return None
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
        self._update(innovation, table_variance)
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
        allowed = time_ms / (cost_ms * self.mean) - 1.0
        deviation = sqrt(self.variance + self.drift + self.noise + table_variance)
        late = self._late(allowed / deviation)
        if self.alarm is not None:
            if cost_ms <= self._alarm_cost_ms:  # the lesser of a factor and an addition
                factor = self.alarm / self.mean
            else:
                factor = 1.0 + self._alarm_extra_ms / (cost_ms * self.mean)
            allowed = (1.0 + allowed) / factor - 1.0
            late = late + self.persistence * (self._late(allowed / deviation) - late)
        return late

    def _late(self, deviations: float) -> float:
        """P(a surprise is larger), from Student's t and from the surprises of late, weighted by their number."""
        prior = self._settings.prior_frames
        count = len(self._sorted)
        above = count - bisect_right(self._sorted, deviations)
        return (prior * late_share(SQRT2 * deviations) + above) / (prior + count)

    def _remember(self, surprise: float) -> None:
        recent, ordered = self._recent, self._sorted
        if len(recent) < self._settings.remembered_frames:
            recent.append(surprise)
        else:
            del ordered[bisect_left(ordered, recent[self._next])]
            recent[self._next] = surprise
        self._next = (self._next + 1) % self._settings.remembered_frames
        insort(ordered, surprise)

    def _update(self, innovation: float, table_variance: float) -> None:
        """Drift, prior, gain, mean, variance, noise: in this order."""
        settings = self._settings
        step = (self.variance + self.drift) / self.total * innovation
        drift = settings.drift_memory * self.drift + (1.0 - settings.drift_memory) * step * step
        self.drift = min(max(drift, settings.min_drift), settings.max_drift)
        prior = self.variance + self.drift
        gain = prior / (prior + self.noise + table_variance)
        self.mean = min(max(self.mean * (1.0 + gain * innovation), settings.min_slowdown), settings.max_slowdown)
        self.variance = (1.0 - gain) * prior
        noise = self.noise + settings.noise_rate * ((1.0 - gain) * innovation * innovation - self.noise)
        self.noise = min(max(noise, settings.min_noise), settings.max_noise)

    def _take_late(self, slowdown: float, cost_ms: float) -> None:
        """Raise an alarm, or believe the lesser of two late frames in a row."""
        self._low = None
        if self.alarm is not None:
            self._learn_persistence(stayed=True)
            self._jump(min(slowdown, self.alarm))
            return
        self.alarm, self._alarm_cost_ms = slowdown, cost_ms
        self._alarm_extra_ms = cost_ms * (slowdown - self.mean)

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
