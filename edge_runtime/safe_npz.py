"""Read .npz files from untrusted bytes: no pickle, nothing larger than the file could hold."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleError

DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64")
MAX_ARRAYS = 100_000
MAX_EXPANSION = 64
"""A compressed member may grow this much; real weights stay under 2, tables under 10."""
MAX_AXES, MAX_AXIS = 8, 1 << 40


def read_npz(content: bytes, where: str) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name, read-only.

    Args:
        content: the file.
        where: how messages call it.
    Raises:
        BundleError: not an npz, or an array with an object type or an impossible size.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            total = sum(e.file_size for e in entries)
            if len(entries) > MAX_ARRAYS or total > MAX_EXPANSION * max(1024, len(content)):
                raise BundleError(f"{where}: would unpack to {total} bytes; this is not a file of weights")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise BundleError(f"{where}: holds two arrays named {name[:200]!r}")
                with archive.open(entry) as stream:
                    member = stream.read(entry.file_size + 1)
                arrays[name] = _read_array(member, f"{where}: {entry.filename[:200]!r}")
    except BundleError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many kinds for a broken file
        raise BundleError(f"{where}: not a readable npz file: {_first_line(error)}") from error
    return arrays


def _read_array(member: bytes, where: str) -> npt.NDArray[Any]:
    stream = io.BytesIO(member)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise BundleError(f"{where}: array format {version} is unknown")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except BundleError:
        raise
    except Exception as error:  # numpy parses the header as Python; whatever that raises is in the file
        raise BundleError(f"{where}: not a readable array: {_first_line(error)}") from error
    if dtype.name not in DTYPES or not dtype.isnative:
        raise BundleError(f"{where}: array of {dtype} is not allowed, expected one of {', '.join(DTYPES)}")
    if fortran:
        raise BundleError(f"{where}: array in column order is not allowed, expected row order")
    count = 1
    for size in shape:
        count *= int(size)
    rest = len(member) - stream.tell()
    possible = len(shape) <= MAX_AXES and all(0 <= size <= MAX_AXIS for size in shape)
    if not possible or count * dtype.itemsize != rest:
        raise BundleError(f"{where}: array of shape {str(shape)[:200]} does not fit its {rest} bytes")
    array = np.frombuffer(member, dtype, count, stream.tell()).reshape(shape)
    array.flags.writeable = False
    return array


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
