"""What this machine has, what is missing, and which extra brings it: data first, text for people second.

print(render_doctor(diagnose()))
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge_runtime.device_profile import DeviceProfile, MachineFacts, match_profile, read_machine_facts
from edge_runtime.package_probe import PackageState, Probe, probe_packages
from edge_runtime.profile_schema import SENSORS
from edge_runtime.readings import Readings
from edge_runtime.sensing.memory import cgroup_folders
from edge_runtime.sensing.small_files import parse_int, read_int, read_text, sorted_glob
from edge_runtime.sensors import SYSTEM_ROOT, DeviceSensors

Status = Literal["ok", "missing", "warning"]
MARKS: dict[Status, str] = {"ok": "ok", "missing": "--", "warning": "!!"}
SAMPLE_S = 0.3  # between two looks at the load
MIB, GIB = 1 << 20, 1 << 30
LITTLE_MEMORY_BYTES = 256 * MIB
ENGINES = {"onnxruntime": "camera", "executorch": "executorch"}
PACKAGES = {  # package -> (extra that brings it, what it is for)
    "psutil": ("camera", "load and memory where there is no /proc"),
    "click": ("camera", "the edge-runtime command"),
    "rich": ("camera", "tables and progress"),
    "jinja2": ("report", "reports"),
    "vl-convert-python": ("report", "charts in reports"),
    "platformdirs": ("report", "where measurements are kept"),
    "cryptography": ("sign", "signed bundles"),
    "onnx": ("convert", "building bundles"),
    "torch": ("train", "training and building bundles"),
}
NOTABLE_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "neon")
NO_THERMOMETER = "virtual machines and most containers have none; thermal limits then rest on `throttled`"
POWER_FOR_ROOT = "the processor's energy counter is there, for root only"
UNCOUNTED = "a load that comes is then known after its first late frame, not before it"
THROTTLED = "cool the device or give it a stronger power supply; it is slower than it could be"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    section: str
    name: str
    status: Status
    """missing: absent, which may be quite all right; warning: something that should be looked at."""
    detail: str
    hint: str = ""
    """What to do about it; empty if nothing."""


def diagnose(
    root: Path = SYSTEM_ROOT,
    *,
    facts: MachineFacts | None = None,
    environment: Mapping[str, str] = os.environ,
    probe: Probe = probe_packages,
    pause: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Look at everything; takes about a second, most of it for importing the engines in child processes.

    Args:
        root: holds proc/, sys/ and dev/.
        facts: of the machine; None reads them below root.
        environment: variables, for the display.
        probe: tells the state of packages.
        pause: waits between two looks at the load.
    """
    facts = facts or read_machine_facts(root)
    packages = probe([*ENGINES, "opencv", *PACKAGES])
    profile, reason = match_profile(facts)
    return [
        *_system(root, facts),
        *[_engine(name, extra, packages[name]) for name, extra in ENGINES.items()],
        *[_package(name, packages[name]) for name in PACKAGES],
        _opencv(packages["opencv"]),
        _display(facts.system, environment),
        *_cameras(root, facts.system),
        *_sensors(root, profile, pause),
        _profile(profile, reason, packages),
    ]


def findings_as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    """The findings as plain dictionaries."""
    return [asdict(finding) for finding in findings]


