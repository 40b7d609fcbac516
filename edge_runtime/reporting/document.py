"""What a report is made of before it becomes HTML, Markdown, CSV or JSON: sections of sentences, figures, tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | int | float | bool | None
"""A cell; None is unknown."""
Row = Mapping[str, Value]
"""Column key -> cell."""
Spec = dict[str, Any]
"""A Vega-Lite chart without its width-independent style."""

UNKNOWN = "–"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without exponent: 0.0123, 1.23, 12,346."""
    if value == 0.0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def percent(share: float) -> str:
    """A share of one as a percentage."""
    return f"{100.0 * share:.1f} %"


FORMS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "name": str,
    "count": lambda value: f"{value:,.0f}",
    "number": significant,
    "share": percent,
    "points": lambda value: f"{100.0 * value:+.1f}",
    "megabytes": lambda value: significant(value / 1e6),
    "flag": lambda value: "yes" if value else "no",
}
"""How a column shows its values to people."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """For programs, with its unit: p50_ms."""
    title: str
    """For people."""
    form: str = "text"
    """One of FORMS."""

    def text(self, value: Value) -> str:
        """The cell for people."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return UNKNOWN
        return FORMS[self.form](value)

    @property
    def numeric(self) -> bool:
        """Whether cells line up at the right."""
        return self.form not in ("text", "name", "flag")


@dataclass(frozen=True)
class Table:
    """Rows under columns; a row may lack keys, which are then unknown."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    folded: bool = False
    """The page shows it closed at first."""
    marked: tuple[int, ...] = ()
    """Rows that matter most; the page shows them bold."""

    @property
    def used_columns(self) -> tuple[Column, ...]:
        """Columns of which at least one cell is known."""
        return tuple(c for c in self.columns if any(row.get(c.key) not in (None, "") for row in self.rows))


@dataclass(frozen=True)
class Figure:
    """One chart."""

    anchor: str
    """Unique on the page; letters, digits and dashes."""
    title: str
    caption: str
    """How to read it, in one or two sentences; also what a screen reader says."""
    spec: Callable[[int], Spec]
    """Width in pixels -> Vega-Lite."""


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    anchor: str
    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    preformatted: str = ""
    """Text that keeps its line breaks, such as a command."""


@dataclass(frozen=True)
class Tile:
    """One large figure of the summary."""

    title: str
    text: str
    detail: str = ""
    good: bool | None = None
    """True and False colour the tile; None leaves it."""


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    subtitle: str
    summary: tuple[str, ...]
    """Sentences for somebody who reads nothing else."""
    tiles: tuple[Tile, ...] = ()
    notes: tuple[str, ...] = ()
    """What to know before trusting the figures."""
    sections: tuple[Section, ...] = ()
    main_tables: tuple[Table, ...] = field(default=())
    """What `--format csv` writes: the first of them."""

    def figures(self) -> Iterator[Figure]:
        """All charts, in order."""
        for section in self.sections:
            yield from section.figures
