"""A report as Markdown, CSV or JSON. Everything that came from a file is escaped for its format."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import Any

from edge_runtime.errors import ResultError
from edge_runtime.reporting.document import Report, Row, Table, Value

REPORT_SCHEMA = 1
MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>|#~])")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def markdown(report: Report) -> str:
    """Sentences and tables; the charts are in the page only."""
    lines = [f"# {_escaped(report.title)}", "", _escaped(report.subtitle), ""]
    for sentence in report.summary:
        lines += [_escaped(sentence), ""]
    if report.tiles:
        lines += ["| | | |", "|---|---|---|"]
        lines += [f"| {_escaped(t.title)} | **{_escaped(t.text)}** | {_escaped(t.detail)} |" for t in report.tiles]
        lines.append("")
    if report.notes:
        lines += ["## Before you trust the figures", "", *(f"- {_escaped(note)}" for note in report.notes), ""]
    for section in report.sections:
        tables = [table for table in section.tables if table.rows]
        if not (section.sentences or tables or section.preformatted):
            continue
        lines += [f"## {_escaped(section.title)}", ""]
        for sentence in section.sentences:
            lines += [_escaped(sentence), ""]
        for table in tables:
            lines += [*_markdown_table(table), ""]
        if section.preformatted:
            lines += [*(f"    {line}" for line in section.preformatted.splitlines()), ""]
    return "\n".join(lines).rstrip() + "\n"


def comma_separated(report: Report) -> str:
    """The main table, one line a row.

    Raises:
        ResultError: there is no table, or there are two that do not fit together.
    """
    tables = [table for table in report.main_tables if table.rows]
    if not tables:
        raise ResultError("these files hold no table for CSV; ask for --format json")
    if len({table.columns for table in tables}) > 1:
        raise ResultError("CSV is one table: give profiles or recorded runs, not both, or ask for --format json")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.key for column in tables[0].columns])
    for table in tables:
        for row in table.rows:
            writer.writerow([_csv_cell(row.get(column.key)) for column in table.columns])
    return stream.getvalue()


def json_text(report: Report) -> str:
    """Everything but the charts; unknown is null."""
    values: dict[str, Any] = {
        "schema_version": REPORT_SCHEMA,
        "format": "edge-runtime report",
        "title": report.title,
        "subtitle": report.subtitle,
        "summary": list(report.summary),
        "notes": list(report.notes),
        "tiles": [{"title": t.title, "text": t.text, "detail": t.detail} for t in report.tiles],
        "sections": [
            {
                "anchor": section.anchor,
                "title": section.title,
                "sentences": list(section.sentences),
                "tables": [{"title": t.title, "rows": [_plain(row) for row in t.rows]} for t in section.tables],
                "preformatted": section.preformatted,
            }
            for section in report.sections
        ],
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def _markdown_table(table: Table) -> list[str]:
    columns = table.used_columns
    lines = [
        f"**{_escaped(table.title)}**",
        "",
        "| " + " | ".join(_escaped(column.title) for column in columns) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|",
    ]
    for index, row in enumerate(table.rows):
        cells = [_escaped(column.text(row.get(column.key))) for column in columns]
        if index in table.marked:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    if table.note:
        lines += ["", _escaped(table.note)]
    return lines


def _csv_cell(value: Value) -> Value:
    """A cell that no spreadsheet takes for a formula; unknown is empty."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return _finite(value)


def _finite(value: Value) -> Value:
    """The value without the noise of its last digits; unknown when it is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _plain(row: Row) -> dict[str, Value]:
    return {key: _finite(value) for key, value in row.items()}
