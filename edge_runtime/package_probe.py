"""Which optional packages are here, of which version, and whether those with machine code can be imported.

The import runs in a child process: a broken package may end the process that imports it, and a doctor must live.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

IMPORT_TIMEOUT_S = 60.0
MAX_REASON_LETTERS = 200
DONE = "edge-runtime-probe:"

IMPORTS = {  # package -> what the child runs; the rest is pure Python, or too heavy to import for a look (torch)
    "onnxruntime": "import onnxruntime; note = ''",
    "executorch": "import executorch.extension.pybindings._C; note = ''",  # the engine; its front door loads torch
    "opencv": (
        "import cv2; lines = cv2.getBuildInformation().splitlines();"
        "note = next((line.split(':', 1)[1].strip() for line in lines if line.strip().startswith('GUI:')), '')"
    ),
    "psutil": "import psutil; note = ''",
    "cryptography": "from cryptography.hazmat.primitives.asymmetric import ed25519; note = ''",
}
DISTRIBUTIONS = {"opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python")}


@dataclass(frozen=True)
class PackageState:
    """What was found of one package."""

    version: str | None
    """None: not installed."""
    failure: str = ""
    """Why it cannot be imported; empty if it can, or was not tried."""
    note: str = ""
    """For opencv: its window system, such as QT5, or NONE."""


Probe = Callable[[list[str]], Mapping[str, PackageState]]


def probe_packages(names: list[str]) -> dict[str, PackageState]:
    """Look at packages, the imports side by side.

    Args:
        names: names on the package index, and "opencv" for any of its builds.
    """
    versions = {name: _installed_version(name) for name in names}
    children = {name: _start(IMPORTS[name]) for name in names if versions[name] is not None and name in IMPORTS}
    states = {name: PackageState(version) for name, version in versions.items()}
    for name, child in children.items():
        failure, note = _finish(child)
        states[name] = PackageState(versions[name], failure, note)
    return states


def _installed_version(name: str) -> str | None:
    from importlib import metadata

    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('{DONE}' + note)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _finish(child: subprocess.Popen[str]) -> tuple[str, str]:
    """(why the import failed, or empty; note)."""
    try:
        output, complaint = child.communicate(timeout=IMPORT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"the import did not end within {IMPORT_TIMEOUT_S:g} s", ""
    done = [line for line in output.splitlines() if line.startswith(DONE)]
    if child.returncode == 0 and done:
        return "", done[-1].removeprefix(DONE)
    lines = complaint.strip().splitlines() or [f"the import ended the process ({child.returncode})"]
    return lines[-1][:MAX_REASON_LETTERS], ""
