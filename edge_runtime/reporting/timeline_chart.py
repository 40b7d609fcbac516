"""A recorded run over time: panels above one another that share their time axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.chart_style import ACCENT, ACCENT_SOFT, BAD, INK, NEUTRAL, PAPER, panel_title
from edge_runtime.reporting.document import Spec, percent
from edge_runtime.reporting.run_buckets import Buckets, gather, stretches
from edge_runtime.reporting.run_log import Numbers, RunLog

LABEL_ROOM_PX = 66
"""Left of every panel, so that all begin at the same place."""
MOST_LATE_DOTS = 150
MOST_STRETCHES = 400
MOST_POINTS = 24
PX_A_BUCKET = 3
SENSORS = (
    ("temperature_c", "temperature, °C", 1.0),
    ("battery_share", "battery, %", 100.0),
    ("power_w", "power, W", 1.0),
    ("memory_available_bytes", "free memory of the device, MB", 1e-6),
)


def timeline(run: RunLog, width_px: int) -> Spec:
    """Latency and deadline, operating point, slowdown, load, and whatever sensor was known."""
    inner_px = width_px - LABEL_ROOM_PX - 22
    buckets = gather(run.at_s, max(40, inner_px // PX_A_BUCKET))
    panels = [_latency_panel(run, buckets), _point_panel(run)]
    if (run.columns["min_accuracy"] > 0.0).any():
        panels.append(_accuracy_panel(run, buckets))
    if run.known("slowdown"):
        title = "slowdown: observed / tabled (logarithmic)"
        panels.append(_sensor_panel(run, buckets, "slowdown", title, 1.0, log=True))
    if run.known("foreign_load"):
        panels.append(_load_panel(run, buckets))
    panels += [_sensor_panel(run, buckets, key, title, factor) for key, title, factor in SENSORS if run.known(key)]
    for panel in panels:
        panel["width"] = inner_px
    for panel in panels[:-1]:
        panel["layer"][0]["encoding"]["x"]["axis"] = {"labels": False, "ticks": False, "title": None}
    return {"vconcat": panels, "spacing": 14, "resolve": {"scale": {"x": "shared"}}}


def time_axis(run: RunLog) -> Spec:
    """Seconds since the first frame, over the whole run."""
    return {
        "field": "s", "type": "quantitative", "title": "seconds since the first frame",
        "scale": {"domain": [0.0, run.duration_s or 1.0], "nice": False},
    }  # fmt: skip


def _y(field: str, scale: Spec, ticks: int = 3) -> Spec:
    axis = {"minExtent": LABEL_ROOM_PX, "maxExtent": LABEL_ROOM_PX, "tickCount": ticks}
    return {"field": field, "type": "quantitative", "title": None, "axis": axis, "scale": scale}


def _log_scale(values: Numbers) -> Spec:
    known = values[np.isfinite(values) & (values > 0.0)]
    if not len(known):
        return {"type": "linear"}
    return {"type": "log", "domain": [float(known.min()) * 0.85, float(known.max()) * 1.15], "nice": False}


def _rows(**columns: Numbers) -> list[dict[str, float]]:
    """Columns -> rows, without rows that hold an unknown number; short numbers keep the page small."""
    table = np.column_stack(list(columns.values()))
    known = table[np.isfinite(table).all(axis=1)]
    return [dict(zip(columns, (float(f"{value:.5g}") for value in row), strict=True)) for row in known]


def _latency_panel(run: RunLog, buckets: Buckets) -> Spec:
    """Band, median, deadline and late frames."""
    latency_ms, deadline_ms = run.columns["latency_ms"], run.columns["deadline_ms"]
    low, middle, high = (buckets.percentile(latency_ms, rank) for rank in (0, 50, 100))
    limit = buckets.percentile(deadline_ms, 50)
    late = _thinned(np.flatnonzero(~run.on_time))
    scale = _log_scale(np.concatenate([latency_ms, deadline_ms]))
    x, at_s = time_axis(run), (buckets.start_s + buckets.end_s) / 2

    def layer(rows: list[dict[str, float]], mark: Spec, field: str, **encoding: Any) -> Spec:
        whole = {"x": dict(x), "y": _y(field, scale, 4), **encoding}
        return {"data": {"values": rows}, "mark": {"aria": False, **mark}, "encoding": whole}

    dashed = {"type": "line", "color": INK, "strokeDash": [5, 3], "strokeWidth": 1.5, "interpolate": "step-after"}
    dot = {"type": "point", "filled": True, "color": BAD, "size": 36, "opacity": 1, "stroke": PAPER, "strokeWidth": 1}
    described = {"field": "latency", "type": "quantitative", "title": "late, ms"}
    limits = _rows(s=np.append(buckets.start_s, run.duration_s), limit=np.append(limit, limit[-1]))
    layers = [
        layer(_rows(s=at_s, low=low, high=high), {"type": "area", "color": ACCENT_SOFT}, "low", y2={"field": "high"}),
        layer(_rows(s=at_s, p50=middle), {"type": "line", "color": ACCENT, "strokeWidth": 1.5}, "p50"),
        layer(limits, dashed, "limit"),
        layer(_rows(s=run.at_s[late], latency=latency_ms[late]), {**dot, "aria": True}, "latency",
              description=described),
    ]  # fmt: skip
    title = "latency, ms (logarithmic); dashed: deadline; red: late"
    return {"height": 170, "layer": layers, "title": panel_title(title)}


def _thinned(frames: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """At most MOST_LATE_DOTS of them, evenly."""
    if len(frames) <= MOST_LATE_DOTS:
        return frames
    return frames[np.linspace(0, len(frames) - 1, MOST_LATE_DOTS).astype(np.int64)]


def _point_panel(run: RunLog) -> Spec:
    """A bar for each stretch of frames at one operating point."""
    counts = np.bincount(run.point, minlength=len(run.points))
    used = [int(i) for i in np.argsort(-counts, kind="stable")[:MOST_POINTS] if counts[i]]
    used.sort(key=lambda i: (-(run.points[i].accuracy or 0.0), run.points[i].name))
    labels = [run.points[i].label for i in used]
    rows = []
    for part in stretches(run, MOST_STRETCHES):
        if part.point not in used:
            continue
        point = run.points[part.point]
        known = "" if point.accuracy is None else f", accuracy {percent(point.accuracy)}"
        rows.append({
            "s": round(part.start_s, 4), "end": round(part.end_s, 4), "point": point.label,
            "what": f"{point.name}{known}: {part.start_s:.1f} to {part.end_s:.1f} s",
        })  # fmt: skip
    axis = {"minExtent": LABEL_ROOM_PX, "maxExtent": LABEL_ROOM_PX, "labelLimit": LABEL_ROOM_PX, "grid": True}
    y = {"field": "point", "type": "nominal", "sort": labels, "title": None, "scale": {"domain": labels}, "axis": axis}
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "color": ACCENT, "height": 12, "cornerRadius": 2},
        "encoding": {
            "x": time_axis(run), "x2": {"field": "end"}, "y": y, "description": {"field": "what", "type": "nominal"},
        },
    }  # fmt: skip
    title = "operating point, the most accurate on top"
    if len(used) < np.count_nonzero(counts):
        title = f"the {MOST_POINTS} most used points, the most accurate on top"
    return {"height": max(40, 20 * len(labels)), "layer": [bars], "title": panel_title(title)}


def _accuracy_panel(run: RunLog, buckets: Buckets) -> Spec:
    """Expected accuracy of the points, and the floor that the budget asks for."""
    accuracy = np.array([np.nan if point.accuracy is None else point.accuracy for point in run.points])[run.point]
    at_s, scale = (buckets.start_s + buckets.end_s) / 2, {"zero": False, "nice": True}
    floor = np.where(run.columns["min_accuracy"] > 0.0, run.columns["min_accuracy"], np.nan)
    dashed = {"color": INK, "strokeDash": [5, 3]}
    layers = [
        {
            "data": {"values": _rows(s=at_s, v=100.0 * buckets.percentile(values, 50))},
            "mark": {"type": "line", "strokeWidth": 1.5, "interpolate": "step-after", "aria": False, **look},
            "encoding": {"x": time_axis(run), "y": _y("v", scale)},
        }
        for values, look in ((accuracy, {"color": ACCENT}), (floor, dashed))
    ]
    title = "expected accuracy, %; dashed: the budget's floor"
    return {"height": 70, "layer": layers, "title": panel_title(title)}


def _load_panel(run: RunLog, buckets: Buckets) -> Spec:
    """Processor load of the others as an area, of this program as a line."""
    at_s, scale = (buckets.start_s + buckets.end_s) / 2, {"domain": [0, 100]}
    marks: Sequence[tuple[str, Spec]] = (
        ("foreign_load", {"type": "area", "color": NEUTRAL, "interpolate": "step-after"}),
        ("own_load", {"type": "line", "color": ACCENT, "strokeWidth": 1.5, "interpolate": "step-after"}),
    )
    layers = [
        {
            "data": {"values": _rows(s=at_s, v=100.0 * buckets.percentile(run.columns[key], 50))},
            "mark": {"aria": False, **mark},
            "encoding": {"x": time_axis(run), "y": _y("v", scale)},
        }
        for key, mark in marks
        if run.known(key)
    ]
    title = "processor load, %: other programs (filled), this one (line)"
    return {"height": 70, "layer": layers, "title": panel_title(title)}


def _sensor_panel(run: RunLog, buckets: Buckets, key: str, title: str, factor: float, log: bool = False) -> Spec:
    """One line over time."""
    values = factor * buckets.percentile(run.columns[key], 50)
    line = {
        "data": {"values": _rows(s=(buckets.start_s + buckets.end_s) / 2, v=values)},
        "mark": {"type": "line", "color": ACCENT, "strokeWidth": 1.5, "interpolate": "step-after", "aria": False},
        "encoding": {"x": time_axis(run), "y": _y("v", _log_scale(values) if log else {"zero": False, "nice": True})},
    }
    return {"height": 64, "layer": [line], "title": panel_title(title)}
