"""Which engines, precisions and threads a bundle is built for: from a device profile, the command line, or both."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ConversionError
from edge_runtime.device_profile import DeviceProfile, load_profile, match_profile, read_machine_facts

BACKENDS = ("onnxruntime", "executorch")
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class BuildChoices:
    """What to build."""

    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int
    reduce_range: bool
    max_points: int | None
    """Of each engine; None for no limit."""
    drop_dominated: bool


def choose(
    profile_name: str | None,
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    reduce_range: bool | None = None,
    max_points: int | None = None,
    drop_dominated: bool | None = None,
) -> BuildChoices:
    """What the command line says goes before what the profile says; the profile before the defaults.

    A profile's int8 comes with fp32 beside it: points whose int8 loses too much need it. Which points dominate which
    is measured on this machine, so a profile makes dominated points leave only where it is this machine's.

    Raises:
        ConversionError: an unknown or absent engine, or an unknown precision.
        ProfileError: there is no such profile.
    """
    profile = None if profile_name is None else load_profile(profile_name)
    wanted = "fp32" if profile is None else "fp32,int8" if profile.precision == "int8" else profile.precision
    backends = _listed("--backend", backend or ("onnxruntime" if profile is None else profile.backend), BACKENDS)
    for name in backends:
        if importlib.util.find_spec(name) is None:
            whose = f"device profile {profile.name!r} asks for" if profile and backend is None else "--backend names"
            raise ConversionError(f"{whose} {name}, which is not installed: pip install 'edge-runtime[convert]'")
    if threads is None:
        threads = 1 if profile is None else min(profile.threads, os.cpu_count() or 1)
    if reduce_range is None:
        reduce_range = needs_reduced_range() if profile is None else _profile_reduces(profile)
    if max_points is None and profile is not None:
        max_points = profile.max_points
    if drop_dominated is None:
        drop_dominated = profile is not None and match_profile(read_machine_facts())[0].name == profile.name
    precisions = _listed("--precision", precision or wanted, PRECISIONS)
    return BuildChoices(backends, precisions, threads, reduce_range, max_points, drop_dominated)


def needs_reduced_range() -> bool:
    """x86 without VNNI adds products of uint8 and int8 in 16 bits, which saturate."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx2" in flags and "vnni" not in flags


def _profile_reduces(profile: DeviceProfile) -> bool:
    """The profile's processors may be x86 without VNNI."""
    return "x86_64" in profile.match.architectures and not any("vnni" in f for f in profile.match.cpu_features)


def _listed(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.split(",")))
    if not set(found) <= set(known):
        raise ConversionError(f"{option} is {text!r}, expected {' or '.join(known)}, or {','.join(known)}")
    return found
