"""How latency is distributed: one hill for each operating point, on one logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.chart_style import ACCENT, ACCENT_SOFT, BAD, INK, is_narrow, legend
from edge_runtime.reporting.document import Spec, significant

Numbers = npt.NDArray[np.float64]


def distributions(samples: Sequence[tuple[str, Numbers]], title: str, width_px: int) -> Spec:
    """One hill for each row, with a mark at the median and one at the 99th percentile."""
    rows, domain = density_rows(samples)
    ranks = [row for row in _rank_rows(samples) if domain[0] <= float(str(row["ms"])) <= domain[1]]
    x = {"field": "ms", "type": "quantitative", "title": title,
         "scale": {"type": "log", "domain": domain, "nice": False}, "axis": {"tickCount": 6}}  # fmt: skip
    label_px = min(96 if is_narrow(width_px) else 200, 8 + 7 * max(len(label) for label, _ in samples))
    hill = {
        "transform": [{"filter": "isValid(datum.height)"}],
        "mark": {
            "type": "area",
            "color": ACCENT_SOFT,
            "line": {"color": ACCENT, "strokeWidth": 1.2, "aria": False},
            "aria": False,
        },
        "encoding": {
            "x": x,
            "y": {"field": "height", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}},
        },
    }
    ticks = {
        "transform": [{"filter": "isValid(datum.rank)"}],
        "mark": {"type": "tick", "thickness": 2, "height": 26, "orient": "vertical"},
        "encoding": {
            "x": x, "description": {"field": "what", "type": "nominal"},
            "color": {"field": "rank", "type": "nominal", "legend": legend(width_px),
                      "scale": {"domain": ["p50", "p99"], "range": [INK, BAD]}},
        },
    }  # fmt: skip
    header = {"title": None, "labelAngle": 0, "labelAlign": "left", "labelLimit": label_px, "labelPadding": 12}
    return {
        "data": {"values": [*rows, *ranks]},
        "facet": {
            "row": {"field": "row", "type": "nominal", "sort": [label for label, _ in samples], "header": header}
        },
        "spec": {"width": width_px - label_px - 26, "height": 26, "layer": [hill, ticks]},
        "spacing": 3,
    }


def _rank_rows(samples: Sequence[tuple[str, Numbers]]) -> list[dict[str, object]]:
    """Where the marks stand."""
    rows: list[dict[str, object]] = []
    for label, values in samples:
        for rank in (50, 99):
            ms = float(np.percentile(values, rank))
            rows.append({"row": label, "ms": ms, "rank": f"p{rank}", "what": f"{label}, p{rank}: {significant(ms)} ms"})
    return rows


def density_rows(samples: Sequence[tuple[str, Numbers]], bins: int = 70) -> tuple[list[dict[str, object]], list[float]]:
    """Smoothed histograms on one logarithmic axis.

    Args:
        samples: (label, positive values) of each row.
        bins: across the axis.
    Returns:
        rows of `row`, `ms`, `height` (each label's highest is 1), and the axis's domain. The axis covers all but the
        fastest and slowest thousandth, so that one stall does not squeeze the rest.
    """
    everything = np.concatenate([values for _, values in samples])
    low, high = np.percentile(everything, [0.1, 99.9])
    low, high = 0.93 * low, max(1.07 * high, 1.2 * low)
    edges = np.geomspace(low, high, bins + 1)
    middle = np.sqrt(edges[1:]) * np.sqrt(edges[:-1])
    smooth = np.array([1.0, 3.0, 5.0, 3.0, 1.0]) / 13.0
    rows: list[dict[str, object]] = []
    for label, values in samples:
        counts = np.histogram(values, bins=edges)[0].astype(np.float64)
        height = np.convolve(counts, smooth, mode="same")
        height /= height.max() or 1.0
        rows += [{"row": label, "ms": float(f"{x:.4g}"), "height": round(float(h), 3)}
                 for x, h in zip(middle, height, strict=True)]  # fmt: skip
    return rows, [float(low), float(high)]
