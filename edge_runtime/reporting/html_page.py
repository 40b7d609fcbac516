"""A report as one self-contained HTML page: no script, nothing from the network, light and dark, screen and paper."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from edge_runtime.errors import missing_package
from edge_runtime.reporting.chart_style import NARROW_PX, WIDE_PX
from edge_runtime.reporting.document import Figure, Report
from edge_runtime.reporting.svg_chart import draw_chart

UNIT_AFTER_NUMBER = re.compile(r"(?<=\d) (?=(?:ms|mJ|MB|MHz|W|°C|s|%)(?:\W|$))")
FOLDER = Path(__file__).resolve().parent


def require_page_packages() -> None:
    """Refuse early, before hours of recording, what would fail at the end.

    Raises:
        BackendError: jinja2 or vl-convert is not installed.
    """
    for module, package in (("jinja2", "jinja2"), ("vl_convert", "vl-convert-python")):
        try:
            import_module(module)
        except ImportError as error:
            raise missing_package(package, "report", "write a report as a page") from error


def html_page(report: Report) -> str:
    """The whole page.

    Raises:
        BackendError: jinja2 or vl-convert is not installed.
    """
    require_page_packages()
    import jinja2
    from markupsafe import Markup  # jinja2 brings it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["glued"] = glued
    drawn = {figure.anchor: [(n, Markup(svg)) for n, svg in _drawings(figure)] for figure in report.figures()}
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(report=report, drawn=drawn, style=style)


def glued(text: str) -> str:
    """The text with figures that keep their unit on their line."""
    return UNIT_AFTER_NUMBER.sub("\N{NO-BREAK SPACE}", text)


def _drawings(figure: Figure) -> tuple[tuple[str, str], ...]:
    """The figure for a desktop and for a phone: (CSS class, SVG)."""
    return tuple(
        (name, draw_chart(figure.spec(width_px), figure.caption, f"{figure.anchor}-{name}"))
        for name, width_px in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
