"""The same points under different conditions: numbers of threads, and devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edge_runtime.reporting.chart_style import PAPER, colour_scale, is_narrow, legend, shape_scale
from edge_runtime.reporting.document import Spec, significant
from edge_runtime.reporting.ladder import Device

MOST_LINES = 6
MOST_ROWS = 24


def thread_lines(device: Device, width_px: int) -> Spec:
    """Latency against the number of threads, for points of the front."""
    counts = Counter((e.point.name, e.point.backend) for e in device.entries)
    by_time = sorted(device.ladder, key=lambda e: (e.on_front, e.p50_ms))
    swept = [found for e in by_time if counts[found := (e.point.name, e.point.backend)] > 1]
    step = max(1, -(-len(swept) // MOST_LINES))
    wanted = swept[::-1][::step]
    shown = [e for e in device.entries if (e.point.name, e.point.backend) in wanted]
    names = list(dict.fromkeys(e.label for e in sorted(shown, key=lambda e: -e.p50_ms)))
    rows = [
        {"label": e.label, "threads": e.point.threads, "p50": float(f"{e.p50_ms:.5g}"),
         "what": f"{e.point.name}, {e.point.threads} threads: p50 {significant(e.p50_ms)} ms"}
        for e in shown
    ]  # fmt: skip
    x = {"field": "threads", "type": "ordinal", "title": "threads", "axis": {"labelAngle": 0}}
    y = {"field": "p50", "type": "quantitative", "title": "latency p50, ms (logarithmic)",
         "scale": {"type": "log", "nice": False, "padding": 12}}  # fmt: skip
    key = {**legend(width_px, 2), "columns": 2 if is_narrow(width_px) else 6}
    colour = {"field": "label", "type": "nominal", "scale": colour_scale(names), "legend": key}
    lines = {"mark": {"type": "line", "aria": False}, "encoding": {"x": x, "y": y, "color": colour}}
    dots = {
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
        "encoding": {"x": x, "y": y, "color": colour,
                     "shape": {"field": "label", "type": "nominal", "scale": shape_scale(names), "legend": key},
                     "description": {"field": "what", "type": "nominal"}},
    }  # fmt: skip
    return {
        "width": width_px - 16, "height": 300, "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": rows}, "layer": [lines, dots],
    }  # fmt: skip


def device_lines(devices: Sequence[Device], width_px: int) -> Spec:
    """Median latency of every point on every device: one row a point, one mark a device."""
    order = list(dict.fromkeys(e.label for e in devices[0].ladder if e.on_front))
    order += [label for d in devices[1:] for label in dict.fromkeys(e.label for e in d.front) if label not in order]
    names = [device.label for device in devices]
    rows = [
        {"label": e.label, "device": e.device, "p50": float(f"{e.p50_ms:.5g}"),
         "what": f"{e.point.name} on {e.device}: p50 {significant(e.p50_ms)} ms"}
        for device in devices for e in device.ladder if e.label in order[:MOST_ROWS]
    ]  # fmt: skip
    y = {"field": "label", "type": "nominal", "sort": order, "title": None, "axis": {"grid": True}}
    x = {"field": "p50", "type": "quantitative", "title": "latency p50, ms (logarithmic)",
         "scale": {"type": "log", "nice": False, "padding": 14}, "axis": {"tickCount": 6}}  # fmt: skip
    key = legend(width_px, 4)
    dots = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
        "encoding": {
            "x": x, "y": y, "description": {"field": "what", "type": "nominal"},
            "color": {"field": "device", "type": "nominal", "scale": colour_scale(names), "legend": key},
            "shape": {"field": "device", "type": "nominal", "scale": shape_scale(names), "legend": key},
        },
    }  # fmt: skip
    return {
        "width": width_px - 16, "height": {"step": 25}, "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 12, "right": 4, "top": 4, "bottom": 4}, "data": {"values": rows}, "layer": [dots],
    }  # fmt: skip
