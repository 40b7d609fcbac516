"""Where results are kept: the user's data folder, and beside the bundle or where the user says."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result import save_result
from edge_runtime.profiling.result_records import Environment, ProfileResult

APPLICATION = "edge-runtime"
FOLDER_VARIABLE = "EDGE_RUNTIME_DATA"
"""Environment variable that names another data folder, for tests and for continuous integration."""
MAX_CANDIDATES = 6
"""Only the newest files of a folder are looked at."""


def data_folder() -> Path:
    """The user's data folder of this application; platformdirs knows it, else the systems' usual places."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    try:
        import platformdirs
    except ImportError:
        return _usual_folder() / APPLICATION
    return Path(platformdirs.user_data_dir(APPLICATION, appauthor=False))


def result_folder(bundle_name: str, manifest_sha256: str) -> Path:
    """Where the results of one bundle are kept."""
    return data_folder() / "profiles" / f"{bundle_name}-{manifest_sha256[:12]}"


def path_beside(bundle_root: Path, environment: Environment) -> Path:
    """The file beside the bundle for this kind of device; a newer result replaces it."""
    root = bundle_root.absolute()
    return root.with_name(f"{root.name.removesuffix('.bundle')}.{device_slug(environment)}.profile.json")


def device_slug(environment: Environment) -> str:
    """A file name's part that tells devices apart: board or processor, and cores."""
    words = re.sub(r"[^a-z0-9]+", "-", (environment.model or environment.cpu_model or "device").lower()).strip("-")
    return f"{words[:40].strip('-') or 'device'}-{environment.cores or 'unknown'}-cores"


def keep_result(
    result: ProfileResult, bundle_root: Path, out: Path | None, warn: Callable[[str], None]
) -> list[Path]:  # fmt: skip
    """Write the result to the user's data folder, and to `out` or beside the bundle.

    Args:
        result: to write.
        bundle_root: the bundle's folder.
        out: folder, or a file that ends in .json; None is beside the bundle, silently left out where that is read-only.
        warn: gets a sentence for a place that could not be written while another could.
    Returns:
        the files that were written, the user's data folder first.
    Raises:
        ResultError: nothing could be written.
    """
    stamp = result.created.replace(":", "-")
    kept = result_folder(result.bundle.name, result.bundle.manifest_sha256) / f"{stamp}-{result.mode}.json"
    second = path_beside(bundle_root, result.environment)
    if out is not None:
        second = out if out.suffix == ".json" else out / f"{result.bundle.name}-{stamp}-{result.mode}.json"
    written, failures = [], []
    for path, wanted in ((kept, True), (second, out is not None)):
        try:
            written.append(save_result(result, path))
        except ResultError as error:
            failures += [error] if wanted else []
    if not written:
        raise failures[0]
    for failure in failures:
        warn(str(failure))
    return written


def candidates(bundle_root: Path, bundle_name: str, manifest_sha256: str) -> list[Path]:
    """Results that may fit a bundle, newest file first; those of other states of the bundle are among them."""
    root = bundle_root.absolute()
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += root.parent.glob(f"{_escaped(root.name.removesuffix('.bundle'))}.*.profile.json")
    with contextlib.suppress(OSError):
        found += (data_folder() / "profiles").glob(f"{_escaped(bundle_name)}-{'?' * 12}/*.json")
    own = result_folder(bundle_name, manifest_sha256)
    dated = [(path.parent == own, _modified_s(path), path) for path in found]
    return [path for _, _, path in sorted(dated, reverse=True)[:MAX_CANDIDATES]]


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _usual_folder() -> Path:
    home = Path(os.path.expanduser("~"))  # Path.home() raises where there is none
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
