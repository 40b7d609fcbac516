"""Choose an operating point for each frame: the most accurate one that is expected to meet the deadline.

Pure arithmetic: numbers and `now_s` in, a decision out; no clock, no I/O. After ALERT (Wan et al. 2020,
arXiv:1911.00119): one slowdown, the ratio of observed to tabled latency, is tracked by a Kalman filter with an adaptive
noise estimate, and a point is admissible when a quantile of its latency under that slowdown fits the time left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from edge_runtime.budget import Budget
from edge_runtime.controller_ladder import LadderPoint, by_latency
from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.readings import Readings
from edge_runtime.result import Decision

__all__ = ["Controller", "ControllerSettings", "LadderPoint", "SlowdownFilter"]


class SlowdownFilter:
    """A Kalman filter of the slowdown with adaptive process noise, which one late frame does not upset.

    A frame that is preempted takes many times its time and says nothing of the next one, so a frame far above the
    estimate is set aside; the second in a row is a change of the machine and is believed at once.

    Order of operations of `observe`, as documented in docs/controller.md: measurement noise, innovation, limit, process
    noise, prior variance, gain, mean, variance.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.mean = 1.0
        self.variance = settings.measurement_noise
        self._process_noise = settings.min_process_noise
        self._set_aside: float | None = None

    def observe(self, slowdown: float) -> None:
        """Take in one observed ratio (> 0), as far as it is believable."""
        settings = self._settings
        slowdown = min(max(slowdown, settings.min_slowdown), settings.max_slowdown)
        noise = settings.measurement_noise * self.mean * self.mean
        innovation = slowdown - self.mean
        limit = settings.jump_sigmas * math.sqrt(self.variance + noise)
        if innovation > limit:
            self._take_late(slowdown)
            return
        self._set_aside = None
        if innovation < -limit:
            innovation = -limit
        step = self._gain(self.variance + self._process_noise, noise) * innovation
        adapted = settings.noise_memory * self._process_noise + (1.0 - settings.noise_memory) * step * step
        floor = settings.min_process_noise * self.mean * self.mean
        self._process_noise = adapted if adapted > floor else floor
        prior = self.variance + self._process_noise
        gain = self._gain(prior, noise)
        self.mean = self.mean + gain * innovation
        self.variance = (1.0 - gain) * prior

    def _take_late(self, slowdown: float) -> None:
        """Set a late frame aside; believe the lesser of two in a row."""
        if self._set_aside is None:
            self._set_aside = slowdown
            return
        self.mean = min(slowdown, self._set_aside)
        self.variance = self._settings.measurement_noise * self.mean * self.mean
        self._process_noise = self._settings.min_process_noise * self.mean * self.mean
        self._set_aside = None

    @staticmethod
    def _gain(prior: float, noise: float) -> float:
        return prior / (prior + noise)

    def quantile(self) -> float:
        """Slowdown that is exceeded rarely: mean + quantile_sigmas standard deviations of one frame's slowdown."""
        noise = self._settings.measurement_noise * self.mean * self.mean
        return self.mean + self._settings.quantile_sigmas * math.sqrt(self.variance + noise)


