"""Charts of profiles beside the ladder: memory, energy, operators."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.profiling.result import PointProfile
from edge_runtime.reporting.bar_chart import Bar, bar_chart
from edge_runtime.reporting.chart_style import (
    colour_scale,
    is_narrow,
    legend,
)
from edge_runtime.reporting.document import Spec, significant
from edge_runtime.reporting.ladder import Entry

MOST_BARS = 24
MOST_OPERATORS = 14
MOST_KINDS = 6


def memory_bars(entries: Sequence[Entry], width_px: int) -> Spec:
    """What each point adds to the memory of the process; the peak while it loads and runs behind it, pale."""
    bars = []
    for entry in list(entries)[:MOST_BARS]:
        memory = entry.point.memory
        added = max(memory.added_bytes or 0, 0)
        peak = None
        if memory.peak_bytes is not None and memory.baseline_bytes is not None:
            peak = max(memory.peak_bytes - memory.baseline_bytes, 0) / 1e6
        what = f"{entry.point.name}: adds {significant(added / 1e6)} MB"
        what += "" if peak is None else f", {significant(peak)} MB above the baseline at its peak"
        bars.append(Bar(entry.label, added / 1e6, f"{significant(added / 1e6)} MB", what, faded_to=peak))
    return bar_chart(bars, "memory added, MB", width_px)


def energy_bars(entries: Sequence[Entry], width_px: int) -> Spec:
    """Energy of one run."""
    known = [(e, e.point.energy.energy_mj) for e in entries if e.point.energy.energy_mj is not None][:MOST_BARS]
    bars = [
        Bar(entry.label, max(mj, 0.0), f"{significant(mj)} mJ", f"{entry.point.name}: {significant(mj)} mJ a run")
        for entry, mj in known
        if mj is not None
    ]
    return bar_chart(bars, "energy of one run, mJ", width_px)


def operator_bars(point: PointProfile, width_px: int) -> Spec:
    """The operators that take longest."""
    rows = sorted(point.operators.rows, key=lambda row: -row.mean_ms)[:MOST_OPERATORS]
    total = sum(row.mean_ms for row in point.operators.rows) or 1.0
    labels: dict[str, int] = {}
    bars = []
    for row in rows:
        name = row.name if len(row.name) <= 34 else "…" + row.name[-33:]
        labels[name] = labels.get(name, 0) + 1
        label = name if labels[name] == 1 else f"{name} ({labels[name]})"
        text = f"{significant(row.mean_ms)} ms, {100.0 * row.mean_ms / total:.0f} %"
        bars.append(Bar(label, row.mean_ms, text, f"{row.name}, {row.kind}, {row.provider}: {text}"))
    return bar_chart(bars, "milliseconds of one run", width_px)


def operator_kinds(entries: Sequence[Entry], width_px: int) -> Spec:
    """Time of each point by kind of operator, stacked."""
    totals: dict[str, float] = {}
    for entry in entries:
        for row in entry.point.operators.rows:
            totals[row.kind] = totals.get(row.kind, 0.0) + row.mean_ms
    kept = sorted(totals, key=lambda kind: -totals[kind])[:MOST_KINDS]
    names = [*kept, *(["other kinds"] if len(totals) > len(kept) else [])]
    rows = []
    for entry in entries:
        here: dict[str, float] = {}
        for row in entry.point.operators.rows:
            name = row.kind if row.kind in kept else "other kinds"
            here[name] = here.get(name, 0.0) + row.mean_ms
        rows += [
            {"label": entry.label, "kind": name, "ms": float(f"{ms:.5g}"), "order": names.index(name),
             "what": f"{entry.label}, {name}: {significant(ms)} ms"}
            for name, ms in here.items()
        ]  # fmt: skip
    y = {"field": "label", "type": "nominal", "sort": [entry.label for entry in entries], "title": None}
    return {
        "width": width_px - 16, "height": {"step": 25}, "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 12, "right": 4, "top": 4, "bottom": 4},
        "data": {"values": rows}, "mark": {"type": "bar", "height": {"band": 0.66}, "cornerRadiusEnd": 0},
        "encoding": {
            "y": y, "x": {"field": "ms", "type": "quantitative", "title": "milliseconds of one run, by the profiler",
                          "axis": {"tickCount": 4 if is_narrow(width_px) else 8}},
            "color": {"field": "kind", "type": "nominal", "scale": colour_scale(names),
                      "legend": {**legend(width_px, 2), "columns": 2 if is_narrow(width_px) else 7}},
            "order": {"field": "order", "type": "quantitative"},
            "description": {"field": "what", "type": "nominal"},
        },
    }  # fmt: skip
