"""Choose an operating point for each frame: the most accurate one that is expected to meet the deadline.

Pure arithmetic: numbers and `now_s` in, a decision out; no clock, no I/O. After ALERT (Wan et al. 2020,
arXiv:1909.13148): one slowdown, the ratio of observed to tabled latency, is tracked by a Kalman filter with an adaptive
noise estimate, and a point is admissible when a quantile of its latency under that slowdown fits the time left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge_runtime.budget import Budget
from edge_runtime.readings import Readings
from edge_runtime.result import Decision


@dataclass(frozen=True)
class LadderPoint:
    """What the controller knows of one operating point."""

    name: str
    accuracy: float
    """Expected, 0-1, on the select split."""
    latency_ms: float
    """Query table: measured on this device, everything from preprocessing to the answer."""


@dataclass(frozen=True)
class ControllerSettings:
    """Constants of the controller; docs/controller.md says what each one does."""

    quantile_sigmas: float = 2.33
    """A point is admissible when mean + this many standard deviations fits: 99 % of frames of a normal slowdown."""
    margin_share: float = 0.05
    """Share of the deadline kept free for what the table does not know."""
    step_up_share: float = 0.85
    """To step up, the better point must fit in this share of the time left."""
    step_up_dwell_s: float = 0.5
    """And must have done so for this long without interruption."""
    measurement_noise: float = 0.01
    """Variance of one observed slowdown, relative to its square: 10 % standard deviation."""
    min_process_noise: float = 0.0005
    """The slowdown is never believed to stand still; relative to its square."""
    noise_memory: float = 0.9
    """Weight of the past in the estimate of the process noise."""
    jump_sigmas: float = 4.0
    """A slower frame beyond this is a change of the machine, not noise: believe it at once."""
    max_temperature_c: float = 85.0
    """At and above it, step towards cheaper points."""
    cool_temperature_c: float = 78.0
    """Below it, points may be stepped up again."""


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
        """Take in one observed ratio (> 0)."""
        settings = self._settings
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

    def __init__(self, ladder: Sequence[LadderPoint], settings: ControllerSettings | None = None) -> None:
        if not ladder:
            raise ValueError("the ladder is empty")
        self.settings = settings or ControllerSettings()
        self.ladder: tuple[LadderPoint, ...] = ()
        self.filter = SlowdownFilter(self.settings)
        self.pinned: str | None = None
        """Name of the point that is forced, or None."""
        self.switches = 0
        self._current: int | None = None
        self._wanted_since_s: float | None = None
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
        self._update_cap(readings, budget)
        time_left_ms = budget.deadline_ms * (1.0 - self.settings.margin_share) - age_ms
        loaded = [i for i, point in enumerate(self.ladder) if point.name in resident]
        if self.pinned is not None:
            return self._decide(self._index[self.pinned], "pinned", time_left_ms)
        cap = min(self._thermal_cap, self._battery_cap)
        usable = [i for i in loaded if i <= cap] or loaded[:1]
        wanted, reason = self._best(usable, budget, time_left_ms)
        return self._decide(*self._damped(wanted, reason, now_s, time_left_ms, usable), time_left_ms)

    def observe(self, point: str, run_ms: float) -> None:
        """Learn from a finished frame: what the engine took for the point, in milliseconds."""
        if run_ms > 0.0:
            self.filter.observe(run_ms / self.ladder[self._index[point]].latency_ms)

    def replace_ladder(self, ladder: Sequence[LadderPoint]) -> None:
        """Take a new query table of the same points, for example when the device has measured them."""
        name = None if self._current is None else self.ladder[self._current].name
        self.ladder = tuple(sorted(ladder, key=lambda p: p.latency_ms))
        self._index = {point.name: i for i, point in enumerate(self.ladder)}
        self._current = None if name is None else self._index[name]
        self._thermal_cap = self._battery_cap = len(self.ladder) - 1

    def _update_cap(self, readings: Readings, budget: Budget) -> None:
        """The slow loop's limits on the ladder. An unknown reading leaves its limit where it is."""
        settings, top = self.settings, len(self.ladder) - 1
        temperature = readings.temperature_c
        if temperature is not None and temperature >= settings.max_temperature_c:
            self._thermal_cap = top // 3
        elif temperature is not None and temperature <= settings.cool_temperature_c:
            self._thermal_cap = top
        battery, floor = readings.battery_share, budget.battery_floor_share
        if floor is None or readings.on_battery is False:
            self._battery_cap = top
        elif battery is not None:
            self._battery_cap = 0 if battery < floor else top

    def _best(self, usable: list[int], budget: Budget, time_left_ms: float) -> tuple[int, str]:
        """The most accurate admissible point; without one, the least bad."""
        quantile = self.filter.quantile()
        fitting = [i for i in usable if self.ladder[i].latency_ms * quantile <= time_left_ms]
        accurate = [i for i in usable if self.ladder[i].accuracy >= budget.min_accuracy]
        both = [i for i in fitting if i in accurate]
        if both:
            best = max(both, key=self._merit)
            return best, self._limit_reason(best)
        if accurate:
            fastest = min(accurate, key=lambda i: self.ladder[i].latency_ms)
            return fastest, "deadline out of reach" if len(accurate) == len(
                usable
            ) else "accuracy floor before deadline"
        if fitting:
            return max(fitting, key=self._merit), "accuracy floor out of reach"
        return min(usable, key=lambda i: self.ladder[i].latency_ms), "nothing meets the budget"

    def _merit(self, index: int) -> tuple[float, float]:
        return self.ladder[index].accuracy, -self.ladder[index].latency_ms

    def _limit_reason(self, best: int) -> str:
        """What keeps the choice from being better."""
        if best == self._battery_cap < len(self.ladder) - 1:
            return "battery low"
        if best == self._thermal_cap < len(self.ladder) - 1:
            return "device hot"
        return "best within the deadline"

    def _damped(
        self, wanted: int, reason: str, now_s: float, time_left_ms: float, usable: list[int]
    ) -> tuple[int, str]:
        """Step down at once; step up after the dwell time, and only with a margin."""
        current = self._current
        if current is None or current not in usable or wanted <= current:
            self._wanted_since_s = None
            return wanted, reason if current is None or wanted == current else f"step down: {reason}"
        needed_ms = self.ladder[wanted].latency_ms * self.filter.quantile()
        if needed_ms > time_left_ms * self.settings.step_up_share:
            self._wanted_since_s = None
            return current, "hold: margin"
        if self._wanted_since_s is None:
            self._wanted_since_s = now_s
        if now_s - self._wanted_since_s < self.settings.step_up_dwell_s:
            return current, "hold: dwell"
        self._wanted_since_s = None
        return wanted, "step up: time to spare"

    def _decide(self, index: int, reason: str, time_left_ms: float) -> Decision:
        switched = self._current is not None and index != self._current
        self.switches += switched
        self._current = index
        point = self.ladder[index]
        feasible = point.latency_ms * self.filter.quantile() <= time_left_ms
        return Decision(point.name, reason, point.latency_ms * self.filter.mean, self.filter.mean, switched, feasible)
