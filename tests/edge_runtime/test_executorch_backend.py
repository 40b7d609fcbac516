"""The ExecuTorch backend where nothing has to be lowered; parity is tested with the converter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from bundles import manifest_values, point_values, write_bundle

from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="executorch is not installed (extra [executorch])"
)


def write_pte_bundle(root: Path, content: bytes) -> Bundle:
    """A bundle with one point, whose program has this content."""
    program = {"name": "all", "backend": "executorch", "precision": "fp32", "file": "programs/all.pte"}
    point = {**point_values(0.5, 16), "program": "all", "method": "w0_50_r016"}
    values = manifest_values(programs=[program], points=[point])
    values.pop("weights")
    return Bundle.load(write_bundle(root / "tiny.bundle", values, {"programs/all.pte": content}))


def test_absent_executorch_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "executorch" else find(name, *rest)
    )
    with pytest.raises(BackendError, match=r"executorch is not installed.*edge-runtime\[executorch\]"):
        open_backend("executorch", write_pte_bundle(tmp_path, b"anything"), BackendOptions(1))


@needs_executorch
@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\x18\x00\x00\x00ET99" + b"\x00" * 5000])
def test_file_that_is_no_program_of_this_version_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    bundle = write_pte_bundle(tmp_path, content)
    backend = open_backend("executorch", bundle, BackendOptions(1))
    with pytest.raises(BackendError, match=r"refuses 'programs/all\.pte'.*damaged, or was made by a newer version"):
        backend.load(bundle.manifest.points[0])
