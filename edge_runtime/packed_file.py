"""Files of a bundle that are stored compressed: NAME.z is NAME as one zlib stream."""

from __future__ import annotations

import zlib

from edge_runtime.errors import BundleError

ENDING = ".z"
MAX_EXPANSION = 64
"""A packed file may grow this much: graphs grow about tenfold, tables about fivefold."""
SMALL_BYTES = 1 << 14
"""A smaller file counts as this large: a short recipe may repeat itself more often."""
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_RLE)
MEMORY_LEVELS = (9, 5)  # with 5, deflate changes its code more often, which suits tables with a row per resolution


def pack(content: bytes) -> bytes:
    """The smallest zlib stream that a few settings give; equal contents give equal streams."""
    found = []
    for strategy in STRATEGIES:
        for level in MEMORY_LEVELS:
            packer = zlib.compressobj(9, zlib.DEFLATED, 15, level, strategy)
            found.append(packer.compress(content) + packer.flush())
    return min(found, key=len)


def unpack(name: str, content: bytes, where: str) -> bytes:
    """The content of a file, unpacked where its name says that it is packed.

    Args:
        name: file name inside the bundle.
        content: the stored bytes.
        where: how messages call the file.
    Raises:
        BundleError: not one whole zlib stream, or one that grows beyond MAX_EXPANSION.
    """
    if not name.endswith(ENDING):
        return content
    limit = MAX_EXPANSION * max(SMALL_BYTES, len(content))
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(content, limit)
    except zlib.error as error:
        raise BundleError(f"{where}: cannot be unpacked: {error}; make the bundle again") from error
    if unpacker.unconsumed_tail:
        raise BundleError(f"{where}: unpacks to more than {limit} bytes; it is not safe to use this bundle")
    if not unpacker.eof or unpacker.unused_data:
        raise BundleError(f"{where}: is not one whole packed file; make the bundle again")
    return found
