"""Which device profile a run takes where its scenario plays a device that this one is not."""

from __future__ import annotations

from collections.abc import Callable

from apps.camera.scenario import Scenario
from edge_runtime.device_profile import match_profile, read_machine_facts
from edge_runtime.profile_schema import DeviceProfile


def chosen_profile(
    chosen: str | None,
    scenario: Scenario | None,
    tell: Callable[[str], None],
    own_profile: Callable[[], DeviceProfile] = lambda: match_profile(read_machine_facts())[0],
) -> str | None:
    """The profile's name; None is this machine's own.

    A server has no thermal bands, so that a scenario's "hot" phase would change nothing there. Such a scenario may name
    a profile that stands in.

    Args:
        chosen: what the command line says; it goes first.
        scenario: what is played.
        tell: receives one sentence when another profile stands in.
    Raises:
        ProfileError: this machine's profile cannot be read.
    """
    if chosen is not None or scenario is None or scenario.stand_in_profile is None:
        return chosen
    own = own_profile()
    missing = missing_bands(scenario, own)
    if not missing:
        return None
    bands, name = " and no ".join(missing), scenario.stand_in_profile
    tell(
        f"{own.name} has no {bands} bands, which the scenario plays with: {name} stands in "
        f"(--profile {own.name} keeps it out)"
    )
    return scenario.stand_in_profile


def missing_bands(scenario: Scenario, profile: DeviceProfile) -> list[str]:
    """Kinds of bands that phases of a scenario call for and a profile lacks."""
    wanted = {
        "thermal": (any(p.temperature_c is not None for p in scenario.phases), profile.thermal_bands),
        "battery": (any(p.battery_share is not None for p in scenario.phases), profile.battery_bands),
    }
    return [kind for kind, (asked, bands) in wanted.items() if asked and not bands]
