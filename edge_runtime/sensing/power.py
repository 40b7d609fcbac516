"""Power drawn, where a sensor knows it: the board's INA monitor, the battery, or the processor's own counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_runtime.sensing.small_files import read_int, read_text, shown_path, sorted_glob, within

MAX_POWER_W = 5000.0
MIN_INTERVAL_S = 0.01  # energy counters move about once a millisecond; a shorter interval is noise
BOARD_RAILS = ("vdd_in", "pom_5v_in", "vdd_total")  # what feeds the whole board, in the words of Jetson boards


class BoardPower:
    """The rail that feeds the whole board, from an INA monitor (ina2xx, ina3221) in hwmon."""

    def __init__(self, root: Path) -> None:
        self.source = ""
        self._read: Callable[[], float | None] = lambda: None
        for hwmon in sorted_glob(root / "sys/class/hwmon", "hwmon*"):
            driver = read_text(hwmon / "name") or ""
            if not driver.startswith("ina"):
                continue
            if read_int(hwmon / "power1_input") is not None:  # a monitor of one rail, usually the supply
                self._use(hwmon / "power1_input", None, root)
                return
            for label in sorted_glob(hwmon, "in*_label"):
                if (read_text(label) or "").lower() in BOARD_RAILS:
                    index = label.name[2 : -len("_label")]
                    self._use(hwmon / f"in{index}_input", hwmon / f"curr{index}_input", root)
                    return

    def read(self) -> float | None:
        """Watts, or None."""
        return within(self._read(), 0.0, MAX_POWER_W)

    def _use(self, first: Path, current: Path | None, root: Path) -> None:
        self.source = shown_path(first, root)

        def microwatts() -> float | None:
            value = read_int(first)
            return None if value is None else value / 1e6

        def millivolts_times_milliamperes() -> float | None:
            millivolts, milliamperes = read_int(first), read_int(current) if current else None
            return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6

        self._read = microwatts if current is None else millivolts_times_milliamperes


class ProcessorPower:
    """Mean power since the last call, from the energy counters of Intel and AMD (RAPL), which root alone may read."""

    def __init__(self, root: Path) -> None:
        domains = [
            domain
            for domain in sorted_glob(root / "sys/class/powercap", "intel-rapl:*")
            if read_int(domain / "energy_uj") is not None
        ]
        names = {domain: read_text(domain / "name") or "" for domain in domains}
        whole = [domain for domain in domains if names[domain] == "psys"]  # the platform holds its packages
        self._domains = whole or [domain for domain in domains if names[domain].startswith("package")]
        self.source = ", ".join(shown_path(domain / "energy_uj", root) for domain in self._domains)
        self._ranges = [read_int(domain / "max_energy_range_uj") or 0 for domain in self._domains]
        self._before: tuple[float, list[int]] | None = None
        self._last: float | None = None

    def read(self, now_s: float) -> float | None:
        """Watts since the previous call, or None."""
        readings = [read_int(domain / "energy_uj") for domain in self._domains]
        energies = [energy for energy in readings if energy is not None and energy >= 0]
        if not energies or len(energies) != len(readings):
            self._before, self._last = None, None
            return None
        if self._before is None:
            self._before = (now_s, energies)
            return None
        seconds = now_s - self._before[0]
        if 0 <= seconds < MIN_INTERVAL_S:
            return self._last
        microjoules = sum(
            now - before if now >= before else now - before + span  # the counter wraps at its range
            for now, before, span in zip(energies, self._before[1], self._ranges, strict=True)
        )
        self._before = (now_s, energies)
        self._last = within(microjoules / 1e6 / seconds, 0.0, MAX_POWER_W) if seconds > 0 else None
        return self._last
