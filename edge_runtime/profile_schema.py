"""What a device profile says: facts about a kind of device, each with its source, and choices made for it.

The file format is in docs/profiles.md; profile_file.py reads it, device_profile.py finds and matches profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from edge_runtime.readings import Readings

BACKENDS = ("onnxruntime", "executorch")
PRECISIONS = ("fp32", "int8")
SENSORS = tuple(field.name for field in fields(Readings) if field.name not in ("taken_s", "sources"))


@dataclass(frozen=True)
class HardwareFact:
    """One number that a vendor or a document states."""

    name: str
    value: float | int | str
    unit: str
    source: str
    """Document and section, so that a reader can check it."""


@dataclass(frozen=True)
class RisingBand:
    """Entered above one value and left below a lower one; the overlap with the band below is the hysteresis."""

    name: str
    enter_above: float
    leave_below: float
    cap_share: float
    """While inside: points whose latency in the query table is at most this share of the costliest point's may be
    used (0-1). The cheapest point may always be used."""


@dataclass(frozen=True)
class FallingBand:
    """Entered below one value and left above a higher one."""

    name: str
    enter_below: float
    leave_above: float
    cap_share: float
    """As for RisingBand."""


@dataclass(frozen=True)
class MatchRule:
    """Which machines the profile is for; every condition that is stated must hold."""

    priority: int
    """Among the profiles that match, the highest wins."""
    systems: tuple[str, ...] = ()
    """linux, android, darwin, ios, windows; empty for any."""
    architectures: tuple[str, ...] = ()
    """x86_64, aarch64, armv7l; empty for any."""
    models: tuple[str, ...] = ()
    """Parts of the board's or the phone's name, one of which it must hold; empty for any."""
    cpu_features: tuple[str, ...] = ()
    """Words of /proc/cpuinfo, one of which the processor must have; empty for any."""
    battery: bool | None = None
    """The machine has a battery, or has none (or does not tell); None for either."""
    fallback: bool = False
    """For machines that no profile matches; exactly one profile says so."""


@dataclass(frozen=True)
class DeviceProfile:
    """Facts and choices for one kind of device."""

    name: str
    title: str
    summary: str
    measured: bool
    """This project measured on this hardware; if not, the choices are reasoned from its data sheets."""
    hardware: tuple[HardwareFact, ...]
    match: MatchRule
    backend: str
    """One of BACKENDS."""
    precision: str
    """One of PRECISIONS: the one to build first."""
    threads: int
    """For the engine's pool, at most; never more than the cores that this process may use."""
    max_points: int
    """How many operating points a bundle for this device should hold at most."""
    memory_limit_bytes: int
    """What all resident points together may take, beside what the process needs anyway."""
    arena: bool
    """onnxruntime's memory arena: faster, and larger."""
    spinning: bool
    """Threads of the engine's pool wait by spinning; they then take cores from everybody else."""
    sensors: tuple[str, ...]
    """Fields of Readings that can be trusted here; the others are to be treated as unknown."""
    sensor_period_s: float
    temperature_zones: tuple[str, ...] = ()
    """Thermal zones that the thermal bands mean, best first; empty for the processor's own."""
    thermal_bands: tuple[RisingBand, ...] = ()
    """On `temperature_c`, degrees Celsius."""
    battery_bands: tuple[FallingBand, ...] = ()
    """On `battery_share`, 0-1, while `on_battery`."""
    load_bands: tuple[RisingBand, ...] = ()
    """On `foreign_load`, 0-1."""
    memory_pressure_bands: tuple[RisingBand, ...] = ()
    """On `memory_pressure`, 0-1."""

    def trusted(self, readings: Readings) -> Readings:
        """The readings with every sensor that this profile does not trust made unknown."""
        kept = {name: getattr(readings, name) for name in self.sensors}
        sources = {name: source for name, source in readings.sources.items() if name in self.sensors}
        return Readings(taken_s=readings.taken_s, sources=sources, **kept)


def band_fault(bands: Sequence[RisingBand] | Sequence[FallingBand], low: float, high: float) -> str | None:
    """What is wrong with a list of bands, or None.

    Proper bands get worse from first to last: each starts beyond the one before, is left before that point but not
    before the one before it is left, and caps lower.

    Args:
        low, high: the range in which thresholds make sense.
    """
    before: RisingBand | FallingBand | None = None
    for band in bands:
        enter, leave = _risen(band)
        if not all(low <= abs(value) <= high for value in (enter, leave)):
            return f"band {band.name!r} has a threshold outside {low:g} to {high:g}"
        if leave >= enter:
            return f"band {band.name!r} does not overlap the one before: it must be left later than it was entered"
        if not 0.0 < band.cap_share <= 1.0:
            return f"band {band.name!r} has cap_share {band.cap_share:g}, expected more than 0 and at most 1"
        if before is not None:
            enter_before, leave_before = _risen(before)
            if enter <= enter_before or leave <= leave_before:
                return f"band {band.name!r} does not lie beyond band {before.name!r}"
            if band.cap_share >= before.cap_share:
                return f"band {band.name!r} must cap lower than band {before.name!r}"
        before = band
    names = [band.name for band in bands]
    repeated = next((name for name in names if names.count(name) > 1), None)
    return None if repeated is None else f"two bands are named {repeated!r}"


def _risen(band: RisingBand | FallingBand) -> tuple[float, float]:
    """(enter, leave) as numbers that rise as things get worse."""
    if isinstance(band, RisingBand):
        return band.enter_above, band.leave_below
    return -band.enter_below, -band.leave_above
