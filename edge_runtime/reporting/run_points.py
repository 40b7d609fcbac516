"""The operating points that a recorded run speaks of, and how people call points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.point_names import without_shared_ending
from edge_runtime.records import NO_TEXT

MAX_POINTS = 4096
MAX_TEXT = 200
"""Texts of a file are cut here: a label or reason that is longer is no label or reason."""


@dataclass(frozen=True)
class LoggedPoint:
    """One operating point, as far as the recording knows it."""

    name: str
    label: str
    """Short: "0.50 × 64"; the name when that would not tell points apart."""
    accuracy: float | None = None
    """Expected, 0-1."""
    latency_ms: float | None = None
    """In the recording's last query table."""


def clean_text(value: object) -> str:
    """A short text that a page can show; empty when there is none."""
    return NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value[:MAX_TEXT]) if isinstance(value, str) else ""


def point_label(
    width: float | None, size_hw: Sequence[int] | None, extra: str = "", frames: int | None = None
) -> str:  # fmt: skip
    """Width, frames of a clip and input size in a few signs; empty when they are unknown."""
    if width is None or size_hw is None:
        return ""
    height, across = size_hw
    size = f"{height}" if height == across else f"{height}x{across}"
    size = size if frames is None else f"{frames} × {size}"
    return f"{width:.2f} × {size}{' ' if extra else ''}{extra}"


def distinct_labels(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The labels; the name instead where a label is empty or stands for two names, without what all names end in."""
    users: dict[str, set[str]] = {}
    for name, label in zip(names, labels, strict=True):
        users.setdefault(label, set()).add(name)
    short = without_shared_ending(names)
    return [label if label and len(users[label]) == 1 else name for name, label in zip(short, labels, strict=True)]


def read_points(
    listed: object, table: object, used: Sequence[str]
) -> tuple[tuple[LoggedPoint, ...], npt.NDArray[np.int64]]:
    """All points, and for each frame the index of its point.

    Args:
        listed: `points` of the start line.
        table: `points` of the last query table.
        used: the point that each frame names.
    """
    known, tabled = _by_name(listed), _by_name(table)
    for name in (*tabled, *used):
        known.setdefault(name, {})
    labels = distinct_labels(list(known), [_label(row) for row in known.values()])
    points = []
    for (name, row), label in zip(known.items(), labels, strict=True):
        both = {**row, **{key: v for key, v in tabled.get(name, {}).items() if v is not None}}
        points.append(LoggedPoint(name, label, _share(both.get("accuracy")), _positive(both.get("latency_ms"))))
    index = {point.name: i for i, point in enumerate(points)}
    return tuple(points), np.array([index[name] for name in used], dtype=np.int64)


def _by_name(rows: object) -> dict[str, dict[str, Any]]:
    good = [row for row in rows[:MAX_POINTS] if isinstance(row, dict)] if isinstance(rows, list) else []
    return {name: row for row in good if (name := clean_text(row.get("name")))}


def _label(row: Mapping[str, Any]) -> str:
    width, size_hw = _positive(row.get("width")), row.get("size_hw")
    good = isinstance(size_hw, list) and len(size_hw) == 2 and all(type(side) is int for side in size_hw)
    frames = row.get("frames")
    return point_label(width, size_hw if good else None, frames=frames if type(frames) is int else None)


def _positive(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e300:
        return None
    return float(value)


def _share(value: object) -> float | None:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    number = _positive(value)
    return number if number is not None and number <= 1.0 else None
