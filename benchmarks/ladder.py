"""Points of whatever bundle is measured, so that no benchmark names one."""

from __future__ import annotations

from typing import Any


def spread_points(bundle: Any, count: int, backend: str = "onnxruntime") -> tuple[str, ...]:
    """Names of so many points of an engine, evenly spread over their multiply-adds, both ends among them.

    Args:
        bundle: an `edge_runtime.Bundle`.
        count: at least 2; all points where there are fewer.
    """
    names = [p.name for p in sorted(bundle.points_for(backend), key=lambda p: (p.madds, p.name))]
    if len(names) <= count:
        return tuple(names)
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))
