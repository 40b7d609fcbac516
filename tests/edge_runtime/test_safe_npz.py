"""npz files from untrusted bytes: good ones are read without copies of code, bad ones give one BundleError."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from bundles import npz_bytes
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError
from edge_runtime.safe_npz import DTYPES, read_npz


def zip_of(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array file with any text as its header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + body


def npy_of(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_read_only_and_equal(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    found = read_npz(npz_bytes(a=array, empty=array[:0], scalar=array[0, 1]), "file")
    assert set(found) == {"a", "empty", "scalar"}
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == array.dtype
    assert found["empty"].shape == (0, 4)
    assert found["scalar"].shape == ()
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 0


def test_a_compressed_npz_is_read() -> None:
    buffer = io.BytesIO()
    array = np.random.default_rng(0).integers(0, 20, 1000).astype(np.float32)
    np.savez_compressed(buffer, a=array)
    np.testing.assert_array_equal(read_npz(buffer.getvalue(), "file")["a"], array)


class Trap:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
BAD_FILES = {
    "not a zip": (b"PK nothing", "not a readable npz"),
    "empty": (b"", "not a readable npz"),
    "cut short": (npz_bytes(a=np.zeros(100, np.float32))[:-60], "not a readable npz"),
    "an object array": (zip_of(("a.npy", npy_of(np.array([Trap()], object)))), "object is not allowed"),
    "a bare pickle": (zip_of(("a.npy", pickle.dumps([1]))), "'a.npy'"),
    "another byte order": (npz_bytes(a=np.zeros(2, ">f4")), "array of >f4 is not allowed"),
    "a structure": (npz_bytes(a=np.zeros(2, [("x", "<f4")])), "is not allowed"),
    "text": (npz_bytes(a=np.array(["x"])), "is not allowed"),
    "float64": (npz_bytes(a=np.zeros(2)), "float64 is not allowed"),
    "column order": (npz_bytes(a=np.zeros((2, 3), np.float32, order="F")), "column order"),
    "fewer bytes than its shape": (zip_of(("a.npy", npy(F4, b"1234"))), "does not fit its 4 bytes"),
    "more bytes than its shape": (zip_of(("a.npy", npy(F4, b"123456789"))), "does not fit its 9 bytes"),
    "a negative axis": (zip_of(("a.npy", npy(F4.replace("(2,)", "(-2,)"), b"12345678"))), "'a.npy'"),
    "two negative axes": (zip_of(("a.npy", npy(F4.replace("(2,)", "(-1, -2)"), b"12345678"))), "does not fit"),
    "an endless empty axis": (zip_of(("a.npy", npy(F4.replace("(2,)", f"(0, {10**30})")))), "does not fit"),
    "nine axes": (zip_of(("a.npy", npy(F4.replace("(2,)", "(1,1,1,1,1,1,1,1,2)"), b"12345678"))), "does not fit"),
    "a header that is no dictionary": (zip_of(("a.npy", npy("[1, 2]"))), "'a.npy'"),
    "a header with keys of two kinds": (zip_of(("a.npy", npy("{1: 2, 'descr': 3}"))), "'a.npy'"),
    "a header with a list as key": (zip_of(("a.npy", npy("{[]: 1}"))), "'a.npy'"),
    "a header that is no Python": (zip_of(("a.npy", npy("{'descr': (((("))), "'a.npy'"),
    "a huge header": (zip_of(("a.npy", npy(" " * 20_000 + F4))), "'a.npy'"),
    "a header deeper than the parser": (zip_of(("a.npy", npy("(" * 5000 + ")" * 5000))), "'a.npy'"),
    "version 3": (zip_of(("a.npy", npy(F4, b"12345678", b"\x03\x00"))), "array format"),
    "one name twice": (zip_of(("a.npy", npy(F4, b"12345678")), ("a", npy(F4, b"12345678"))), "two arrays named 'a'"),
    "a bomb": (zip_of(("a.npy", b"\0" * (1 << 24)), compression=zipfile.ZIP_DEFLATED), "would unpack to 16777216"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence(case: str) -> None:
    content, message = BAD_FILES[case]
    with pytest.raises(BundleError) as caught:
        read_npz(content, "bundle: 'weights.npz'")
    assert str(caught.value).startswith("bundle: 'weights.npz'")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encrypted_member_is_refused() -> None:
    content = bytearray(npz_bytes(a=np.zeros(4, np.float32)))
    at = content.find(b"PK\x01\x02")
    content[at + 8] |= 1  # the directory's flag
    with pytest.raises(BundleError, match="not a readable npz"):
        read_npz(bytes(content), "file")


GOOD = {
    "stored": npz_bytes(a=np.arange(4, dtype=np.float32), b=np.zeros((2, 2), np.int8)),
    "deflated": zip_of(("a.npy", npy(F4, b"12345678")), compression=zipfile.ZIP_DEFLATED),
    "lzma": zip_of(("a.npy", npy(F4, b"12345678")), compression=zipfile.ZIP_LZMA),
}


@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_any_damage_gives_arrays_or_a_bundle_error(kind: str, edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(GOOD[kind])
    for at, value in edits:
        content[at % len(content)] = value
    try:
        arrays = read_npz(bytes(content[: len(content) - cut]), "file")
    except BundleError:
        return
    assert all(a.dtype.name in DTYPES and a.dtype.isnative for a in arrays.values())


@given(st.text(alphabet="{}()[]':,<f4|O8 descrfotanhpTuFls0123-\\n", max_size=120))
def test_any_header_gives_arrays_or_a_bundle_error(header: str) -> None:
    with contextlib.suppress(BundleError):
        read_npz(zip_of(("a.npy", npy(header, b"12345678"))), "file")