class Controller:
    """Holds the estimate, the current point and the timers.

    Args:
        ladder: the query table, in any order; a dominated point is simply never the best one.
        settings: constants.
    """

    name = "ours"

    def __init__(self, ladder: Sequence[LadderPoint], settings: ControllerSettings | None = None) -> None:
        self.settings = settings or ControllerSettings()
        self.ladder: tuple[LadderPoint, ...] = ()
        self.filter = SlowdownFilter(self.settings)
        self.pinned: str | None = None
        """Name of the point that is forced, or None."""
        self.switches = 0
        self._current: int | None = None
        self._wanted_since_s: float | None = None
        self._hot = self._battery_low = False
        self.replace_ladder(ladder)

    @property
    def current(self) -> int | None:
        """Index of the point of the last decision."""
        return self._current

    def choose(
        self, now_s: float, budget: Budget, readings: Readings, resident: Collection[str], age_ms: float = 0.0
    ) -> Decision:
        """Decide for one frame.

        Args:
            now_s: any monotonic clock, seconds.
            budget: what the application wants.
            readings: of the sensors; unknown values hold the point and never step up.
            resident: names of the points that can run at once; never empty.
            age_ms: how much of the deadline is spent already: the frame's age and what a frame costs beside the engine.
        """
        self._update_limits(readings, budget)
        time_left_ms = budget.deadline_ms * (1.0 - self.settings.margin_share) - age_ms
        loaded = [i for i, point in enumerate(self.ladder) if point.name in resident]
        if self.pinned in resident:
            return self._decide(self._index[str(self.pinned)], "pinned", budget, time_left_ms)
        usable = [i for i in loaded if i <= self._thermal_cap] or loaded[:1]
        wanted, reason = self._best(usable, budget, time_left_ms)
        index, reason = self._damped(wanted, reason, now_s, budget, time_left_ms, usable)
        return self._decide(index, reason, budget, time_left_ms)

    def observe(self, point: str, run_ms: float) -> None:
        """Learn from a finished frame: what the engine took for the point, in milliseconds."""
        if run_ms > 0.0:
            self.filter.observe(run_ms / self.ladder[self._index[point]].latency_ms)

    def replace_ladder(self, ladder: Sequence[LadderPoint]) -> None:
        """Take a new query table of the same points, for example when the device has measured them."""
        name = None if self._current is None else self.ladder[self._current].name
        self.ladder = by_latency(ladder)
        self._index = {point.name: i for i, point in enumerate(self.ladder)}
        self._current = None if name is None else self._index[name]

    @property
    def _thermal_cap(self) -> int:
        """Index of the most expensive point that heat allows."""
        top = len(self.ladder) - 1
        return top // 3 if self._hot else top

    def _update_limits(self, readings: Readings, budget: Budget) -> None:
        """The slow loop. An unknown reading leaves its limit where it is."""
        settings, temperature = self.settings, readings.temperature_c
        if temperature is not None and temperature >= settings.max_temperature_c:
            self._hot = True
        elif temperature is not None and temperature <= settings.cool_temperature_c:
            self._hot = False
        battery, floor = readings.battery_share, budget.battery_floor_share
        if floor is None or readings.on_battery is False:
            self._battery_low = False
        elif battery is not None:
            self._battery_low = battery < floor

    def _best(self, usable: list[int], budget: Budget, time_left_ms: float) -> tuple[int, str]:
        """The most accurate admissible point; without one, the least bad."""
        quantile = self.filter.quantile()
        fitting = [i for i in usable if self.ladder[i].latency_ms * quantile <= time_left_ms]
        accurate = [i for i in usable if self.ladder[i].accuracy >= budget.min_accuracy]
        both = [i for i in fitting if i in accurate]
        if both and self._battery_low:
            return both[0], "battery low"
        if both:
            best = max(both, key=self._merit)
            beyond = self.ladder[self._thermal_cap + 1 :]  # what only the heat forbids
            better = any(
                p.accuracy > self.ladder[best].accuracy and p.latency_ms * quantile <= time_left_ms for p in beyond
            )
            return best, "device hot" if better else "best within the deadline"
        if accurate:
            fastest = min(accurate, key=lambda i: self.ladder[i].latency_ms)
            all_accurate = len(accurate) == len(usable)
            return fastest, "deadline out of reach" if all_accurate else "accuracy floor before deadline"
        if fitting:
            return max(fitting, key=self._merit), "accuracy floor out of reach"
        return min(usable, key=lambda i: self.ladder[i].latency_ms), "nothing meets the budget"

    def _merit(self, index: int) -> tuple[float, float]:
        return self.ladder[index].accuracy, -self.ladder[index].latency_ms

    def _damped(
        self, wanted: int, reason: str, now_s: float, budget: Budget, time_left_ms: float, usable: list[int]
    ) -> tuple[int, str]:
        """Step down at once; step up after the dwell time, and only with a margin."""
        current = self._current
        if current is None or current not in usable or wanted <= current:
            self._wanted_since_s = None
            return wanted, reason if current is None or wanted == current else f"step down: {reason}"
        if self.ladder[current].accuracy < budget.min_accuracy <= self.ladder[wanted].accuracy:
            self._wanted_since_s = None
            return wanted, f"step up: accuracy floor, {reason}"
        roomy_ms = time_left_ms * self.settings.step_up_share / self.filter.quantile()
        better = [i for i in usable if current < i <= wanted and self.ladder[i].latency_ms <= roomy_ms]
        best = max(better, key=self._merit, default=current)
        if self.ladder[best].accuracy <= self.ladder[current].accuracy:
            self._wanted_since_s = None
            return current, "hold: margin"
        if self._wanted_since_s is None:
            self._wanted_since_s = now_s
        if now_s - self._wanted_since_s < self.settings.step_up_dwell_s:
            return current, "hold: dwell"
        self._wanted_since_s = None
        return best, "step up: time to spare"

    def _decide(self, index: int, reason: str, budget: Budget, time_left_ms: float) -> Decision:
        switched = self._current is not None and index != self._current
        self.switches += switched
        self._current = index
        point = self.ladder[index]
        feasible = point.accuracy >= budget.min_accuracy and (point.latency_ms * self.filter.quantile() <= time_left_ms)
        return Decision(point.name, reason, point.latency_ms * self.filter.mean, self.filter.mean, switched, feasible)
