"""The slow loop: readings and the budget's limits cap the ladder before a deadline is missed.

An unknown reading, and one that is impossible, leaves its limit where it is: it never raises a cap.
"""

from __future__ import annotations

from edge_runtime.budget import Budget
from edge_runtime.controller_bands import BandTracker, DeviceLimits
from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.readings import Readings

COLDEST_C, HOTTEST_C = -60.0, 200.0
MOST_W = 1e5
FULL = -1.0
"""A full battery in the sense of its bands, which hold minus the share."""
SHORTEST_S, LONGEST_S = 0.2, 30.0
"""Two readings of the temperature closer or further apart than this say nothing of its trend."""


class SlowLoop:
    """Holds the bands, the trend of the temperature and the power cap.

    Args:
        limits: the device's bands.
        settings: constants.
    """

    def __init__(self, limits: DeviceLimits, settings: ControllerSettings) -> None:
        self._settings = settings
        self._heat, self._battery = BandTracker(limits.thermal), BandTracker(limits.battery)
        self._load, self._pressure = BandTracker(limits.load), BandTracker(limits.memory_pressure)
        self._throttled_share = limits.thermal[-1].cap_share if limits.thermal else settings.throttled_cap_share
        self._throttled = False
        self._load_since_s: float | None = None
        self._temperature_c: float | None = None
        self._temperature_s = 0.0
        self._power_share = 1.0
        self.trend_c_per_s = 0.0
        self.battery_low = False
        """Below the budget's floor: only the cheapest admissible point."""
        self.memory_limit_bytes: float | None = None
        """What one point may take."""
        self.foreign_load: float | None = None
        """The last known one, 0-1."""
        self.cap_share = 1.0
        """Largest share of the costliest point's tabled latency that a point may have."""
        self.reason = ""
        """What caps: heat, throttled, battery, memory, load or power; empty when nothing does."""

    @property
    def throttled(self) -> bool:
        """The device said so last, or is in a thermal band."""
        return self._throttled or self._heat.name is not None

    def take_readings(self, now_s: float, readings: Readings, budget: Budget) -> None:
        """Take in one set of readings; called once for each."""
        settings = self._settings
        temperature_c = readings.temperature_c
        if temperature_c is not None and COLDEST_C <= temperature_c <= HOTTEST_C:
            self._take_temperature(readings.taken_s, temperature_c)
        if readings.throttled is not None:
            self._throttled = readings.throttled
        share, mains = readings.battery_share, readings.on_battery is False
        if mains:
            self._battery.update(FULL)
        elif share is not None and 0.0 <= share <= 1.0:
            self._battery.update(-share)
        load = readings.foreign_load
        if load is not None and 0.0 <= load <= 1.0:
            first, self.foreign_load = self.foreign_load is None, load
            if self._load.update(load) and not first:  # the first reading is no rise
                self._load_since_s = now_s
        pressure = readings.memory_pressure
        if pressure is not None and 0.0 <= pressure <= 1.0:
            self._pressure.update(pressure)
        limit = readings.memory_limit_bytes
        if limit is not None and limit > 0:
            self.memory_limit_bytes = settings.memory_share * limit
        if budget.max_power_w is not None:
            self._take_power(readings.power_w, budget.max_power_w)
        self.take_budget(readings, budget)
        self._recap()

    def take_budget(self, readings: Readings, budget: Budget) -> None:
        """The budget's own limits, which may change between two readings."""
        share, floor = readings.battery_share, budget.battery_floor_share
        if floor is None or readings.on_battery is False:
            self.battery_low = False
        elif share is not None and 0.0 <= share <= 1.0:
            self.battery_low = share < floor
        if budget.max_power_w is None and self._power_share < 1.0:
            self._power_share = 1.0
            self._recap()

    def expire(self, now_s: float) -> bool:
        """Lift the load cap when its time is over; says whether the cap changed."""
        if self._load_since_s is None or 0.0 <= now_s - self._load_since_s < self._settings.load_cap_s:
            return False
        self._load_since_s = None
        self._recap()
        return True

    def _take_temperature(self, taken_s: float, temperature_c: float) -> None:
        settings, before_c = self._settings, self._temperature_c
        elapsed_s = taken_s - self._temperature_s
        if before_c is not None and SHORTEST_S <= elapsed_s <= LONGEST_S:
            rise = (temperature_c - before_c) / elapsed_s
            rise = min(max(rise, -settings.max_trend_c_per_s), settings.max_trend_c_per_s)
            self.trend_c_per_s = self.trend_c_per_s + settings.trend_rate * (rise - self.trend_c_per_s)
        if before_c is None or not 0.0 <= elapsed_s < SHORTEST_S:
            self._temperature_c, self._temperature_s = temperature_c, taken_s
        self._heat.update(temperature_c, temperature_c + settings.trend_horizon_s * self.trend_c_per_s)

    def _take_power(self, power_w: float | None, limit_w: float) -> None:
        """Integral control: the cap falls in proportion to the excess and rises in small steps."""
        settings = self._settings
        if power_w is None or not 0.0 <= power_w <= MOST_W:
            return
        if power_w > limit_w:
            self._power_share = max(self._power_share * limit_w / power_w, settings.min_power_cap_share)
        elif power_w < settings.power_relax_below * limit_w:
            self._power_share = min(self._power_share * settings.power_step_up, 1.0)

    def _recap(self) -> None:
        """The lowest of the caps, and its name."""
        self.cap_share, self.reason = 1.0, ""
        self._lower(self._heat.cap_share, "device hot")
        self._lower(self._throttled_share if self._throttled else 1.0, "device throttled")
        self._lower(self._battery.cap_share, "battery low")
        self._lower(self._pressure.cap_share, "memory pressure")
        self._lower(self._power_share, "power limit")
        if self._load_since_s is not None:
            self._lower(self._load.cap_share, "foreign load")

    def _lower(self, share: float, reason: str) -> None:
        if share < self.cap_share:
            self.cap_share, self.reason = share, reason
