"""The ladder of a bundle as a chart: accuracy against latency, with the Pareto front of each device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_runtime.reporting.chart_style import INK, PAPER, SOFT_INK, colour_scale, is_narrow, legend, shape_scale
from edge_runtime.reporting.document import Spec, percent, significant
from edge_runtime.reporting.ladder import Device, Entry

LEAST_LABEL_GAP_PX = 16
LABEL_PX = 100
"""Width of a point's label."""
MOST_LABELS = 9


def ladder_chart(devices: Sequence[Device], split: str, width_px: int) -> Spec:
    """Accuracy against p50 with a whisker to p99; the front is a line, points that it dominates are pale."""
    entries = [entry for device in devices for entry in device.ladder]
    colours, shapes = _keys(devices, width_px)
    rows = [_row(entry) for entry in entries]
    narrow = is_narrow(width_px)
    title = (
        "latency, ms (log): p50, whisker to p99"
        if narrow
        else "latency of one run, ms (logarithmic): p50, whisker to p99"
    )
    x = {"type": "quantitative", "title": title, "axis": {"tickCount": 5 if narrow else 10},
         "scale": {"type": "log", "nice": False, "domain": _domain(entries, width_px - 70)}}  # fmt: skip
    y = {"field": "accuracy", "type": "quantitative", "title": f"accuracy ({split}), %",
         "scale": {"zero": False, "nice": True, "padding": 8}}  # fmt: skip
    strength = {"condition": {"test": "datum.front", "value": 1}, "value": 0.38}
    whiskers = {
        "mark": {"type": "rule", "strokeWidth": 1.5, "aria": False},
        "encoding": {"x": {**x, "field": "p50"}, "x2": {"field": "p99"}, "y": y, "color": colours,
                     "opacity": {"condition": {"test": "datum.front", "value": 0.55}, "value": 0.2}},
    }  # fmt: skip
    lines = {
        "data": {"values": _front_rows(devices)},
        "mark": {"type": "line", "strokeWidth": 1.8, "interpolate": "step-after", "aria": False, "opacity": 0.75},
        "encoding": {"x": {**x, "field": "p50"}, "y": y, "detail": {"field": "device", "type": "nominal"},
                     "color": colours if len(devices) > 1 else {"value": SOFT_INK}},
    }  # fmt: skip
    dots = {
        "mark": {"type": "point", "filled": True, "size": 80, "stroke": PAPER, "strokeWidth": 1},
        "encoding": {"x": {**x, "field": "p50"}, "y": y, "color": colours, "shape": shapes, "opacity": strength,
                     "description": {"field": "what", "type": "nominal"}},
    }  # fmt: skip
    labels = {
        "data": {"values": _label_rows(devices, 340 if narrow else 420)},
        "mark": {"type": "text", "align": "right", "dx": -8, "dy": -8, "color": INK, "aria": False},
        "encoding": {"x": {**x, "field": "p50"}, "y": y, "text": {"field": "label", "type": "nominal"}},
    }
    return {
        "width": width_px - 16, "height": 340 if narrow else 420, "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": rows}, "layer": [whiskers, lines, dots, labels],
    }  # fmt: skip


def _keys(devices: Sequence[Device], width_px: int) -> tuple[Spec, Spec]:
    """Colours and shapes: devices differ by colour and variants by shape, the variants of one device by both."""
    variants = sorted({entry.variant for device in devices for entry in device.ladder})
    shapes = _key("variant", variants, shape_scale(variants), width_px)
    names = [device.label for device in devices]
    colours = _key("device", names, colour_scale(names), width_px)
    if len(devices) > 1 and shapes["legend"]:
        shapes["legend"]["symbolFillColor"] = shapes["legend"]["symbolStrokeColor"] = SOFT_INK
    if len(devices) == 1:
        colours = {**shapes, "scale": colour_scale(variants)}
    return colours, shapes


def _key(field: str, names: list[str], scale: Spec, width_px: int) -> Spec:
    """Colours or shapes for the values of a field, with a legend when there are several."""
    shown = legend(width_px, len(names)) if len(names) > 1 else None
    return {"field": field, "type": "nominal", "scale": scale, "legend": shown}


def _domain(entries: Sequence[Entry], inner_px: int) -> list[float]:
    """Of the latency axis, with room for the first label on the left."""
    low, high = min(e.p50_ms for e in entries), max(max(e.p99_ms, e.p50_ms) for e in entries)
    high *= 1.08
    decades = max(math.log10(high / low), 0.3)
    free = decades * LABEL_PX / max(inner_px - LABEL_PX, LABEL_PX)
    return [low / 10.0**free, high]


