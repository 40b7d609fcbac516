"""What a result says of the device and the bundle, and by what the runtime recognises them again."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_files import MANIFEST
from edge_runtime.errors import BundleError
from edge_runtime.machine_facts import SYSTEM_ROOT, MachineFacts, read_machine_facts
from edge_runtime.profiling.result_records import BundleFacts, Environment
from edge_runtime.readings import Readings
from edge_runtime.sensing.small_files import read_int, read_text, sorted_glob

ENGINE_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "executorch": ("executorch",),
    "null": ("edge-runtime",),
}
"""Backend -> names under which its engine may be installed."""


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """Name, size and hash."""
    manifest = bundle.manifest
    size_bytes = sum(fact.size_bytes for fact in manifest.files.values())
    return BundleFacts(
        manifest.name, manifest.task, len(manifest.labels), size_bytes, manifest_sha256(bundle), dict(manifest.splits)
    )


def manifest_sha256(bundle: Bundle) -> str:
    """Of manifest.json as it lies on disk.

    Raises:
        BundleError: it cannot be read any more.
    """
    try:
        return hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{bundle.root / MANIFEST}: cannot be read: {error.strerror}") from error


def engine_version(backend: str) -> str:
    """Of the installed engine; empty when unknown."""
    found = (_package_version(package) for package in ENGINE_PACKAGES.get(backend, ()))
    return next((text for text in found if text), "")


def read_environment(
    device_profile: str, backends: Iterable[str], readings: Readings, root: Path = SYSTEM_ROOT
) -> Environment:
    """The device now.

    Args:
        device_profile: name of the profile in use.
        backends: whose engines' versions to note.
        readings: taken before the first run.
        root: holds proc/ and sys/.
    """
    facts = read_machine_facts(root)
    versions = {package: _package_version(package) for package in ("edge-runtime", "numpy")}
    versions.update({backend: engine_version(backend) for backend in backends})
    return Environment(
        system=facts.system,
        system_release=platform.release(),
        architecture=facts.architecture,
        device_profile=device_profile,
        model=facts.model,
        cpu_model=facts.cpu_model,
        cores=facts.cores,
        usable_cores=usable_cores(),
        memory_bytes=facts.memory_bytes,
        governor=_governor(root),
        max_frequency_mhz=_max_frequency_mhz(root),
        on_battery=readings.on_battery,
        battery_share=readings.battery_share,
        temperature_start_c=readings.temperature_c,
        virtual_machine=_virtual_machine(facts),
        python=platform.python_version(),
        versions={name: found for name, found in versions.items() if found},
    )


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _governor(root: Path) -> str | None:
    files = sorted_glob(root / "sys/devices/system/cpu/cpufreq", "policy*")
    found = [text for text in (read_text(policy / "scaling_governor") for policy in files) if text]
    return ", ".join(dict.fromkeys(found)) or None


def _max_frequency_mhz(root: Path) -> float | None:
    files = sorted_glob(root / "sys/devices/system/cpu/cpufreq", "policy*")
    found = [khz for khz in (read_int(policy / "cpuinfo_max_freq") for policy in files) if khz is not None and khz > 0]
    return max(found) / 1000.0 if found else None


def _virtual_machine(facts: MachineFacts) -> bool | None:
    """x86 processors show the hypervisor's flag; others do not tell."""
    return "hypervisor" in facts.cpu_features if facts.cpu_features and facts.architecture == "x86_64" else None