def render_doctor(findings: list[Finding]) -> str:
    """The findings as text: a block per section, a line per finding, hints below it, a count at the end."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section] if lines else [section]
        lines.append(f"  {MARKS[finding.status]}  {finding.name:<{width}}  {finding.detail}")
        if finding.hint:
            lines.append(f"      {'':<{width}}  -> {finding.hint}")
    count = Counter(finding.status for finding in findings)
    lines += ["", f"{count['ok']} ok, {count['missing']} missing, {count['warning']} to look at"]
    return "\n".join(lines)


def install_hint(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'edge-runtime[{extra}]'"


# ---- the machine


def _system(root: Path, facts: MachineFacts) -> list[Finding]:
    version = platform.python_version()
    old = sys.version_info < (3, 10)
    python = Finding(
        "System",
        "Python",
        "warning" if old else "ok",
        f"{version} ({platform.python_implementation()})",
        "edge-runtime needs 3.10 or newer" if old else "",
    )
    name = f"{facts.system} on {facts.architecture}" + (f", {facts.model}" if facts.model else "")
    return [python, Finding("System", "machine", "ok", name), _processor(root, facts), _memory(root)]


def _processor(root: Path, facts: MachineFacts) -> Finding:
    features = [feature for feature in NOTABLE_FEATURES if feature in facts.cpu_features]
    parts = [facts.cpu_model or "unknown processor", f"{facts.cores} cores" if facts.cores else "", " ".join(features)]
    detail = ", ".join(part for part in parts if part)
    quota = _cpu_quota(root)
    if quota is not None and (facts.cores is None or quota < facts.cores):
        return Finding("System", "processor", "warning", f"{detail}; this control group may use {quota:g} of them", "")
    return Finding("System", "processor", "ok", detail)


def _cpu_quota(root: Path) -> float | None:
    """Cores that the control groups allow, or None without a limit."""
    quotas = []
    for folder, version in cgroup_folders(root, "cpu"):
        if version == 2:
            allowed, period = [parse_int(word) for word in (*(read_text(folder / "cpu.max") or "").split(), "", "")[:2]]
        else:
            allowed, period = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
        if allowed is not None and period is not None and allowed > 0 and period > 0:
            quotas.append(allowed / period)
    return min(quotas, default=None)


def _memory(root: Path) -> Finding:
    readings = DeviceSensors(root).read(0.0)
    limit, room = readings.memory_limit_bytes, readings.memory_available_bytes
    if limit is None:
        return Finding("System", "memory", "missing", "the system does not tell", "")
    detail = f"{_size(limit)}, of which {_size(room)} free" if room is not None else _size(limit)
    source = readings.sources["memory_limit_bytes"]
    if "cgroup" in source:
        detail += f" (limit of {source})"
    if room is not None and room < LITTLE_MEMORY_BYTES:
        return Finding("System", "memory", "warning", detail, "little room: choose a bundle with fewer points")
    return Finding("System", "memory", "ok", detail)


# ---- packages


def _engine(name: str, extra: str, state: PackageState) -> Finding:
    return _installed("Engines", name, extra, state, "")


def _package(name: str, state: PackageState) -> Finding:
    extra, purpose = PACKAGES[name]
    return _installed("Packages", name, extra, state, purpose)


def _installed(section: str, name: str, extra: str, state: PackageState, purpose: str) -> Finding:
    if state.version is None:
        detail = f"not installed; for {purpose}" if purpose else "not installed"
        return Finding(section, name, "missing", detail, install_hint(extra))
    if state.failure:
        detail = f"{state.version} is installed but cannot be imported: {state.failure}"
        return Finding(section, name, "warning", detail, f"pip install --force-reinstall {name}")
    return Finding(section, name, "ok", state.version)


def _opencv(state: PackageState) -> Finding:
    if state.version is None or state.failure:
        finding = _installed("Pictures", "opencv", "camera", state, "cameras, video files and windows")
        hint = finding.hint.replace("--force-reinstall opencv", "--force-reinstall opencv-python")
        return Finding(finding.section, finding.name, finding.status, finding.detail, hint)
    if state.note.upper() in ("", "NONE"):
        detail = f"{state.version}, built without windows; pictures and video can be saved"
        return Finding(
            "Pictures", "opencv", "warning", detail, "pip install opencv-python instead of the headless build"
        )
    return Finding("Pictures", "opencv", "ok", f"{state.version}, windows by {state.note}")


# ---- display and cameras


def _display(system: str, environment: Mapping[str, str]) -> Finding:
    if system in ("darwin", "windows"):
        return Finding("Pictures", "display", "ok", f"{system} has one")
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if environment.get(variable):
            return Finding("Pictures", "display", "ok", f"{variable}={environment[variable]}")
    hint = "runs go on without a window; save with --save, or log in with `ssh -X`"
    return Finding("Pictures", "display", "missing", "neither DISPLAY nor WAYLAND_DISPLAY is set", hint)


def _cameras(root: Path, system: str) -> list[Finding]:
    if system not in ("linux", "android"):
        return [Finding("Pictures", "cameras", "missing", f"{system} lists none here", "try --source 0")]
    devices = sorted_glob(root / "dev", "video[0-9]*")
    if not devices:
        hint = "--source also takes a file, a folder of pictures, rtsp:// or http:// addresses, and demo"
        return [Finding("Pictures", "cameras", "missing", "no /dev/video*", hint)]
    return [_camera(root, device) for device in devices]


def _camera(root: Path, device: Path) -> Finding:
    name = read_text(root / "sys/class/video4linux" / device.name / "name") or "unnamed"
    if not os.access(device, os.R_OK | os.W_OK):
        hint = "sudo usermod -aG video $USER, then log in again"
        return Finding("Pictures", f"/dev/{device.name}", "warning", f"{name}, but you may not open it", hint)
    return Finding("Pictures", f"/dev/{device.name}", "ok", name)


# ---- sensors and profile


def _sensors(root: Path, profile: DeviceProfile, pause: Callable[[float], None]) -> list[Finding]:
    sensors = DeviceSensors(root, temperature_zones=profile.temperature_zones)
    sensors.read(0.0)
    pause(SAMPLE_S)
    readings = sensors.read(SAMPLE_S)
    return [*(_sensor(name, readings, root) for name in SENSORS), _crowding(sensors.crowding(threads=1))]


def _crowding(found: float | None) -> Finding:
    """The count of tasks, which the controller asks for before each frame."""
    if found is None:
        return Finding("Sensors", "crowding", "missing", "not available here", UNCOUNTED)
    return Finding("Sensors", "crowding", "ok", f"{found:.2f} tasks for each core  from /proc/loadavg")


def _sensor(name: str, readings: Readings, root: Path) -> Finding:
    if name not in readings.sources:
        hint = NO_THERMOMETER if name == "temperature_c" else ""
        if name == "power_w" and _exists_unreadable(root / "sys/class/powercap/intel-rapl:0/energy_uj"):
            hint = POWER_FOR_ROOT
        return Finding("Sensors", name, "missing", "not available here", hint)
    value = getattr(readings, name)
    detail = f"{_reading(name, value)}  from {readings.sources[name]}"
    if name == "throttled" and value:
        return Finding("Sensors", name, "warning", detail, THROTTLED)
    return Finding("Sensors", name, "ok", detail)


def _exists_unreadable(path: Path) -> bool:
    return path.exists() and read_int(path) is None


def _profile(profile: DeviceProfile, reason: str, packages: Mapping[str, PackageState]) -> Finding:
    detail = f"{profile.name} ({profile.title}): {reason}"
    state = packages.get(profile.backend)
    if state is None or state.version is None:
        hint = f"it prefers {profile.backend}: {install_hint(ENGINES[profile.backend])}"
        return Finding("Device profile", "best match", "warning", detail, hint)
    return Finding("Device profile", "best match", "ok", detail)


def _reading(name: str, value: Any) -> str:
    """A reading with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"{min(value):.0f} to {max(value):.0f} MHz on {len(value)} cores"
    if name.endswith("_c"):
        return f"{value:.1f} °C"
    if name.endswith("_w"):
        return f"{value:.2f} W"
    return _size(value) if name.endswith("_bytes") else f"{100.0 * value:.0f} %"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
