"""The look of every chart: colours that follow the page's scheme, fonts, and the sizes in which a chart is drawn."""

from __future__ import annotations

from typing import Any

WIDE_PX = 860
"""Width of a chart on a desktop and on paper."""
NARROW_PX = 340
"""Width of a chart on a phone: text keeps its size where a scaled picture would be too small to read."""
FONT_PX = 12

# Variables of page.css. An SVG inside a page resolves them, so one drawing serves the light and the dark scheme.
INK, SOFT_INK, GRID = "var(--ink)", "var(--soft-ink)", "var(--grid)"
ACCENT, ACCENT_SOFT = "var(--accent)", "var(--accent-soft)"
GOOD, BAD, NEUTRAL = "var(--good)", "var(--bad)", "var(--neutral)"
PAPER = "var(--paper)"
SERIES = tuple(f"var(--series-{number})" for number in range(1, 9))
"""Colours of things side by side, such as devices."""
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")
"""The same things for who cannot tell the colours apart."""

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT_INK, "titleColor": SOFT_INK, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID,
        "labelFontSize": FONT_PX, "titleFontSize": FONT_PX, "titleFontWeight": "normal", "titlePadding": 8,
        "labelPadding": 5, "gridDash": [2, 3], "labelOverlap": True, "labelSeparation": 8,
    },
    "axisY": {"domain": False, "ticks": False},
    "axisX": {"grid": True},
    "legend": {
        "labelColor": INK, "titleColor": SOFT_INK, "labelFontSize": FONT_PX, "titleFontSize": FONT_PX,
        "titleFontWeight": "normal", "orient": "top", "labelLimit": 320, "symbolSize": 90, "offset": 6,
        "columnPadding": 26,
    },
    "header": {"labelColor": INK, "titleColor": SOFT_INK, "labelFontSize": FONT_PX, "titleFontSize": FONT_PX},
    "title": {"color": INK, "fontSize": FONT_PX + 1, "fontWeight": 600, "anchor": "start"},
    "text": {"color": INK, "fontSize": FONT_PX},
    "line": {"strokeWidth": 2, "strokeJoin": "round"},
    "rule": {"color": SOFT_INK},
    "bar": {"cornerRadiusEnd": 3},
}  # fmt: skip


def is_narrow(width_px: int) -> bool:
    """Whether a chart of this width is for a phone."""
    return width_px < 600


def styled(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart with the common style."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "padding": 4, "config": CONFIG, **spec}


def legend(width_px: int, count: int = 2) -> dict[str, Any]:
    """A legend above the chart; its entries stand below one another on a phone."""
    return {
        "title": None,
        "orient": "top",
        "direction": "vertical" if is_narrow(width_px) or count > 3 else "horizontal",
        "symbolOpacity": 1,
    }


def colour_scale(names: list[str]) -> dict[str, Any]:
    """A colour for each name, in order."""
    return {"domain": names, "range": [SERIES[i % len(SERIES)] for i in range(len(names))]}


def shape_scale(names: list[str]) -> dict[str, Any]:
    """A shape for each name, in order."""
    return {"domain": names, "range": [SHAPES[i % len(SHAPES)] for i in range(len(names))]}


def panel_title(text: str) -> dict[str, Any]:
    """The name of one panel among several, above its left corner."""
    return {
        "text": text,
        "fontSize": FONT_PX,
        "fontWeight": "normal",
        "color": SOFT_INK,
        "anchor": "start",
        "offset": 6,
    }
