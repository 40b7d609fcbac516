"""Give memory that Python and the engine have freed back to the system; the C library keeps it otherwise."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back() -> bool:
    """Return freed pages to the system, in a millisecond or so; False where this C library cannot."""
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@cache
def _malloc_trim() -> Any:
    """glibc's `malloc_trim`; musl, macOS and Windows have none, and mostly need none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
