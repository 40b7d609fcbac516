"""Charge of the battery, and whether the device lives on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.sensing.small_files import clamp_share, read_int, read_text, shown_path, sorted_glob, within

ON_MAINS_STATES = ("Charging", "Full", "Not charging")
MAX_DEVICE_POWER_W = 1000.0


@dataclass(frozen=True)
class BatteryState:
    """What the power supplies say."""

    share: float | None = None
    """Charge left, 0-1."""
    on_battery: bool | None = None
    """The device draws from a battery."""
    discharge_w: float | None = None
    """Power that the batteries give; None while they are charged or on mains."""


class Battery:
    """All system batteries together, from /sys/class/power_supply; those of mice and pens do not count."""

    def __init__(self, root: Path) -> None:
        supplies = sorted_glob(root / "sys/class/power_supply", "*")
        kinds = {supply: read_text(supply / "type") for supply in supplies}
        self._batteries = [
            supply for supply in supplies if kinds[supply] == "Battery" and read_text(supply / "scope") != "Device"
        ]
        self._mains = [supply / "online" for supply in supplies if kinds[supply] in ("Mains", "USB", "Wireless")]
        self.source = ", ".join(shown_path(supply, root) for supply in self._batteries)
        self.mains_source = self.source or ", ".join(shown_path(path, root) for path in self._mains)

    def read(self) -> BatteryState:
        """The state now; each part is None if it is unknown."""
        present = [battery for battery in self._batteries if read_int(battery / "present") != 0]
        states = [read_text(battery / "status") for battery in present]
        on_battery = self._on_battery(states)
        watts = [_watts(b) for b, state in zip(present, states, strict=True) if state == "Discharging"]
        known = [value for value in watts if value is not None]
        discharge_w = sum(known) if on_battery and known and len(known) == len(watts) else None
        return BatteryState(_joint_share(present), on_battery, within(discharge_w, 0.0, MAX_DEVICE_POWER_W))

    def _on_battery(self, states: list[str | None]) -> bool | None:
        if "Discharging" in states:
            return True
        if any(read_int(online) == 1 for online in self._mains) or any(state in ON_MAINS_STATES for state in states):
            return False
        return None


def _joint_share(batteries: list[Path]) -> float | None:
    """Charge of all batteries, each with the weight of its capacity where all capacities are known."""
    shares = [_share(battery) for battery in batteries]
    known = [(share, battery) for share, battery in zip(shares, batteries, strict=True) if share is not None]
    if not known:
        return None
    full = [read_int(battery / "energy_full") or 0 for _, battery in known]
    weights = full if min(full) > 0 else [1] * len(known)
    return sum(share * weight for (share, _), weight in zip(known, weights, strict=True)) / sum(weights)


def _share(battery: Path) -> float | None:
    """Charge 0-1 from capacity (percent), else energy or charge now over full."""
    percent = within(read_int(battery / "capacity"), 0, 100)
    if percent is not None:
        return percent / 100.0
    for unit in ("energy", "charge"):
        now, full = read_int(battery / f"{unit}_now"), read_int(battery / f"{unit}_full")
        if now is not None and full is not None and full > 0 and 0 <= now <= 1.1 * full:
            return clamp_share(now / full)  # a worn battery may hold a little more than its last full charge
    return None


def _watts(battery: Path) -> float | None:
    """Power from power_now (microwatts), else current_now (microamperes) times voltage_now (microvolts)."""
    micro_w = read_int(battery / "power_now")
    if micro_w is not None:
        return abs(micro_w) / 1e6
    micro_a, micro_v = read_int(battery / "current_now"), read_int(battery / "voltage_now")
    if micro_a is None or micro_v is None or micro_v <= 0:
        return None
    return abs(micro_a) / 1e6 * (micro_v / 1e6)  # the sign of the current differs between drivers
