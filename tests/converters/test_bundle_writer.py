"""Writing a bundle: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BundleError
from edge_runtime.manifest import Manifest, OperatingPoint, Preprocessing, Program


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema_version": 1, "name": "tiny", "task": "classification", "labels": ("a", "b"),
        "preprocessing": Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "programs": (Program("p", "null", "fp32", "p.bin"),),
        "points": (OperatingPoint("q", "p", 1.0, (16, 16), 5, {"select": 0.5}),), "files": {},
    }  # fmt: skip
    return Manifest(**{**values, **changes})


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_a_finished_bundle_loads_and_no_draft_is_left(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "new" / "a.bundle") as writer:
        writer.write("p.bin", b"x")
        writer.write_npz("w/w.npz", {"a": np.arange(3, dtype=np.float32)})
        writer.write_json("x.json", {"a": 1})
        assert writer.open(manifest(weights="w/w.npz")).weights["a"].sum() == 3
        path = writer.finish(manifest(weights="w/w.npz"))
    assert names(tmp_path / "new") == {
        "a.bundle", "a.bundle/p.bin", "a.bundle/w", "a.bundle/w/w.npz", "a.bundle/x.json", "a.bundle/manifest.json"
    }  # fmt: skip
    assert set(Bundle.load(path).manifest.files) == {"p.bin", "w/w.npz", "x.json"}


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a.bundle") as writer:
        for name in ("one.npz", "two.npz"):
            writer.write_npz(name, {"a": np.arange(3), "b": np.ones(2)}, compressed=True)
        assert (writer.root / "one.npz").read_bytes() == (writer.root / "two.npz").read_bytes()


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), ConversionError("no")])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with BundleWriter(tmp_path / "a.bundle") as writer:
            writer.write("p.bin", b"x")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == set()


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ConversionError, match="cannot be written: No space left on device; nothing was left"),
        BundleWriter(tmp_path / "a.bundle"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == set()


def test_leaving_without_finishing_leaves_nothing(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a.bundle") as writer:
        writer.write("p.bin", b"x")
    assert names(tmp_path) == set()


def test_an_existing_bundle_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.bundle"
    for content in (b"old", b"new"):
        with BundleWriter(target, overwrite=content == b"new") as writer:
            writer.write("p.bin", content)
            writer.finish(manifest())
    with pytest.raises(ConversionError, match="already exists; choose another name or give --force"):
        BundleWriter(target)
    assert (target / "p.bin").read_bytes() == b"new"
    assert names(tmp_path) == {"a.bundle", "a.bundle/p.bin", "a.bundle/manifest.json"}


def test_a_failed_replacement_keeps_the_old_bundle(tmp_path: Path) -> None:
    target = tmp_path / "a.bundle"
    with BundleWriter(target) as writer:
        writer.write("p.bin", b"old")
        writer.finish(manifest())
    with pytest.raises(BundleError, match="not listed"), BundleWriter(target, overwrite=True) as writer:
        writer.finish(manifest())  # its program is missing
    assert Bundle.load(target).read("p.bin") == b"old"
    assert names(tmp_path) == {"a.bundle", "a.bundle/p.bin", "a.bundle/manifest.json"}


def test_a_target_of_another_name_or_in_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"the name of a bundle ends in \.bundle"):
        BundleWriter(tmp_path / "a.zip")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConversionError, match="cannot be written: Not a directory"),
        BundleWriter(tmp_path / "file" / "a.bundle"),
    ):
        pass
