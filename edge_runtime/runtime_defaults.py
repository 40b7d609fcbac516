"""What `Runtime.load` takes where the application says nothing: profile, engine options, query table, sensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint
from edge_runtime.profiling.table_record import QueryTable
from edge_runtime.sensor_loop import Sensors, TrustedSensors

if TYPE_CHECKING:
    from edge_runtime.profile_schema import DeviceProfile

Say = Callable[[str], None]
"""Receives one sentence."""


def choose_profile(name: str | Path | None) -> DeviceProfile:
    """The profile of that name, or the one that matches this machine."""
    # here, since an application that only imports the package should not wait for it
    from edge_runtime.device_profile import load_profile, match_profile, read_machine_facts

    return match_profile(read_machine_facts())[0] if name is None else load_profile(name)


def engine_options(
    device: DeviceProfile, threads: int | None, precision: str | None, global_pool: bool
) -> BackendOptions:
    """How the engine is opened; without `threads` as many as the profile says, never more than the usable cores."""
    from edge_runtime.profiling.fingerprint import usable_cores

    threads = threads or min(device.threads, usable_cores())
    return BackendOptions(threads, precision, global_pool, device.arena, device.spinning)


def choose_query_table(
    bundle: Bundle, threads: int, backend: str, points: tuple[OperatingPoint, ...], choice: str | Path,
    warn: Say, tell: Say,
) -> QueryTable | None:  # fmt: skip
    """The table of a profile result that fits, if there is one; says what was found."""
    from edge_runtime.profiling.query_table import find_query_table

    found = find_query_table(bundle, backend, threads, [point.name for point in points], choice)
    if found.sentence:
        (warn if found.table is None else tell)(found.sentence)
    return found.table


def can_look_again(bundle: Bundle, backend: str, points: tuple[OperatingPoint, ...], warn: Say) -> bool:
    """Whether some point looks several times; says so where none does."""
    several = backend != "null" and any(point.exit is not None for point in points)
    if not several:
        warn(f"{bundle.root}: no point looks several times on {backend}; look-where-found changes nothing")
    return several


def device_sensors(device: DeviceProfile) -> Sensors:
    """The sensors of this device, less those that its profile does not trust."""
    from edge_runtime.sensors import DeviceSensors

    return TrustedSensors(DeviceSensors(temperature_zones=device.temperature_zones), device)
