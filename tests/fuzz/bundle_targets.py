"""What is fuzzed of a bundle: any bytes give a value or a BundleError, and no file outside the folder is opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_files import unzip_bundle
from edge_runtime.errors import BundleError
from edge_runtime.packed_file import pack, unpack
from edge_runtime.safe_npz import read_npz
from edge_runtime.tensor_recipe import build_tensors, read_recipe

WEIGHTS = {"w": np.ones((4, 3), np.float32), "g": np.ones(4, np.float32), "q": np.ones((4, 3), np.int8)}
TABLES = {
    "p/scale": np.ones(4, np.float32), "p/shift": np.ones(4, np.float32), "p/activation_scale": np.ones(2, np.float32),
    "s/mean": np.zeros((1, 1, 4), np.uint8), "s/deviation": np.zeros((1, 1, 4), np.uint8),
}  # fmt: skip
_watched: list[Path] = []
_strays: list[str] = []
_hooked: list[bool] = []


class StrayReadError(AssertionError):
    """A file outside the folder was opened."""


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: it cannot be removed, so it does nothing unless a folder is watched."""
    if not _watched or event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], str | bytes):
        return
    path = os.path.realpath(os.fsdecode(arguments[0]))
    inside = os.path.realpath(_watched[0])
    # modules that are imported while reading are the interpreter's own files
    if not path.startswith(inside + os.sep) and path != inside and not path.endswith((".py", ".pyc", ".so")):
        _strays.append(path)


@contextlib.contextmanager
def only_inside(folder: Path) -> Iterator[None]:
    """Fail when a file outside the folder is opened meanwhile."""
    if not _hooked:
        sys.addaudithook(_on_event)
        _hooked.append(True)
    _strays.clear()
    _watched.append(folder)
    try:
        yield
    finally:
        _watched.clear()
    if _strays:
        raise StrayReadError(f"opened outside {folder}: {_strays[:3]}")


def recipe(content: bytes, folder: Path) -> None:
    """A recipe, and the tensors that it makes."""
    found = build_tensors(read_recipe(content, "recipe"), WEIGHTS, TABLES, "p")
    assert all(isinstance(array, np.ndarray) for array in found.values())


def arrays(content: bytes, folder: Path) -> None:
    """An npz file."""
    assert all(not array.flags.writeable for array in read_npz(content, "arrays").values())


def packed(content: bytes, folder: Path) -> None:
    """A packed file, and one that was packed well but holds anything."""
    assert unpack("a.z", pack(content), "file") == content
    unpack("a.z", content, "file")


def manifest(content: bytes, folder: Path) -> None:
    """A folder with this manifest: every file that it lists or uses is asked for."""
    (folder / "manifest.json").write_bytes(content)
    with only_inside(folder):
        bundle = Bundle.load(folder)
        for name in (*bundle.manifest.files, *bundle.manifest.used_files):
            bundle.content(name)
        bundle.weights, bundle.tables, bundle.vectors  # noqa: B018


def archive(content: bytes, folder: Path) -> None:
    """A transport zip; what it leaves lies in its target."""
    (folder / "in.zip").write_bytes(content)
    try:
        unzip_bundle(folder / "in.zip", folder / "out.bundle")
    finally:
        assert {p.name for p in folder.iterdir()} <= {"in.zip", "out.bundle", "manifest.json", "weights.npz"}


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "recipe": recipe, "arrays": arrays, "packed": packed, "manifest": manifest, "archive": archive,
}  # fmt: skip


def run(target: str, content: bytes, folder: Path) -> bool:
    """One case; False when it was refused as it should be.

    Raises:
        anything but a BundleError: a fault of ours.
    """
    try:
        TARGETS[target](content, folder)
    except BundleError:
        return False
    return True


def seeds() -> dict[str, list[bytes]]:
    """Good inputs to start from, for each target."""
    good_recipe = {
        "version": 2,
        "norms": {
            "group": "s", "rows": ["p"], "mean_step": 0.03125, "deviation_step": 0.03125,
            "layers": [{"gamma": "g", "beta": "g", "channels": 4}],
        },
        "tensors": [
            {"name": "a", "shape": [2, 3], "source": "w", "scale_at": 1},
            {"name": "b", "shape": [3], "vector": "shift", "vector_at": 1},
        ],
        "scales": [{"name": "c", "source": "g", "channels": 3, "scale_at": 0, "input_at": 1}],
        "biases": [{"value": {"name": "d", "shape": [3], "vector": "shift"}, "scale": "c"}],
    }  # fmt: skip
    found: dict[str, list[bytes]] = {name: [] for name in TARGETS}
    found["recipe"].append(json.dumps(good_recipe).encode())
    found["packed"].append(pack(b"content " * 9))
    found["manifest"].append(json.dumps(good_manifest(b"")).encode())
    return found


def good_manifest(weights: bytes) -> dict[str, Any]:
    """A manifest of a bundle whose one file is weights.npz."""
    return {
        "schema_version": 2, "name": "tiny", "task": "classification", "labels": ["cup", "dog"],
        "preprocessing": {"mean": [127.5, 127.5, 127.5], "std": [64.0, 64.0, 64.0]},
        "programs": [{"name": "n", "backend": "null", "precision": "fp32", "file": "weights.npz"}],
        "points": [{"name": "p", "program": "n", "width": 0.5, "size_hw": [16, 16], "madds": 9,
                    "accuracy": {"select": 0.5}}],
        "weights": "weights.npz",
        "files": {"weights.npz": {"sha256": hashlib.sha256(weights).hexdigest(), "size_bytes": len(weights)}},
    }  # fmt: skip
