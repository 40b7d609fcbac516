"""Load, memory and battery by psutil, where there is no /proc (macOS, Windows).

psutil has another set of errors on each system, so any failure here means one thing: this reading is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edge_runtime.sensing.battery import BatteryState
from edge_runtime.sensing.small_files import clamp_share, within

MIN_INTERVAL_CORE_S = 0.1  # core-seconds between two readings of the load; less says little

Answer = TypeVar("Answer")


class PsutilCpuLoad:
    """Shares of all cores between two calls, own and everybody else's."""

    source = "psutil"

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._before = _ask(self._sample)
        self._last: tuple[float | None, float | None] = (None, None)

    def read(self) -> tuple[float | None, float | None]:
        """(own share, everybody else's share), each 0-1 or None."""
        now = _ask(self._sample)
        if now is None or self._before is None:
            self._before, self._last = now, (None, None)
            return self._last
        total, busy, own = (after - before for after, before in zip(now, self._before, strict=True))
        if total >= MIN_INTERVAL_CORE_S:
            own_share = clamp_share(own / total)
            self._before, self._last = now, (own_share, clamp_share(busy / total - own_share))
        return self._last

    def _sample(self) -> tuple[float, float, float]:
        """(core-seconds in all, busy ones, ours) since start."""
        machine = self._psutil.cpu_times()
        process = self._psutil.Process().cpu_times()
        total = float(sum(machine))
        own = process.user + process.system
        own += getattr(process, "children_user", 0.0) + getattr(process, "children_system", 0.0)
        return total, total - float(machine.idle), float(own)


class PsutilMemory:
    """The machine's memory."""

    available_source = "psutil"
    limit_source = "psutil"

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil

    def read(self) -> tuple[int | None, int | None]:
        """(available bytes, total bytes), each None if unknown."""
        memory = _ask(self._psutil.virtual_memory)
        return (None, None) if memory is None else (int(memory.available), int(memory.total))


class PsutilBattery:
    """Charge, and whether the device lives on it."""

    source = "psutil"
    mains_source = "psutil"

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil

    def read(self) -> BatteryState:
        """The state now; empty without a battery or where psutil cannot tell."""
        answer = _ask(lambda: self._psutil.sensors_battery())
        if answer is None:
            return BatteryState()
        plugged = answer.power_plugged
        share = within(float(answer.percent) / 100.0, 0.0, 1.0)
        return BatteryState(share, None if plugged is None else not plugged)


def _ask(question: Callable[[], Answer]) -> Answer | None:
    try:
        return question()
    except Exception:  # see the first lines of this file
        return None
