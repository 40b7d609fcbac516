"""One filter for each degree of crowding: how many tasks want a core when a frame begins.

A load that comes or goes between two frames is then known before the first frame that it slows down, and what the
machine was like under that load the last time is remembered.
"""

from __future__ import annotations

from edge_runtime.controller_filter import SlowdownFilter
from edge_runtime.controller_settings import ControllerSettings

UNKNOWN = -1
FREE, FULL, OVERFULL = range(3)
"""A core for every task; up to two tasks for each core; more."""
DOUBT = 3.0
"""Rises are doubted while more than so many passed by for each one that slowed a frame down: a late frame loses all of
its accuracy, a needless step down only a part."""


def degree_of(crowding: float | None) -> int:
    """The degree of a reading in tasks for each core; what is no such number is unknown."""
    if crowding is None or not crowding >= 0.0:
        return UNKNOWN
    if crowding <= 1.0:
        return FREE
    return FULL if crowding <= 2.0 else OVERFULL


class Crowding:
    """The filters, and which one holds.

    A rise of the degree is believed at once, unless nearly all rises so far passed by without slowing a frame down:
    then when the next reading says so, too.

    Args:
        settings: constants.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.degree = UNKNOWN
        """The one that is believed."""
        self.eased = False
        """The last reading was of a lower degree than the one before."""
        self._filters = {UNKNOWN: SlowdownFilter(settings)}
        self._left: dict[int, int] = {}
        """Degree -> the number of the reading with which it was left."""
        self._readings = 0
        self._rise: tuple[SlowdownFilter, SlowdownFilter] | None = None
        """Filters of the degrees before and after, in the first frame of a rise."""
        self._doubted = False
        """The last reading was a rise that was not believed."""
        self._slowed = self._passed = 1.0

    @property
    def filter(self) -> SlowdownFilter:
        """Of the degree that is believed."""
        return self._filters[self.degree]

    @property
    def known(self) -> bool:
        """Somebody counts the tasks."""
        return self.degree != UNKNOWN

    def take(self, crowding: float | None) -> SlowdownFilter:
        """Take in the reading of a new frame; returns the filter that holds for it."""
        degree, before = degree_of(crowding), self.degree
        self._readings += 1
        self.eased = UNKNOWN < degree < before
        doubted, self._doubted, self._rise = self._doubted, False, None
        if degree == before:
            return self._filters[degree]
        known, last = self._filters.get(degree), self._filters[before]
        if known is None or not known.frames:
            known = self._filters[degree] = self._begin(degree, before)
        if degree > before > UNKNOWN:
            if not doubted:
                self._rise = last, known
                if self._passed > DOUBT * self._slowed:
                    self._doubted = True
                    return last
            last.alarm = None  # a late frame is explained by what came
        self._left[before] = self._readings
        self.degree = degree
        if known.frames:
            self._grow_old(known, self._readings - self._left.get(degree, self._readings))
        return known

    def judge(self, slowdown: float) -> None:
        """Learn from a finished frame whether a rise before it slowed it down.

        Args:
            slowdown: observed latency / corrected tabled latency.
        """
        if self._rise is None:
            return
        last, risen = self._rise
        slowed = slowdown * slowdown > last.mean * risen.mean  # nearer to this than to that
        self._slowed, self._passed = self._slowed + slowed, self._passed + (not slowed)
        if self._slowed + self._passed > self._settings.persistence_memory:
            self._slowed, self._passed = 0.5 * self._slowed, 0.5 * self._passed

    def rescale(self, factor: float) -> None:
        """Tabled latencies were divided by `factor`."""
        for each in self._filters.values():
            if each.frames:
                each.rescale(factor)

    def _begin(self, degree: int, before: int) -> SlowdownFilter:
        """A filter for a degree that was never met: what the last one knows, and a fair share of the core."""
        settings, last, new = self._settings, self._filters[before], SlowdownFilter(self._settings)
        if last.frames:
            factor = 1.0 if UNKNOWN in (degree, before) else (1.0 + degree) / (1.0 + before)
            new.begin_after(last, factor)
            if factor != 1.0:
                new.variance = max(new.variance, settings.jump_variance)
        return new

    def _grow_old(self, known: SlowdownFilter, readings: int) -> None:
        """What was learned some frames ago is less sure now, but no less than after a jump."""
        most = max(known.variance, self._settings.jump_variance)
        known.variance = min(known.variance + readings * self._settings.min_drift, most)
