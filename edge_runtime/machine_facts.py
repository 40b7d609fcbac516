"""What kind of machine this is: system, processor, board, memory, battery; read once, from a root that can be set."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.sensing.battery import Battery
from edge_runtime.sensing.memory import Memory
from edge_runtime.sensing.small_files import read_text

SYSTEM_ROOT = Path("/")
ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}
MODEL_FILES = (  # board names of device trees, then product names of PC firmware
    "proc/device-tree/model",
    "sys/firmware/devicetree/base/model",
    "sys/class/dmi/id/product_name",
)
ANDROID_PROPERTIES = ("system/build.prop", "vendor/build.prop", "product/etc/build.prop")
ANDROID_MODEL_KEYS = (
    "ro.product.model",
    "ro.product.product.model",
    "ro.product.vendor.model",
    "ro.product.system.model",
)
ARM_PARTS = {  # "CPU part" of /proc/cpuinfo for implementer 0x41; Linux arch/arm64/include/asm/cputype.h
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
}


@dataclass(frozen=True)
class MachineFacts:
    """Facts by which a device profile is chosen; None or empty is unknown."""

    system: str
    """linux, android, darwin, ios, windows, or what the platform calls itself."""
    architecture: str
    """x86_64, aarch64, armv7l, or what the platform calls itself."""
    model: str = ""
    """Board, phone or product name."""
    cpu_model: str = ""
    cores: int | None = None
    cpu_features: frozenset[str] = frozenset()
    """Words of /proc/cpuinfo: flags on x86, Features on Arm."""
    memory_bytes: int | None = None
    """The machine's, or the control group's limit if that is lower."""
    has_battery: bool | None = None
    """None where the system does not tell."""


def read_machine_facts(
    root: Path = SYSTEM_ROOT, system: str | None = None, architecture: str | None = None
) -> MachineFacts:
    """Read the facts. Never raises.

    Args:
        root: holds proc/ and sys/.
        system, architecture: to say for an emulated machine; None asks this interpreter.
    """
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    system = system or _system(root)
    return MachineFacts(
        system=system,
        architecture=_architecture(architecture or platform.machine()),
        model=_android_model(root) if system == "android" else _model(root),
        cpu_model=_cpu_model(cpuinfo),
        cores=_cores(root),
        cpu_features=_cpu_features(cpuinfo),
        memory_bytes=_memory_bytes(root),
        has_battery=_has_battery(root),
    )


def _system(root: Path) -> str:
    if sys.platform in ("android", "ios"):
        return sys.platform
    if any(read_text(root / name) is not None for name in ANDROID_PROPERTIES):
        return "android"
    return platform.system().lower()


def _architecture(machine: str) -> str:
    return ARCHITECTURES.get(machine.lower(), machine.lower())


def _model(root: Path) -> str:
    return next((text for text in (read_text(root / name) for name in MODEL_FILES) if text), "")


def _android_model(root: Path) -> str:
    for name in ANDROID_PROPERTIES:
        for line in (read_text(root / name) or "").splitlines():
            key, _, value = line.partition("=")
            if key.strip() in ANDROID_MODEL_KEYS and value.strip():
                return value.strip()
    return _model(root)


def _cpuinfo_values(cpuinfo: str, key: str) -> list[str]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _cpu_model(cpuinfo: str) -> str:
    """The processor's name; on Arm the names of its kinds of core, as in "4 x Cortex-A76"."""
    named = [name for name in _cpuinfo_values(cpuinfo, "model name") if name]
    parts = _cpuinfo_values(cpuinfo, "CPU part")
    if named and not parts:
        return named[0]
    kinds: dict[str, int] = {}
    for part in parts:
        kind = ARM_PARTS.get(part.lower(), f"Arm part {part}")
        kinds[kind] = kinds.get(kind, 0) + 1
    return " + ".join(f"{count} x {kind}" for kind, count in kinds.items()) or next(iter(named), platform.processor())


def _cpu_features(cpuinfo: str) -> frozenset[str]:
    """Features that every listed core has."""
    sets = [set(line.split()) for key in ("flags", "Features") for line in _cpuinfo_values(cpuinfo, key)]
    return frozenset(set.intersection(*sets)) if sets else frozenset()


def _cores(root: Path) -> int | None:
    """From the list of online cores, such as "0-3,6"."""
    total = 0
    for part in (read_text(root / "sys/devices/system/cpu/online") or "").split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or len(part) > 20:
            return os.cpu_count() if root == SYSTEM_ROOT else None
        total += int(last or first) - int(first) + 1
    return total if total > 0 else None


def _memory_bytes(root: Path) -> int | None:
    known = Memory(root).read()[1]
    if known is not None or root != SYSTEM_ROOT:
        return known
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS has these and no /proc
    except (AttributeError, OSError, ValueError):
        return None


def _has_battery(root: Path) -> bool | None:
    folder = root / "sys/class/power_supply"
    try:
        if not folder.is_dir():
            return None
    except OSError:
        return None
    return Battery(root).source != ""
