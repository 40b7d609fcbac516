"""Energy of one run: from a power sensor while the point runs without pause, or an estimate that says so."""

from __future__ import annotations

import statistics

from edge_runtime.profile_schema import DeviceProfile
from edge_runtime.profiling.blocks import BlockMeter, Clock, Entry, Sleep
from edge_runtime.profiling.result_records import Energy
from edge_runtime.sensor_loop import Sensors

READ_EVERY_S = 0.1
BATTERY_MIN_S = 4.0
"""A battery's meter answers with a mean over some seconds."""
IDLE_S = 0.5


class EnergyMeter:
    """Asks the power sensor, if there is one.

    Args:
        sensors: whose `power_w` counts.
        profile: whose power figures serve for the estimate.
        seconds: for one point.
        clock, sleep: seconds.
    """

    def __init__(self, sensors: Sensors, profile: DeviceProfile, seconds: float, clock: Clock, sleep: Sleep) -> None:
        self._sensors, self._profile, self._seconds, self._clock = sensors, profile, seconds, clock
        self.idle_power_w: float | None = None
        self.source = ""
        sensors.read(clock())  # an energy counter needs two readings
        sleep(READ_EVERY_S if sensors.read(clock()).power_w is None else IDLE_S)
        readings = sensors.read(clock())
        if readings.power_w is not None:
            self.idle_power_w, self.source = readings.power_w, readings.sources.get("power_w", "power sensor")

    def measure(self, meter: BlockMeter, entry: Entry, mean_ms: float) -> Energy:
        """The energy of one run of a point whose mean run takes `mean_ms`."""
        if self.idle_power_w is None:
            return self.unmeasured("no power sensor answers (RAPL, INA monitor, battery)", mean_ms)
        if "power_supply" in self.source and self._seconds < BATTERY_MIN_S:
            return self.unmeasured("the battery's meter is too slow for this mode, use --full", mean_ms)
        powers, runs = [], 0
        meter.prepare(entry)
        self._sensors.read(self._clock())
        began_s = read_s = self._clock()
        while (now_s := self._clock()) - began_s < self._seconds:
            entry.runner.run()
            runs += 1
            if now_s - read_s >= READ_EVERY_S:
                read_s = now_s
                power_w = self._sensors.read(now_s).power_w
                powers += [] if power_w is None else [power_w]
        if not powers or runs == 0:
            return self.unmeasured(f"{self.source} gave no reading in {self._seconds:g} s", mean_ms)
        power_w = statistics.fmean(powers)
        millijoules = power_w * (self._clock() - began_s) / runs * 1000.0
        return Energy("measured", round(millijoules, 6), round(power_w, 4), self.source)

    def unmeasured(self, reason: str, mean_ms: float) -> Energy:
        """An estimate from the profile's power figures, or the reason why there is none."""
        for fact in self._profile.hardware:
            watts = fact.unit.split(",")[0].strip() in ("W", "watt", "watts")
            if watts and isinstance(fact.value, (int, float)) and "power" in fact.name.lower() and fact.value > 0:
                told = f"estimate: {fact.name} {fact.value:g} W ({fact.source}) x mean latency; {reason}"
                return Energy("estimate", round(fact.value * mean_ms, 6), float(fact.value), told)
        return Energy("unknown", source=f"not measurable here: {reason}")
