"""What the sensors say about the device; unknown is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Readings:
    """One set of readings, taken on the slow period (about 1 Hz)."""

    taken_s: float = 0.0
    """When, on the pipeline's clock."""
    own_load: float | None = None
    """Share of all cores that this process and its children use, 0-1."""
    foreign_load: float | None = None
    """Share of all cores that everybody else uses, 0-1."""
    core_frequency_mhz: tuple[float, ...] = ()
    """Current frequency of each core; empty when unknown."""
    temperature_c: float | None = None
    """The hottest zone that limits the processor."""
    throttled: bool | None = None
    """The processor or the board limits its speed because of heat or supply voltage."""
    battery_share: float | None = None
    """Charge left, 0-1; None without a battery."""
    on_battery: bool | None = None
    power_w: float | None = None
    """Power drawn, where a sensor knows it."""
    memory_available_bytes: int | None = None
    """What this process may still use: the smaller of the machine's and the cgroup's room."""
    memory_limit_bytes: int | None = None
    """The cgroup's limit, or the machine's memory."""
    memory_pressure: float | None = None
    """PSI: share of the last 10 s in which some task waited for memory, 0-1."""
    cpu_pressure: float | None = None
    """PSI: share of the last 10 s in which some task waited for a core, 0-1."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each reading comes from, for `doctor`: field name -> file or library."""


UNKNOWN = Readings()
"""No sensor answered."""
