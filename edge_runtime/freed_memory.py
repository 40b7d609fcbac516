"""Keep what Python and the engine free from staying in the process; the C library holds on to it otherwise.

glibc raises its threshold for pages of their own with each large block that is freed, up to 32 MB; weights then come
from its heaps, which sessions that come and go leave full of holes. Measured over 80 builds and releases of a 2 MB
network: 16 MB with that, 8 MB with the threshold kept low while a point is built.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SMALL_BYTES = 128 << 10  # glibc's own threshold at the start
USUAL_BYTES = 4 << 20  # as after the first freed frame of 1280x960: frames are reused, not mapped anew


def give_back() -> bool:
    """Return freed pages to the system, in a millisecond or so; False where this C library cannot."""
    trim = _function("malloc_trim")
    return trim is not None and bool(trim(0))


@contextlib.contextmanager
def own_pages() -> Iterator[None]:
    """Large blocks that any thread allocates inside get pages of their own; what is freed inside leaves the process.

    The settings belong to the whole process; afterwards they are fixed at what glibc would have come to.
    """
    adjust = _function("mallopt")
    if adjust is None:
        yield
        return
    adjust(M_MMAP_THRESHOLD, SMALL_BYTES)
    adjust(M_TRIM_THRESHOLD, SMALL_BYTES)  # malloc_trim leaves the ends of the heaps of other threads alone
    try:
        yield
    finally:
        adjust(M_MMAP_THRESHOLD, USUAL_BYTES)
        adjust(M_TRIM_THRESHOLD, 2 * USUAL_BYTES)  # glibc's own rule; otherwise each run would map its buffers anew


@cache
def _function(name: str) -> Any:
    """A function of glibc; None on musl, macOS and Windows, which keep less."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (only glibc has it)
        return getattr(library, name)
    except (AttributeError, OSError, TypeError):
        return None
