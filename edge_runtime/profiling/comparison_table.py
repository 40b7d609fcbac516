"""A comparison as a table for the terminal."""

from __future__ import annotations

from edge_runtime.profiling.compare import Comparison, PointComparison
from edge_runtime.profiling.result_table import aligned_rows

HEAD = ("point", "threads", "A p50 ms", "B p50 ms", "B / A", "interval", "accuracy", "")


def render_comparison(comparison: Comparison) -> str:
    """The table, then the sentences; the last one is the verdict."""
    rows = [HEAD, *(_row(point) for point in comparison.points)]
    return "\n".join([*aligned_rows(rows), *comparison.sentences])


def _row(point: PointComparison) -> tuple[str, ...]:
    change = point.accuracy_change
    return (
        point.name,
        str(point.threads),
        f"{point.a_p50_ms:.3f}",
        f"{point.b_p50_ms:.3f}",
        f"{point.ratio:.3f}",
        f"{point.ratio_low:.3f}-{point.ratio_high:.3f}",
        "-" if change is None else f"{100.0 * change:+.1f}",
        "" if point.verdict == "same" else point.verdict,
    )
