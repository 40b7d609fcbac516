"""Charts of adaptive against static, as Vega-Lite."""

from __future__ import annotations

from edge_runtime.reporting.bar_chart import Bar, bar_chart
from edge_runtime.reporting.chart_style import ACCENT, BAD, GOOD, SOFT_INK, is_narrow
from edge_runtime.reporting.document import Spec, percent
from edge_runtime.reporting.run_buckets import gather
from edge_runtime.reporting.run_log import RunLog
from edge_runtime.reporting.static_comparison import ADAPTIVE, CLAIRVOYANT, STATIC, Comparison, Score
from edge_runtime.reporting.timeline_chart import time_axis

COLOURS = {ADAPTIVE: GOOD, STATIC: ACCENT, CLAIRVOYANT: SOFT_INK}
STRIP_LABEL_PX = 132


def useful_accuracy_bars(comparison: Comparison, width_px: int) -> Spec:
    """Share of frames answered rightly and in time: the run, and the best static points."""
    shown = [*comparison.scores[:2], *comparison.static[: 8 if is_narrow(width_px) else 12]]
    bars = [
        Bar(
            _title(score), 100.0 * score.useful_accuracy, percent(score.useful_accuracy),
            f"{_title(score)}: {percent(score.useful_accuracy)} right and on time, "
            f"{percent(score.on_time_share)} on time",
            score.kind, 100.0 * score.mean_accuracy,
        )
        for score in shown
    ]  # fmt: skip
    return bar_chart(bars, "frames expected right and on time, %", width_px, COLOURS)


def late_strips(run: RunLog, comparison: Comparison, width_px: int) -> Spec:
    """When each way was late, as one strip each."""
    inner_px = width_px - STRIP_LABEL_PX - 22
    at_s = run.at_s[comparison.frames]
    buckets = gather(at_s - at_s[0], max(30, inner_px // 6))
    shown = _strip_scores(comparison)
    rows = [
        {"way": title, "s": round(float(start_s + at_s[0]), 4), "end": round(float(end_s + at_s[0]), 4),
         "late": round(float(late), 3)}
        for title, score in shown
        for start_s, end_s, late in zip(buckets.start_s, buckets.end_s, buckets.mean(~score.on_time), strict=True)
    ]  # fmt: skip
    axis = {"labelLimit": STRIP_LABEL_PX, "minExtent": STRIP_LABEL_PX, "maxExtent": STRIP_LABEL_PX, "grid": False}
    y = {"field": "way", "type": "nominal", "sort": [title for title, _ in shown], "title": None, "axis": axis}
    x = {**time_axis(run), "axis": {"grid": False}}
    ends = [{"op": "min", "field": "s", "as": "s"}, {"op": "max", "field": "end", "as": "end"}]
    whole = {
        "mark": {"type": "bar", "color": GOOD, "opacity": 0.3, "height": 18, "aria": False, "cornerRadius": 2},
        "encoding": {"x": x, "x2": {"field": "end"}, "y": y},
        "transform": [{"aggregate": ends, "groupby": ["way"]}],
    }
    opacity = {"field": "late", "type": "quantitative", "legend": None, "scale": {"domain": [0, 1], "range": [0.2, 1]}}
    late_parts = {
        "mark": {"type": "bar", "color": BAD, "height": 18, "aria": False, "minBandSize": 2},
        "encoding": {"x": x, "x2": {"field": "end"}, "y": y, "opacity": opacity},
        "transform": [{"filter": "datum.late > 0"}],
    }
    return {"width": inner_px, "height": {"step": 28}, "data": {"values": rows}, "layer": [whole, late_parts]}


def _title(score: Score) -> str:
    return f"always {score.title}" if score.kind == STATIC else score.title


def _strip_scores(comparison: Comparison) -> list[tuple[str, Score]]:
    """The run, then the best static point, the most accurate one and the one that was late least; each once."""
    static = comparison.static
    wanted = [
        static[0],
        max(static, key=lambda s: s.mean_accuracy),
        min(static, key=lambda s: (s.late, -s.mean_accuracy)),
    ]
    chosen = [comparison.adaptive]
    chosen += [score for k, score in enumerate(wanted) if all(score is not other for other in wanted[:k])]
    return [(_title(score), score) for score in chosen]
