"""Temperature of what limits the processor, and whether it is being slowed down."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_runtime.sensing.small_files import parse_int, read_int, read_text, shown_path, sorted_glob, within

PLAUSIBLE_C = (-40.0, 130.0)  # the junction range of industrial parts is -40 to 125; outside a sensor is broken
MAX_SENSORS = 16

# Words in a zone's or sensor's name, best first. The first group with a plausible reading is used, its hottest member.
PREFERENCES = (
    ("x86_pkg_temp", "coretemp/package", "k10temp/tdie", "k10temp/tctl", "zenpower", "cpu", "tj-thermal", "tj_therm"),
    ("coretemp", "k10temp", "soc", "package", "cluster", "big", "little", "apss"),
    ("acpitz",),
)
NOT_THE_PROCESSOR = ("gpu", "battery", "charg", "wifi", "nvme", "skin", "cpu-vr", "bcl")

GET_THROTTLED_NOW = 0xF  # under-voltage, frequency capped, throttled, soft limit; the bits from 16 are history
GET_THROTTLED_PATTERNS = ("sys/devices/platform", "soc*/soc*firmware/get_throttled")


class Temperature:
    """The hottest sensor of the best group, in degrees Celsius."""

    def __init__(self, root: Path, zones: Iterable[str] = ()) -> None:
        """Args: zones: names to use instead of the built-in preferences, best first."""
        self._root = root
        sensors = [*_thermal_zones(root), *_hwmon_sensors(root)]
        wished = tuple((zone.lower(),) for zone in zones)
        self._groups = _groups(sensors, wished, ()) if wished else _groups(sensors, PREFERENCES, NOT_THE_PROCESSOR)
        self.source = ""

    def read(self) -> float | None:
        """Degrees Celsius, or None if nothing plausible answers. Sets `source`."""
        for group in self._groups:
            best: float | None = None
            for path in group:
                value = _celsius(read_int(path))
                if value is not None and (best is None or value > best):
                    best, self.source = value, shown_path(path, self._root)
            if best is not None:
                return best
        return None


class Throttling:
    """Whether heat or supply voltage limits the processor now; True if any witness says so."""

    def __init__(self, root: Path) -> None:
        folder, pattern = GET_THROTTLED_PATTERNS
        self._firmware = sorted_glob(root / folder, pattern)[:1]
        self._alarms = [
            hwmon / "in0_lcrit_alarm"
            for hwmon in sorted_glob(root / "sys/class/hwmon", "hwmon*")
            if read_text(hwmon / "name") == "rpi_volt"
        ]
        self._cooling = [
            device / "cur_state"
            for device in sorted_glob(root / "sys/class/thermal", "cooling_device*")
            if _slows_the_processor(read_text(device / "type") or "")
        ]
        self._counters = _throttle_counters(root)
        self._counts: dict[Path, int] = {}
        files = [*self._firmware, *self._alarms, *self._cooling[:1], *self._counters[:1]]
        self.source = ", ".join(shown_path(path, root) for path in files)
        self._count_increased()

    def read(self) -> bool | None:
        """True, False, or None if no witness answers."""
        witnesses: list[bool | None] = []
        for path in self._firmware:
            bits = parse_int((read_text(path) or "").removeprefix("0x"), 16)
            witnesses.append(None if bits is None or bits < 0 else bits & GET_THROTTLED_NOW != 0)
        for path in [*self._alarms, *self._cooling]:
            state = read_int(path)
            witnesses.append(None if state is None else state > 0)
        witnesses.append(self._count_increased())
        known = [witness for witness in witnesses if witness is not None]
        return any(known) if known else None

    def _count_increased(self) -> bool | None:
        """Whether a throttle counter grew since the last call; None if none can be compared."""
        answer: bool | None = None
        for path in self._counters:
            count = read_int(path)
            before = self._counts.get(path)
            if count is None:
                self._counts.pop(path, None)
                continue
            self._counts[path] = count
            if before is not None:
                answer = (answer or False) or count > before
        return answer


def _celsius(raw: int | None) -> float | None:
    """Degrees from millidegrees; old drivers give degrees. Exactly 0 is what a dead sensor says."""
    if raw is None or raw == 0:
        return None
    return within(raw / 1000.0 if abs(raw) >= 1000 else float(raw), *PLAUSIBLE_C)


def _thermal_zones(root: Path) -> list[tuple[str, Path]]:
    zones = sorted_glob(root / "sys/class/thermal", "thermal_zone*")
    return [((read_text(zone / "type") or "").lower(), zone / "temp") for zone in zones]


def _hwmon_sensors(root: Path) -> list[tuple[str, Path]]:
    """("driver/label", file) of each hwmon temperature."""
    sensors = []
    for hwmon in sorted_glob(root / "sys/class/hwmon", "hwmon*"):
        driver = read_text(hwmon / "name") or ""
        for path in sorted_glob(hwmon, "temp*_input"):
            label = read_text(path.with_name(path.name.replace("_input", "_label"))) or ""
            sensors.append((f"{driver}/{label}".lower(), path))
    return sensors


def _groups(
    sensors: list[tuple[str, Path]], preferences: tuple[tuple[str, ...], ...], excluded: tuple[str, ...]
) -> list[list[Path]]:
    """Files by preference; a sensor is in the first group that names it."""
    groups: list[list[Path]] = [[] for _ in preferences]
    for name, path in sensors:
        if any(word in name for word in excluded):
            continue
        for group, words in zip(groups, preferences, strict=True):
            if any(word in name for word in words):
                group.append(path)
                break
    return [group[:MAX_SENSORS] for group in groups if group]


def _slows_the_processor(cooling_type: str) -> bool:
    return cooling_type == "Processor" or "cpufreq" in cooling_type


def _throttle_counters(root: Path) -> list[Path]:
    """x86: the counters of one core per package."""
    seen: set[str] = set()
    counters = []
    for cpu in sorted_glob(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        package = read_text(cpu / "topology/physical_package_id") or "0"
        if package not in seen:
            names = ("package_throttle_count", "core_throttle_count")
            found = [
                cpu / "thermal_throttle" / name
                for name in names
                if read_int(cpu / "thermal_throttle" / name) is not None
            ]
            counters.extend(found)
            if found:
                seen.add(package)
    return counters
