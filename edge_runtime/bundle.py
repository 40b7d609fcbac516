"""A bundle: the folder that a device loads. Nothing in it is trusted before it is checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edge_runtime.bundle_files import MANIFEST, read_verified, require_listed
from edge_runtime.errors import BundleError
from edge_runtime.manifest import READABLE_VERSIONS, SCHEMA_VERSION, Manifest, OperatingPoint, Program
from edge_runtime.packed_file import unpack
from edge_runtime.preprocess import TensorSpec
from edge_runtime.records import RecordError, read_record
from edge_runtime.safe_npz import read_npz

MAX_MANIFEST_BYTES = 16 << 20
DEFAULT_BUNDLE = "everyday-20.bundle"


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. The manifest is read at once; every other file is verified when it is read."""

    root: Path
    manifest: Manifest

    @staticmethod
    def load(path: str | Path, *, verify: bool = True) -> Bundle:
        """Open a bundle folder.

        Args:
            path: the folder NAME.bundle.
            verify: check the hash of every file now; each file is checked again when it is read.
        Raises:
            BundleError: missing, altered, hostile, or of an unknown schema version.
        """
        root = Path(path)
        manifest = _read_manifest(root)
        bundle = Bundle(root, manifest)
        for name in manifest.used_files:
            require_listed(root, name, manifest.files)
        if verify:
            for name in manifest.files:
                bundle.read(name)
        return bundle

    def read(self, name: str) -> bytes:
        """The verified content of one file, as it is stored."""
        return read_verified(self.root, name, self.manifest.files)

    def content(self, name: str) -> bytes:
        """The verified content of one file; unpacked, when its name ends in .z."""
        return unpack(name, self.read(name), f"{self.root}: {name!r}")

    def release(self) -> None:
        """Forget what was read of the weights and tables; they are read and verified again when they are used."""
        for name in ("weights", "tables"):
            self.__dict__.pop(name, None)

    @cached_property
    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The full network's tensors; arrays are read-only."""
        return {} if self.manifest.weights is None else self._npz(self.manifest.weights)

    @cached_property
    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """What makes a point of a width: arrays of its normalisation and of its activations' ranges."""
        return {} if self.manifest.tables is None else self._npz(self.manifest.tables)

    @cached_property
    def vectors(self) -> dict[str, npt.NDArray[Any]]:
        """The self-test's inputs and outputs; empty when the bundle has none."""
        return {} if self.manifest.vectors is None else self._npz(self.manifest.vectors.file)

    @cached_property
    def spec(self) -> TensorSpec:
        """What preprocessing needs."""
        return TensorSpec.from_facts(self.manifest.preprocessing)

    def program(self, point: OperatingPoint) -> Program:
        """The program of a point."""
        return next(p for p in self.manifest.programs if p.name == point.program)

    def point(self, name: str) -> OperatingPoint:
        """The point of that name.

        Raises:
            BundleError: there is none.
        """
        for point in self.manifest.points:
            if point.name == name:
                return point
        known = ", ".join(p.name for p in self.manifest.points)
        raise BundleError(f"{self.root}: no operating point {name!r}; the bundle has {known}")

    def points_for(self, backend: str, precision: str | None = None) -> tuple[OperatingPoint, ...]:
        """The points that a backend can run.

        Raises:
            BundleError: there is none.
        """
        programs = {
            p.name for p in self.manifest.programs if p.backend == backend and precision in (None, p.precision)
        }  # fmt: skip
        points = tuple(p for p in self.manifest.points if p.program in programs)
        if backend == "null" and not points:
            points = self.manifest.points
        if not points:
            has = sorted({f"{p.backend} {p.precision}" for p in self.manifest.programs})
            wanted = backend if precision is None else f"{backend} {precision}"
            raise BundleError(f"{self.root}: holds no program for {wanted}; it has {', '.join(has)}")
        return points

    def _npz(self, name: str) -> dict[str, npt.NDArray[Any]]:
        return read_npz(self.content(name), f"{self.root}: {name!r}")


def default_bundle_path() -> Path:
    """The bundle that ships with the project.

    Raises:
        BundleError: it is not there (an installation without the checkout).
    """
    path = Path(__file__).resolve().parent.parent / "apps" / "demo" / DEFAULT_BUNDLE
    if not path.is_dir():
        raise BundleError(f"{path}: the default bundle is not there; name one, or run from the project's checkout")
    return path


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not root.is_dir():
        hint = "unpack it first (edge-runtime unpack)" if root.is_file() else "check the path"
        raise BundleError(f"{root}: not a bundle folder; {hint}")
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{root}: holds no {MANIFEST}; this is not a bundle, or it was copied only in part")
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes; this is not a manifest")
        values = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a valid manifest: {error}") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        shown = repr(version)[:40] if isinstance(version, (str, int, float)) else type(version).__name__
        raise BundleError(
            f"{path}: schema version {shown} is unknown, this runtime reads 1 to {SCHEMA_VERSION}; "
            "update edge-runtime or make the bundle again"
        )
    try:
        return read_record(Manifest, values, MANIFEST)
    except RecordError as error:
        raise BundleError(f"{root}: {error}; make the bundle again") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name} is not allowed")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object has one key twice")
    return values
