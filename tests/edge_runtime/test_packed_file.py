"""Packed files: what was packed comes back, and anything else gives one BundleError and no more bytes than allowed."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from bundles import default_files, manifest_values, write_bundle
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle import Bundle
from edge_runtime.errors import BundleError
from edge_runtime.packed_file import MAX_EXPANSION, SMALL_BYTES, pack, unpack


@given(st.binary(max_size=400))
def test_what_was_packed_comes_back(content: bytes) -> None:
    assert unpack("a.z", pack(content), "file") == content
    assert unpack("a", content, "file") is content


def test_packing_is_at_least_as_small_as_plain_deflate() -> None:
    rows = bytes(range(97, 123)) * 40 + bytes(2000)
    assert len(pack(rows)) <= len(zlib.compress(rows, 9))


WHOLE = pack(b"content " * 10)
BAD = {
    "nothing": (b"", "not one whole packed file"),
    "no stream": (b"PK nothing at all", "cannot be unpacked"),
    "half a stream": (WHOLE[:-3], "not one whole packed file"),
    "something behind the stream": (WHOLE + b"x", "not one whole packed file"),
    "a wrong checksum": (WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]), "cannot be unpacked"),
    "a bomb": (zlib.compress(bytes(MAX_EXPANSION * SMALL_BYTES + 1)), "unpacks to more than"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_packed_file_is_refused(case: str) -> None:
    content, message = BAD[case]
    with pytest.raises(BundleError, match=f"bundle: 'a.z': .*{message}"):
        unpack("a.z", content, "bundle: 'a.z'")


def test_a_bundle_gives_its_packed_files_unpacked(tmp_path: Path) -> None:
    files = default_files()
    files["weights.npz.z"] = pack(files.pop("weights.npz"))
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle", manifest_values(weights="weights.npz.z"), files))
    assert bundle.content("programs/null.bin") == b"nothing to run"
    assert bundle.read("weights.npz.z") == files["weights.npz.z"]
    first = bundle.weights
    assert first["stem"].tolist() == [0, 1, 2, 3, 4, 5]
    assert bundle.weights is first
    bundle.release()
    assert bundle.weights is not first


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_gives_bytes_or_a_bundle_error(edits: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for at, value in edits:
        content[at % len(content)] = value
    try:
        found = unpack("a.z", bytes(content), "file")
    except BundleError:
        return
    assert len(found) <= MAX_EXPANSION * SMALL_BYTES
