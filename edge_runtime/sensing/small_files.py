"""Reading the small files of /proc and /sys: what cannot be read or understood is None."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

READ_LIMIT_BYTES = 1 << 20  # /proc/stat of a machine with 256 cores has about 100 KB; nothing sane has more
READ_CHUNK_BYTES = 1 << 16


def read_text(path: Path | str) -> str | None:
    """The file's text without surrounding white space, or None.

    Decoded as UTF-8 with bad bytes replaced; NUL bytes, which end device-tree strings, are dropped.
    """
    try:
        # O_NONBLOCK: a pipe that stands where a file should be must not stop the caller.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError):
        return None
    try:
        data = os.read(descriptor, READ_CHUNK_BYTES)
        while len(data) < READ_LIMIT_BYTES:  # seq files may answer in pieces
            more = os.read(descriptor, READ_CHUNK_BYTES)
            if not more:
                break
            data += more
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "replace").replace("\x00", "").strip()


def read_int(path: Path | str) -> int | None:
    """The file's one whole number, or None."""
    return parse_int(read_text(path))


def parse_int(text: str | None, base: int = 10) -> int | None:
    """A whole number, or None for anything else."""
    if text is None or len(text) > 40:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def parse_float(text: str | None) -> float | None:
    """A finite number, or None for anything else."""
    if text is None or len(text) > 40:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def within(value: float | None, low: float, high: float) -> float | None:
    """The value if low <= value <= high; what lies outside is absurd and therefore unknown."""
    return value if value is not None and low <= value <= high else None


def clamp_share(value: float) -> float:
    """A share, 0-1; counters that tick at different moments may give a little more or less."""
    return min(1.0, max(0.0, value))


def sorted_glob(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder that match, in natural order (cpu2 before cpu10); empty if it cannot be listed."""
    try:
        return sorted(folder.glob(pattern), key=lambda path: [_natural(part) for part in path.parts])
    except OSError:
        return []


def first_existing(paths: Iterable[Path]) -> Path | None:
    """The first path that exists, or None."""
    for path in paths:
        try:
            if path.exists():
                return path
        except OSError:
            continue
    return None


def shown_path(path: Path, root: Path) -> str:
    """The path as the device itself would write it, without the root of an emulated tree."""
    try:
        return "/" + path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def _natural(part: str) -> tuple[str, int]:
    stem = part.rstrip("0123456789")
    return stem, int(part[len(stem) :] or -1)