def _row(entry: Entry) -> dict[str, object]:
    what = (
        f"{entry.point.name} on {entry.device}: {percent(entry.accuracy)}, p50 {significant(entry.p50_ms)} ms, "
        f"p99 {significant(entry.p99_ms)} ms, {entry.point.threads} thread{'' if entry.point.threads == 1 else 's'}"
    )
    return {
        "variant": entry.variant, "device": entry.device, "front": entry.on_front, "what": what,
        "p50": float(f"{entry.p50_ms:.5g}"), "p99": float(f"{max(entry.p99_ms, entry.p50_ms):.5g}"),
        "accuracy": round(100.0 * entry.accuracy, 3),
    }  # fmt: skip


def _front_rows(devices: Sequence[Device]) -> list[dict[str, object]]:
    """The front of each device, one line each."""
    rows = []
    for device in devices:
        for entry in device.front:
            rows.append({**_row(entry), "what": ""})
    return rows


def _label_rows(devices: Sequence[Device], height_px: int) -> list[dict[str, object]]:
    """Names of the points on the front, as many as do not cover one another; none when several fronts would."""
    if len(devices) > 1:
        return []
    front = devices[0].front
    every = [entry.accuracy for device in devices for entry in device.ladder]
    span = (max(every) - min(every)) or 1.0
    kept: list[Entry] = []
    for entry in sorted(front, key=lambda e: (e is not front[-1], e is not front[0], -e.accuracy)):
        gaps = [abs(entry.accuracy - other.accuracy) / span * height_px for other in kept]
        if len(kept) < MOST_LABELS and all(gap >= LEAST_LABEL_GAP_PX for gap in gaps):
            kept.append(entry)
    return [{**_row(entry), "label": entry.label, "what": ""} for entry in kept]


def precision_chart(devices: Sequence[Device], split: str, width_px: int) -> Spec:
    """An arrow from each fp32 point to its int8 twin: left is faster, up is more accurate."""
    rows = [
        {
            "p50": float(f"{a.p50_ms:.5g}"), "to_p50": float(f"{b.p50_ms:.5g}"), "accuracy": 100.0 * a.accuracy,
            "to_accuracy": 100.0 * b.accuracy,
            "what": f"{a.label} to {b.label}: {significant(a.p50_ms)} to {significant(b.p50_ms)} ms, "
            f"{100.0 * (b.accuracy - a.accuracy):+.1f} points",
        }
        for device in devices
        for a, b in precision_pairs(device)
    ]  # fmt: skip
    x = {"type": "quantitative", "title": "latency p50, ms (logarithmic)", "axis": {"tickCount": 6},
         "scale": {"type": "log", "nice": False, "padding": 14}}  # fmt: skip
    y = {"type": "quantitative", "title": f"accuracy ({split}), %", "scale": {"zero": False, "padding": 8}}
    colours = colour_scale(["fp32", "int8"])

    def dots(precision: str, to: str) -> Spec:
        return {
            "transform": [{"calculate": f"'{precision}'", "as": "precision"}],
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "stroke": PAPER, "strokeWidth": 1},
            "encoding": {
                "x": {**x, "field": f"{to}p50"}, "y": {**y, "field": f"{to}accuracy"},
                "color": {"field": "precision", "type": "nominal", "scale": colours, "legend": legend(width_px)},
                "shape": {"field": "precision", "type": "nominal", "scale": shape_scale(["fp32", "int8"])},
                "description": {"field": "what", "type": "nominal"},
            },
        }  # fmt: skip

    links = {
        "mark": {"type": "rule", "color": SOFT_INK, "strokeWidth": 1.2, "opacity": 0.6, "aria": False},
        "encoding": {
            "x": {**x, "field": "p50"}, "x2": {"field": "to_p50"}, "y": {**y, "field": "accuracy"},
            "y2": {"field": "to_accuracy"},
        },
    }  # fmt: skip
    return {
        "width": width_px - 16, "height": 340, "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": rows}, "layer": [links, dots("fp32", ""), dots("int8", "to_")],
    }  # fmt: skip


def precision_pairs(device: Device) -> list[tuple[Entry, Entry]]:
    """(fp32, int8) entries of the same width, input size and engine."""
    by_key: dict[tuple[object, ...], dict[str, Entry]] = {}
    for entry in device.ladder:
        key = entry.point.width, entry.point.frames, entry.point.size_hw, entry.point.backend
        by_key.setdefault(key, {})[entry.point.precision] = entry
    return [(found["fp32"], found["int8"]) for found in by_key.values() if {"fp32", "int8"} <= set(found)]
