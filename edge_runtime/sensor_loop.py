"""Read the sensors on their own slow period, beside the frame path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge_runtime.readings import UNKNOWN, Readings

if TYPE_CHECKING:
    from edge_runtime.profile_schema import DeviceProfile


class Sensors(Protocol):
    """Anything that can say how the device is."""

    def read(self, now_s: float) -> Readings:
        """All readings now; unknown ones are None. Does not raise."""


def crowding_of(sensors: Sensors) -> Callable[[int], float | None]:
    """How the sensors tell the crowding of the cores before each frame; sensors that cannot never know it."""
    found: Callable[[int], float | None] | None = getattr(sensors, "crowding", None)
    return (lambda threads: None) if found is None else found


class NoSensors:
    """Knows nothing."""

    def read(self, now_s: float) -> Readings:
        """Unknown."""
        return UNKNOWN


class TrustedSensors:
    """Only what the device profile trusts; everything else is unknown."""

    def __init__(self, inner: Sensors, profile: DeviceProfile) -> None:
        self._inner, self._profile = inner, profile

    def read(self, now_s: float) -> Readings:
        """The trusted readings."""
        return self._profile.trusted(self._inner.read(now_s))

    def crowding(self, threads: int) -> float | None:
        """Of the inner sensors, where the profile trusts their load."""
        return crowding_of(self._inner)(threads) if "foreign_load" in self._profile.sensors else None


class SensorLoop:
    """A thread that keeps `latest` fresh.

    Args:
        sensors: what to read.
        period_s: time between two readings.
        clock: the pipeline's clock.
    """

    def __init__(self, sensors: Sensors, period_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._sensors, self._period_s, self._clock = sensors, period_s, clock
        self._stop = threading.Event()
        self.latest = sensors.read(clock())
        self._thread = threading.Thread(target=self._run, name="edge-runtime-sensors", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.latest = self._sensors.read(self._clock())

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()
