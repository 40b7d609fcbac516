"""Tiny bundles for tests: a manifest for the null backend, some files, and the hashes of what was written."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {0.25: 0.5, 0.5: 0.6, 1.0: 0.7}
"""Width -> accuracy on select of its points; the larger input adds a little."""
SIZES = (16, 32)
LABELS = ("cup", "dog", "tree")


def point_values(width: float, size: int) -> dict[str, Any]:
    """One operating point of the tiny bundle."""
    return {
        "name": f"w{width:.2f}-r{size:03d}", "program": "null-fp32", "width": width, "size_hw": [size, size],
        "madds": int(1e6 * width * width * size), "accuracy": {"select": WIDTHS[width] + size / 1000},
        "latency_ms": 4.0 * width * size / 32,
    }  # fmt: skip


def manifest_values(**changes: Any) -> dict[str, Any]:
    """A good manifest without its `files`, with some keys replaced."""
    values: dict[str, Any] = {
        "schema_version": 1, "name": "tiny", "task": "classification", "labels": list(LABELS),
        "preprocessing": {"mean": [127.5, 127.5, 127.5], "std": [64.0, 64.0, 64.0]},
        "programs": [{"name": "null-fp32", "backend": "null", "precision": "fp32", "file": "programs/null.bin"}],
        "points": [point_values(width, size) for width in WIDTHS for size in SIZES],
        "channel_rule": {"rule": "make_divisible", "divisor": 8, "width_min": 0.25, "width_max": 1.0},
        "weights": "weights.npz",
    }  # fmt: skip
    values.update(copy.deepcopy(changes))
    return values


DETECTOR_POINTS = ((0.25, 16, 20), (0.5, 32, 80), (1.0, 32, 80))
"""Width, side of the input and rows of the output of the tiny detector's points."""


def detector_values(**changes: Any) -> dict[str, Any]:
    """A good manifest of a detector without its `files`, with some keys replaced."""
    points = [
        {**point_values(width, side), "anchors": anchors, "unsure_below": 0.3}
        for width, side, anchors in DETECTOR_POINTS
    ]
    return manifest_values(**{"schema_version": 3, "task": "detection", "boxes": {}, "points": points, **changes})


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """An uncompressed npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def default_files() -> dict[str, bytes]:
    """What the good manifest refers to."""
    return {"programs/null.bin": b"nothing to run", "weights.npz": npz_bytes(stem=np.arange(6, dtype=np.float32))}


def write_bundle(
    root: Path, values: Mapping[str, Any] | str | None = None, files: Mapping[str, bytes] | None = None
) -> Path:
    """Write a bundle folder.

    Args:
        root: the folder; it is made.
        values: manifest; `files` is added unless it is there. Text is written as it is.
        files: contents; the default ones when None.
    """
    contents = default_files() if files is None else files
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    root.mkdir(parents=True, exist_ok=True)
    if not isinstance(values, str):
        complete = dict(manifest_values() if values is None else values)
        complete.setdefault("files", file_values(contents))
        values = json.dumps(complete)
    (root / "manifest.json").write_text(values, encoding="utf-8")
    return root


def file_values(contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The manifest's `files` for these contents."""
    return {n: {"sha256": hashlib.sha256(c).hexdigest(), "size_bytes": len(c)} for n, c in contents.items()}


def everything_under(folder: Path) -> set[str]:
    """Names of all files, folders and links, to see that nothing was left behind."""
    return {os.path.relpath(os.path.join(at, n), folder) for at, d, f in os.walk(folder) for n in (*d, *f)}
