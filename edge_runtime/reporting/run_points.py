"""The operating points that a recorded run speaks of, and how people call points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_POINTS = 4096


@dataclass(frozen=True)
class LoggedPoint:
    """One operating point, as far as the recording knows it."""

    name: str
    label: str
    """Short: "0.50 × 64"; the name when that would not tell points apart."""
    accuracy: float | None = None
    """Expected, 0-1."""
    latency_ms: float | None = None
    """In the query table at the start of the run."""


def point_label(width: float | None, size_hw: Sequence[int] | None, extra: str = "") -> str:
    """Width and input size in a few signs; empty when they are unknown."""
    if width is None or size_hw is None:
        return ""
    height, across = size_hw
    size = f"{height}" if height == across else f"{height}x{across}"
    return f"{width:.2f} × {size}{' ' if extra else ''}{extra}"


def distinct_labels(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The labels; the name instead where a label is empty or stands for two names."""
    users: dict[str, set[str]] = {}
    for name, label in zip(names, labels, strict=True):
        users.setdefault(label, set()).add(name)
    return [label if label and len(users[label]) == 1 else name for name, label in zip(names, labels, strict=True)]


def read_points(facts: Mapping[str, Any], used: Sequence[str]) -> tuple[tuple[LoggedPoint, ...], npt.NDArray[np.int64]]:
    """Points of the start line, then others that frames name; and for each frame the index of its point."""
    listed = facts.get("points")
    rows = [row for row in listed[:MAX_POINTS] if isinstance(row, dict)] if isinstance(listed, list) else []
    rows = [row for row in rows if isinstance(row.get("name"), str) and row["name"]]
    known = {str(row["name"])[:200]: row for row in rows}
    for name in used:
        known.setdefault(name, {})
    labels = [_label(row) for row in known.values()]
    points = tuple(
        LoggedPoint(name, label, _share(row.get("accuracy")), _positive(row.get("latency_ms")))
        for (name, row), label in zip(known.items(), distinct_labels(list(known), labels), strict=True)
    )
    index = {point.name: i for i, point in enumerate(points)}
    return points, np.array([index[name] for name in used], dtype=np.int64)


def _label(row: Mapping[str, Any]) -> str:
    width, size_hw = _positive(row.get("width")), row.get("size_hw")
    good = isinstance(size_hw, list) and len(size_hw) == 2 and all(type(side) is int for side in size_hw)
    return point_label(width, size_hw if good else None)


def _positive(value: object) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if known and math.isfinite(value) and value > 0 else None  # type: ignore[arg-type,operator]


def _share(value: object) -> float | None:
    number = 0.0 if value == 0 and not isinstance(value, bool) else _positive(value)
    return number if number is not None and number <= 1.0 else None
