"""Draw a chart as SVG text that stands inside a page: vl-convert draws, this file fits the drawing into the page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from edge_runtime.reporting.chart_style import styled

SVG = "http://www.w3.org/2000/svg"
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Signs that XML cannot hold, not even escaped."""
REFERENCE = re.compile(r"url\(#([^)]+)\)")
VEGA_LITE_VERSION = "5.20"
DROPPED_ATTRIBUTES = ("aria-roledescription", "aria-hidden", "aria-label", "role", "pointer-events", "font-family")
"""One label on the whole chart says more than hundreds on its marks; the page brings its own font."""


def draw_chart(spec: dict[str, Any], label: str, prefix: str) -> str:
    """Draw one chart.

    Args:
        spec: Vega-Lite, with data inside.
        label: what a screen reader says.
        prefix: makes the ids of this drawing differ from those of the others on the page.
    Returns:
        an `<svg>` element; descriptions of marks became `<title>`, which browsers show under the pointer.
    """
    import vl_convert

    text = vl_convert.vegalite_to_svg(_drawable(styled(spec)), vl_version=VEGA_LITE_VERSION, allowed_base_urls=[])
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    for element in root.iter():
        _clean(element)
    _name_links(root, prefix)
    root.set("role", "img")
    root.set("aria-label", _drawable(label))
    return ElementTree.tostring(root, encoding="unicode")


def _drawable(value: Any) -> Any:
    """The chart without signs that would break the drawing."""
    if isinstance(value, str):
        return NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {key: _drawable(part) for key, part in value.items()}
    return [_drawable(part) for part in value] if isinstance(value, (list, tuple)) else value


def _clean(element: ElementTree.Element) -> None:
    """Turn a mark's description into a title, and drop what a page does not need."""
    described = element.get("aria-label")
    is_mark = element.get("role") == "graphics-symbol" and element.tag != f"{{{SVG}}}g"  # groups are axes and legends
    if described and is_mark:
        title = ElementTree.Element(f"{{{SVG}}}title")
        title.text = described
        element.insert(0, title)
    for name in DROPPED_ATTRIBUTES:
        element.attrib.pop(name, None)


def _name_links(root: ElementTree.Element, prefix: str) -> None:
    """Ids are page-wide: a second drawing with the same ones would be clipped by the first one's path."""
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{prefix}-{element.get('id')}")
        for name, value in element.attrib.items():
            if "url(#" in value:
                element.set(name, REFERENCE.sub(rf"url(#{prefix}-\1)", value))
