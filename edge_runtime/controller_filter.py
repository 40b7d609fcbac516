"""The slowdown: observed / tabled latency, its uncertainty, and whether a late frame was an accident or a change.

Only + - * / sqrt and comparisons; the order of operations is that of docs/controller.md.
"""

from __future__ import annotations

from math import sqrt

from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.controller_surprises import Surprises


class SlowdownFilter:
    """A Kalman filter of the slowdown that learns its noise, its drift, and what its late frames mean.

    A frame that is preempted takes many times its time and says nothing of the next one; a frame that is slow because
    the machine has changed does. The first late frame raises an alarm: until the next frame, the slowdown is the late
    one with the learned probability that late frames stay (`persistence`), else what it was. A second late frame in a
    row is believed at once. How calm the machine is decides which frames it is compared with: what was learned under
    load is kept for the next load, and a second frame in a row as fast as those of a calmer state ends a load.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.mean = 1.0
        self.variance = settings.first_variance
        """Of the mean, relative to its square."""
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
        self._state = 0
        self._memory = Surprises(settings)
        """Of the present state of the machine: the range that the mean is in."""
        self._states = {0: self._memory}

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
        self.frames += 1
        innovation = self._take(
            min(max(slowdown, settings.min_slowdown), settings.max_slowdown), cost_ms, table_variance
        )
        self._enter_state()
        return innovation

    def _take(self, slowdown: float, cost_ms: float, table_variance: float) -> float | None:
        """One frame, whose slowdown is within the filter's range; returns as `observe`."""
        settings = self._settings
        innovation = slowdown / self.mean - 1.0
        noise = self._memory.noise(cost_ms)
        total = self.total = self.variance + self.drift + table_variance + noise
        limit = settings.jump_sigmas * sqrt(total)
        if limit < settings.jump_share:
            limit = settings.jump_share
        if innovation > limit:
            self._memory.remember(None)
            self._take_late(slowdown, cost_ms)
            return None
        self._memory.remember(innovation / sqrt(total))
        if self.alarm is not None:
            self._learn_persistence(stayed=False)
            self.alarm = None
        if innovation < -limit or self._is_calm(slowdown, cost_ms, table_variance):
            if self._low is not None:  # the second in a row: the load is gone
                self._jump(max(slowdown, self._low))
                return None
            self._low = slowdown
            innovation = max(innovation, -limit)
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

    def begin_after(self, last: SlowdownFilter, factor: float) -> None:
        """Begin with what another filter knows, and `factor` times its mean; more of it scatters more, too."""
        settings = self._settings
        self.mean = min(max(last.mean * factor, settings.min_slowdown), settings.max_slowdown)
        self.variance, self.drift = last.variance, last.drift
        noise = last._memory.noise_ms2
        self._memory.noise_ms2 = noise if noise is None or factor <= 1.0 else noise * factor * factor
        self._memory.level = self.mean

    def rescale(self, factor: float) -> None:
        """Tabled latencies were divided by `factor`: keep what is expected of the current point."""
        settings = self._settings
        self.mean = min(max(self.mean * factor, settings.min_slowdown), settings.max_slowdown)
        self.variance = max(self.variance, settings.first_variance)
        self.alarm = self._low = None
        self._memory.level = self.mean
        self._states = {self._state: self._memory}  # the others' slowdowns are of the former table

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
        deviation = sqrt(self.variance + self.drift + self._memory.noise(cost_ms) + table_variance)
        memory = self._memory
        late = memory.surprised(allowed / deviation) + memory.spiked(time_ms / cost_ms, time_ms - expected_ms)
        if self.alarm is not None:
            factor = self.alarm / self.mean
            if self._alarm_extra_ms < expected_ms * (factor - 1.0):  # the lesser of a factor and an addition
                factor = 1.0 + self._alarm_extra_ms / expected_ms
            alarming = memory.surprised(((1.0 + allowed) / factor - 1.0) / deviation)
            if alarming > late:
                late = late + self.persistence * (alarming - late)
        return late

    def _is_calm(self, slowdown: float, cost_ms: float, table_variance: float) -> bool:
        """A frame as fast as those of a calmer state that is well known."""
        for state in range(self._state):
            calm = self._states.get(state)
            if calm is not None and calm.known >= self._settings.calm_frames:
                spread = sqrt(calm.noise(cost_ms) + table_variance)
                return slowdown < calm.level * (1.0 + self._settings.calm_sigmas * spread)
        return False

    def _enter_state(self) -> None:
        """Go on with what the present state of the machine has taught."""
        settings = self._settings
        bound, state = settings.state_step, 0
        while state < settings.states - 1 and self.mean > bound:
            bound *= settings.state_step
            state += 1
        if state == self._state:
            return
        self._state = state
        if state not in self._states:
            self._states[state] = Surprises(self._settings)
            self._states[state].noise_ms2 = self._memory.noise_ms2
            self._states[state].level = self.mean
        self._memory = self._states[state]

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
        self._memory.noise_ms2 = learned * cost_ms * cost_ms
        self._memory.level += settings.level_rate * (self.mean - self._memory.level)

    def _take_late(self, slowdown: float, cost_ms: float) -> None:
        """Raise an alarm, or believe the lesser of two late frames in a row."""
        self._low = None
        extra_ms = cost_ms * (slowdown - self.mean)
        self._memory.remember_size(slowdown, extra_ms)
        if self.alarm is not None:
            self._learn_persistence(stayed=True)
            self._jump(min(slowdown, self.alarm))
            return
        self.alarm, self._alarm_extra_ms = slowdown, extra_ms

    def _jump(self, slowdown: float) -> None:
        self.mean = slowdown
        self.variance = self._settings.jump_variance
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
