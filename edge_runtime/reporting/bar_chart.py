"""Horizontal bars with their figures beside them; many charts of a report are these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.reporting.chart_style import ACCENT, NEUTRAL, is_narrow, legend
from edge_runtime.reporting.document import Spec

SIGN_PX = 7.2
"""Width of one sign of the chart's text, rather too much than too little."""


@dataclass(frozen=True)
class Bar:
    """One bar; negative values are not drawn."""

    label: str
    """Left of it; unique in its chart."""
    value: float
    text: str
    """Behind its end."""
    description: str
    """Under the pointer."""
    group: str = ""
    """Chooses the colour."""
    faded_to: float | None = None
    """A pale bar behind it reaches this far."""


def bar_chart(bars: Sequence[Bar], title: str, width_px: int, colours: Mapping[str, str] | None = None) -> Spec:
    """The bars from top to bottom.

    Args:
        bars: in order.
        title: of the axis, with its unit.
        width_px: of the whole chart.
        colours: group -> colour, with a legend when there are several; None colours all alike.
    """
    longest = max((max(bar.value, bar.faded_to or 0.0) for bar in bars), default=0.0) or 1.0
    narrow = is_narrow(width_px)
    label_limit_px = 130 if narrow else 260
    y = {"field": "label", "type": "nominal", "sort": [bar.label for bar in bars], "title": None,
         "axis": {"labelLimit": label_limit_px}}  # fmt: skip
    room = _room(bars, width_px, label_limit_px)
    x = {"type": "quantitative", "title": title, "scale": {"domain": [0, longest * room], "nice": False},
         "axis": {"tickCount": 4 if narrow else 8}}  # fmt: skip
    height = {"band": 0.66}
    faded = {
        "mark": {"type": "bar", "color": NEUTRAL, "opacity": 0.6, "height": height, "aria": False},
        "encoding": {"y": y, "x": {**x, "field": "faded"}},
        "transform": [{"filter": "datum.faded > 0"}],
    }
    solid = {
        "mark": {"type": "bar", "height": height},
        "encoding": {"y": y, "x": {**x, "field": "value"}, "color": _colour(bars, width_px, colours),
                     "description": {"field": "what", "type": "nominal"}},
    }  # fmt: skip
    texts = {
        "mark": {"type": "text", "align": "left", "dx": 6, "aria": False},
        "encoding": {"y": y, "x": {**x, "field": "end"}, "text": {"field": "text", "type": "nominal"}},
        "transform": [{"calculate": "max(datum.value, datum.faded)", "as": "end"}],
    }
    return {
        "padding": {"left": 12, "right": 4, "top": 4, "bottom": 4},
        "width": width_px - 16, "height": {"step": 25}, "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": _rows(bars)},
        "layer": [faded, solid, texts] if any(bar.faded_to for bar in bars) else [solid, texts],
    }  # fmt: skip


def _rows(bars: Sequence[Bar]) -> list[dict[str, object]]:
    return [
        {"label": bar.label, "value": float(f"{bar.value:.6g}"), "text": bar.text, "what": bar.description,
         "group": bar.group, "faded": float(f"{bar.faded_to or 0.0:.6g}")}
        for bar in bars
    ]  # fmt: skip


def _colour(bars: Sequence[Bar], width_px: int, colours: Mapping[str, str] | None) -> Spec:
    """One colour for all, or one for each group, with a legend when there are several."""
    if not colours:
        return {"value": ACCENT}
    used = [group for group in colours if any(bar.group == group for bar in bars)]
    scale = {"domain": used, "range": [colours[group] for group in used]}
    shown = legend(width_px, len(used)) if len(used) > 1 else None
    return {"field": "group", "type": "nominal", "scale": scale, "legend": shown}


def _room(bars: Sequence[Bar], width_px: int, label_limit_px: int) -> float:
    """How much longer than the longest bar the axis must be, for the figure behind it."""
    label_px = min(max((SIGN_PX * len(bar.label) for bar in bars), default=0.0), label_limit_px)
    text_px = max((SIGN_PX * len(bar.text) for bar in bars), default=0.0) + 10.0
    inner_px = max(width_px - label_px - 40.0, 1.5 * text_px)
    return inner_px / (inner_px - text_px)
