"""Write a bundle into a temporary folder and move it into place when it is whole."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from converters.errors import ConversionError
from edge_runtime.bundle import Bundle
from edge_runtime.bundle_files import MANIFEST, file_facts
from edge_runtime.manifest import Manifest
from edge_runtime.packed_file import ENDING, pack


class BundleWriter:
    """A bundle in the making. Used as a context manager: without `finish` nothing is left behind."""

    def __init__(self, target: Path, overwrite: bool = False) -> None:
        if target.suffix != ".bundle":
            raise ConversionError(f"{target}: the name of a bundle ends in .bundle")
        if target.exists() and not overwrite:
            raise ConversionError(f"{target}: already exists; choose another name or give --force")
        self.target = target
        self.root = target.with_name(target.name + ".part")

    def __enter__(self) -> BundleWriter:
        shutil.rmtree(self.root, ignore_errors=True)
        try:
            self.root.mkdir(parents=True)
        except OSError as error:
            raise ConversionError(f"{self.root}: cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        if isinstance(error, OSError):
            raise ConversionError(f"{self.target}: cannot be written: {error.strerror}; nothing was left") from error

    def write(self, name: str, content: bytes) -> str:
        """Add a file, packed when its name ends in .z; returns its name."""
        content = pack(content) if name.endswith(ENDING) else content
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def write_json(self, name: str, values: Any) -> str:
        """Add a JSON file; packed, when its name ends in .z."""
        return self.write(name, (json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n").encode())

    def write_npz(self, name: str, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> str:
        """Add arrays; equal arrays give equal bytes."""
        buffer = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
        return self.write(name, buffer.getvalue())

    def read(self, name: str) -> bytes:
        """A file as it stands in the folder: packed, if it is."""
        return (self.root / name).read_bytes()

    def remove(self, name: str) -> None:
        """Take a file out again."""
        (self.root / name).unlink()

    def open(self, manifest: Manifest) -> Bundle:
        """Write the manifest with the hashes of all files so far, and load the bundle as a device would."""
        complete = dataclasses.replace(manifest, files=file_facts(self.root))
        text = json.dumps(_values(complete), indent=1, allow_nan=False)
        (self.root / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return Bundle.load(self.root)

    def finish(self, manifest: Manifest) -> Path:
        """Write the final manifest and move the bundle into place."""
        self.open(manifest)
        old = self.target.with_name(self.target.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.target.exists():
            os.replace(self.target, old)  # kept until the new one is in place: a crash in between loses neither
        os.replace(self.root, self.target)
        shutil.rmtree(old, ignore_errors=True)
        return self.target


def _values(manifest: Manifest) -> dict[str, Any]:
    """As plain values; without clips or boxes also without their fields, which older readers do not know."""
    values = dataclasses.asdict(manifest)
    for key, of_points in (("clip", "frames"), ("boxes", "anchors")):
        if values[key] is None:
            del values[key]
            for point in values["points"]:
                del point[of_points]
    return values
