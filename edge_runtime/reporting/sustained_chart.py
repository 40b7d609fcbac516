"""One point without pause for a long time: latency, and whatever sensor was known, above one another."""

from __future__ import annotations

from edge_runtime.profiling.result import Sustained
from edge_runtime.reporting.chart_style import ACCENT, ACCENT_SOFT, panel_title
from edge_runtime.reporting.document import Spec

LABEL_ROOM_PX = 60
PANELS = (
    ("frequency_mhz", "processor frequency, MHz", 1.0),
    ("temperature_c", "temperature, °C", 1.0),
    ("power_w", "power, W", 1.0),
    ("foreign_load", "load of other programs, % of all cores", 100.0),
)


def sustained_chart(curve: Sustained, width_px: int) -> Spec:
    """Latency under sustained load, and what the sensors said."""
    panels = [_latency_panel(curve)]
    for key, title, factor in PANELS:
        known = [(s.at_s, getattr(s, key)) for s in curve.samples if getattr(s, key) is not None]
        if known:
            scale: Spec = {"domain": [0, 100]} if factor == 100.0 else {"zero": False, "nice": True}
            rows = [{"s": at_s, "v": round(factor * value, 3)} for at_s, value in known]
            panels.append({
                "height": 64, "data": {"values": rows}, "title": panel_title(title),
                "layer": [_line(curve, "v", scale)],
            })  # fmt: skip
    for panel in panels:
        panel["width"] = width_px - LABEL_ROOM_PX - 24
    for panel in panels[:-1]:
        for layer in panel["layer"]:
            layer["encoding"]["x"]["axis"] = {"labels": False, "ticks": False, "title": None}
    return {"vconcat": panels, "spacing": 14, "resolve": {"scale": {"x": "shared"}}}


def _latency_panel(curve: Sustained) -> Spec:
    rows = [{"s": sample.at_s, "p50": sample.p50_ms, "p99": sample.p99_ms} for sample in curve.samples]
    line = _line(curve, "p50", {"zero": True})
    band = {
        "mark": {"type": "area", "color": ACCENT_SOFT, "aria": False},
        "encoding": {**line["encoding"], "x": _x(curve), "y2": {"field": "p99"}},
    }
    title = panel_title("latency, ms: p50, band to p99")
    return {"height": 170, "data": {"values": rows}, "layer": [band, line], "title": title}


def _x(curve: Sustained) -> Spec:
    domain = [0, max(sample.at_s for sample in curve.samples) or 1.0]
    scale = {"domain": domain, "nice": False}
    return {"field": "s", "type": "quantitative", "title": "seconds without pause", "scale": scale}


def _line(curve: Sustained, field: str, scale: Spec) -> Spec:
    axis = {"minExtent": LABEL_ROOM_PX, "maxExtent": LABEL_ROOM_PX, "tickCount": 3}
    y = {"field": field, "type": "quantitative", "title": None, "axis": axis, "scale": scale}
    mark = {"type": "line", "color": ACCENT, "strokeWidth": 1.8, "aria": False}
    return {"mark": mark, "encoding": {"x": _x(curve), "y": y}}
