"""The device's eyes: one call reads load, heat, battery, memory and pressure from small files; unknown is None.

Every file is looked up once, when the object is made. `read` opens a dozen or two of them, takes well under a
millisecond on most machines (benchmarks/sensor_cost.py) and never raises. Where there is no /proc (macOS, Windows)
psutil answers for load, memory and battery, if it is installed. The root can be set, so that a test or a bug report
can bring the tree of another machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_runtime.readings import Readings
from edge_runtime.sensing.battery import Battery, BatteryState
from edge_runtime.sensing.cpu_load import CoreFrequency, CpuLoad
from edge_runtime.sensing.memory import Memory
from edge_runtime.sensing.power import BoardPower, ProcessorPower
from edge_runtime.sensing.pressure import Pressure
from edge_runtime.sensing.psutil_fallback import PsutilBattery, PsutilCpuLoad, PsutilMemory
from edge_runtime.sensing.run_queue import RunQueue
from edge_runtime.sensing.small_files import first_existing
from edge_runtime.sensing.thermal import Temperature, Throttling

SYSTEM_ROOT = Path("/")


class DeviceSensors:
    """Reads everything that this device can tell about itself. Not for use from several threads at once."""

    def __init__(
        self,
        root: Path = SYSTEM_ROOT,
        clock: Callable[[], float] = time.monotonic,
        *,
        temperature_zones: Iterable[str] = (),
        count_children: bool = True,
    ) -> None:
        """Find the files. Never raises.

        Args:
            root: holds proc/ and sys/; another than "/" is an emulated machine, for which psutil is not asked.
            clock: seconds; used where `read` is not told the time.
            temperature_zones: names of thermal zones to trust, best first, from a device profile; empty means that
                the processor's own are recognised by their names.
            count_children: whether child processes count as our own load. A program that starts children in order
                to put load on the machine sets False; they are then foreign.
        """
        self._clock = clock
        self._frequency = CoreFrequency(root)
        self._temperature = Temperature(root, temperature_zones)
        self._throttling = Throttling(root)
        self._board_power = BoardPower(root)
        self._processor_power = ProcessorPower(root)
        self._memory_pressure = Pressure(root, "memory")
        self._cpu_pressure = Pressure(root, "cpu")
        self._run_queue = RunQueue(root)
        self._load: CpuLoad | PsutilCpuLoad = CpuLoad(root, count_children)
        self._memory: Memory | PsutilMemory = Memory(root)
        self._battery: Battery | PsutilBattery = Battery(root)
        if root == SYSTEM_ROOT and first_existing([root / "proc/stat"]) is None:
            self._ask_psutil(_installed_psutil())

    def read(self, now_s: float | None = None) -> Readings:
        """Take one set of readings.

        Args:
            now_s: the pipeline's time; None asks the clock.
        Returns:
            what is known; `sources` names the file or library behind each field that is not None.
        """
        now_s = self._clock() if now_s is None else now_s
        sources: dict[str, str] = {}
        own_load, foreign_load = self._load.read()
        available_bytes, limit_bytes = self._memory.read()
        battery = self._battery.read()
        power_w, power_source = self._power(now_s, battery)
        readings = Readings(
            taken_s=now_s,
            own_load=own_load,
            foreign_load=foreign_load,
            core_frequency_mhz=self._frequency.read(),
            temperature_c=self._temperature.read(),
            throttled=self._throttling.read(),
            battery_share=battery.share,
            on_battery=battery.on_battery,
            power_w=power_w,
            memory_available_bytes=available_bytes,
            memory_limit_bytes=limit_bytes,
            memory_pressure=self._memory_pressure.read(),
            cpu_pressure=self._cpu_pressure.read(),
            sources=sources,
        )
        for name, source in self._sources(power_source).items():
            if getattr(readings, name) not in (None, ()):
                sources[name] = source
        return readings

    def crowding(self, threads: int) -> float | None:
        """Tasks that want a core now, for each core; None is unknown. May be asked beside `read`, by another thread.

        Args:
            threads: how many the engine will use.
        """
        return self._run_queue.crowding(threads)

    def _ask_psutil(self, psutil: Any) -> None:
        if psutil is not None:
            self._load, self._memory, self._battery = (
                PsutilCpuLoad(psutil),
                PsutilMemory(psutil),
                PsutilBattery(psutil),
            )

    def _power(self, now_s: float, battery: BatteryState) -> tuple[float | None, str]:
        """The most complete answer: the whole board, what the battery gives, then the processor alone."""
        processor_w = self._processor_power.read(now_s)
        board_w = self._board_power.read()
        if board_w is not None:
            return board_w, self._board_power.source
        if battery.discharge_w is not None:
            return battery.discharge_w, self._battery.source
        return processor_w, self._processor_power.source

    def _sources(self, power_source: str) -> dict[str, str]:
        return {
            "own_load": self._load.source,
            "foreign_load": self._load.source,
            "core_frequency_mhz": self._frequency.source,
            "temperature_c": self._temperature.source,
            "throttled": self._throttling.source,
            "battery_share": self._battery.source,
            "on_battery": self._battery.mains_source,
            "power_w": power_source,
            "memory_available_bytes": self._memory.available_source,
            "memory_limit_bytes": self._memory.limit_source,
            "memory_pressure": self._memory_pressure.source,
            "cpu_pressure": self._cpu_pressure.source,
        }


def _installed_psutil() -> ModuleType | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil  # type: ignore[no-any-return,unused-ignore]
