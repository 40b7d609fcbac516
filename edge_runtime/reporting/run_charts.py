"""Smaller charts of a recorded run: which points answered, and after how many steps."""

from __future__ import annotations

import numpy as np

from edge_runtime.reporting.bar_chart import Bar, bar_chart
from edge_runtime.reporting.chart_style import ACCENT
from edge_runtime.reporting.document import Spec, percent
from edge_runtime.reporting.run_log import RunLog


def point_shares(run: RunLog, width_px: int) -> Spec:
    """How much of the run each operating point had, by frames."""
    counts = np.bincount(run.point, minlength=len(run.points))
    used = sorted(np.flatnonzero(counts).tolist(), key=lambda i: -counts[i])[:20]
    bars = [
        Bar(
            run.points[i].label, 100.0 * counts[i] / run.frames, percent(counts[i] / run.frames),
            f"{run.points[i].name}: {counts[i]:,} frames",
        )
        for i in used
    ]  # fmt: skip
    return bar_chart(bars, "frames, %", width_px)


def step_counts(run: RunLog, width_px: int) -> Spec:
    """After how many steps a glance-and-focus model stopped."""
    steps = run.columns["steps"]
    values, counts = np.unique(steps[np.isfinite(steps)], return_counts=True)
    rows = [
        {"steps": f"{value:.0f}", "share": round(100.0 * float(count) / float(counts.sum()), 3),
         "what": f"{value:.0f} steps: {count:,} frames"}
        for value, count in zip(values, counts, strict=True)
    ]  # fmt: skip
    return {
        "width": min(width_px - 100, 420), "height": 180, "data": {"values": rows},
        "mark": {"type": "bar", "color": ACCENT},
        "encoding": {
            "x": {"field": "steps", "type": "ordinal", "title": "steps until the answer", "axis": {"labelAngle": 0},
                  "sort": [row["steps"] for row in rows]},
            "y": {"field": "share", "type": "quantitative", "title": "frames, %"},
            "description": {"field": "what", "type": "nominal"},
        },
    }  # fmt: skip
