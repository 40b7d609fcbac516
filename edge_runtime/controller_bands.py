"""Bands with overlap: how far a reading has gone, with its hysteresis as data from the device profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.profile_schema import DeviceProfile, FallingBand, RisingBand


@dataclass(frozen=True)
class Band:
    """Entered above one value, left below a lower one. For readings that get worse as they fall, both are negated."""

    name: str
    enter_above: float
    leave_below: float
    cap_share: float
    """While inside: the largest share of the costliest point's tabled latency that a point may have, 0-1."""


@dataclass(frozen=True)
class DeviceLimits:
    """The bands of a device; each tuple gets worse from first to last."""

    thermal: tuple[Band, ...] = (Band("hot", 85.0, 78.0, 1.0 / 3.0),)
    """On the temperature, degrees Celsius. Without a profile: 85 is where most boards begin to throttle."""
    battery: tuple[Band, ...] = ()
    """On minus the battery's share."""
    load: tuple[Band, ...] = ()
    """On the foreign load, 0-1."""
    memory_pressure: tuple[Band, ...] = ()
    """On the memory pressure, 0-1."""

    @staticmethod
    def from_profile(profile: DeviceProfile) -> DeviceLimits:
        """The bands of a device profile."""
        return DeviceLimits(
            tuple(_rising(band) for band in profile.thermal_bands),
            tuple(_falling(band) for band in profile.battery_bands),
            tuple(_rising(band) for band in profile.load_bands),
            tuple(_rising(band) for band in profile.memory_pressure_bands),
        )

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """For the record of a run."""
        return {name: [dict(band) for band in bands] for name, bands in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Sequence[Mapping[str, Any]]]) -> DeviceLimits:
        """What `to_dict` gave."""
        return DeviceLimits(**{name: tuple(Band(**band) for band in bands) for name, bands in values.items()})


class BandTracker:
    """In which band of a list a reading is.

    Args:
        bands: from harmless to worst.
    """

    def __init__(self, bands: Sequence[Band]) -> None:
        self._bands = tuple(bands)
        self._inside = 0
        """Number of bands entered."""

    @property
    def name(self) -> str | None:
        """Of the innermost band; None outside of all."""
        return self._bands[self._inside - 1].name if self._inside else None

    @property
    def cap_share(self) -> float:
        """Of the innermost band; 1 outside of all."""
        return self._bands[self._inside - 1].cap_share if self._inside else 1.0

    def update(self, value: float, foreseen: float | None = None) -> bool:
        """Take in a reading.

        Args:
            value: the reading; decides about leaving, and about entering.
            foreseen: where the reading is going; may enter a band early that `value` would not leave at once.
        Returns:
            whether a worse band was entered.
        """
        bands, before = self._bands, self._inside
        inside = before
        while inside and value < bands[inside - 1].leave_below:
            inside -= 1
        ahead = value if foreseen is None or foreseen < value else foreseen
        while inside < len(bands) and ahead > bands[inside].enter_above and value >= bands[inside].leave_below:
            inside += 1
        self._inside = inside
        return inside > before


def _rising(band: RisingBand) -> Band:
    return Band(band.name, band.enter_above, band.leave_below, band.cap_share)


def _falling(band: FallingBand) -> Band:
    return Band(band.name, -band.enter_below, -band.leave_above, band.cap_share)
