"""The list of device profiles, with the one that fits this machine: for `edge-runtime devices`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_runtime.device_profile import DeviceProfile, MachineFacts, list_profiles, match_profile, read_machine_facts

HEADINGS = ("name", "engine", "precision", "threads", "points", "memory", "device")
MIB = 1 << 20


def render_devices(facts: MachineFacts | None = None, profiles: list[DeviceProfile] | None = None) -> str:
    """All profiles as a table, the best match marked, the reason below.

    Args:
        facts: of the machine to match; None reads this one's.
        profiles: to list; None lists the shipped ones.
    """
    facts = facts or read_machine_facts()
    profiles = list_profiles() if profiles is None else profiles
    best, reason = match_profile(facts, profiles)
    rows = [HEADINGS, *[_row(profile) for profile in profiles]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    marks = ["", *["->" if profile is best else "" for profile in profiles]]
    lines = []
    for mark, row in zip(marks, rows, strict=True):
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{mark:<2} {cells}".rstrip())
    lines += ["", f"Best for this machine: {best.name} ({reason}).", "Facts, sources and choices: docs/profiles.md"]
    return "\n".join(lines)


def devices_as_json(facts: MachineFacts | None = None, profiles: list[DeviceProfile] | None = None) -> dict[str, Any]:
    """The same as plain data: facts of the machine, best match, reason, and every profile in full."""
    facts = facts or read_machine_facts()
    profiles = list_profiles() if profiles is None else profiles
    best, reason = match_profile(facts, profiles)
    machine = {**asdict(facts), "cpu_features": sorted(facts.cpu_features)}
    return {"machine": machine, "best": best.name, "reason": reason, "profiles": [asdict(p) for p in profiles]}


def _row(profile: DeviceProfile) -> tuple[str, ...]:
    return (
        profile.name,
        profile.backend,
        profile.precision,
        str(profile.threads),
        str(profile.max_points),
        f"{profile.memory_limit_bytes // MIB} MiB",
        profile.title,
    )
