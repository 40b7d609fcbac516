"""One point without pause for minutes: what the device can hold, not what it can do once."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from edge_runtime.profiling.blocks import BlockMeter, Clock, Entry
from edge_runtime.profiling.result_records import Sustained, SustainedSample, Verdict
from edge_runtime.profiling.stability import judge_sustained
from edge_runtime.readings import Readings
from edge_runtime.sensor_loop import Sensors

STRETCHES = 120
MIN_STRETCH_S, MAX_STRETCH_S = 0.5, 10.0


class SustainedRun:
    """Collects the curve; what was collected before an interruption can be had from `record`.

    Args:
        entry: the point.
        wanted_s: for how long.
        sensors: what this device can tell.
        clock: seconds.
    """

    def __init__(self, entry: Entry, wanted_s: float, sensors: Sensors, clock: Clock) -> None:
        self._entry, self._wanted_s, self._sensors, self._clock = entry, wanted_s, sensors, clock
        self._samples: list[SustainedSample] = []
        self._took_s = 0.0

    def run(self, meter: BlockMeter, progress: Callable[[float], None]) -> None:
        """Run until the time is over.

        Args:
            meter: times the runs.
            progress: gets the seconds since the beginning after each stretch.
        """
        stretch_s = min(MAX_STRETCH_S, max(MIN_STRETCH_S, self._wanted_s / STRETCHES))
        meter.prepare(self._entry)
        self._sensors.read(self._clock())
        began_s = self._clock()
        while (stretch_began_s := self._clock()) - began_s < self._wanted_s:
            runs: list[float] = []
            while not runs or self._clock() - stretch_began_s < stretch_s:
                runs.append(meter.timed_run_ms(self._entry))
            now_s = self._clock()
            middle_s = (stretch_began_s + now_s) / 2.0 - began_s
            self._samples.append(_sample(middle_s, runs, self._sensors.read(now_s)))
            self._took_s = now_s - began_s
            progress(self._took_s)

    def record(self) -> Sustained | None:
        """The curve so far; None when there is nothing."""
        if not self._samples:
            return None
        verdict: Verdict = judge_sustained(self._samples, self._wanted_s, self._took_s)
        entry = self._entry
        return Sustained(
            entry.point.name, entry.backend, entry.threads, self._wanted_s, tuple(self._samples), verdict
        )  # fmt: skip


def _sample(middle_s: float, runs: list[float], readings: Readings) -> SustainedSample:
    frequencies = readings.core_frequency_mhz
    return SustainedSample(
        round(middle_s, 3),
        len(runs),
        round(statistics.median(runs), 6),
        round(float(np.percentile(runs, 99.0, method="higher")), 6),
        readings.temperature_c,
        round(statistics.fmean(frequencies), 1) if frequencies else None,
        readings.foreign_load,
        readings.throttled,
        readings.power_w,
    )
