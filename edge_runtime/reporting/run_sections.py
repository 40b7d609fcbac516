"""The sections of a report that tell of one recorded run."""

from __future__ import annotations

from functools import partial

import numpy as np

from edge_runtime.reporting.comparison_charts import late_strips, useful_accuracy_bars
from edge_runtime.reporting.distribution_chart import distributions
from edge_runtime.reporting.document import Figure, Section
from edge_runtime.reporting.run_charts import point_shares, step_counts
from edge_runtime.reporting.run_story import RunStory
from edge_runtime.reporting.static_comparison import MEASURED_TABLE, Comparison
from edge_runtime.reporting.timeline_chart import timeline

FEWEST_FOR_HILL = 5
"""Frames of a point below which its latencies are no distribution."""
MOST_HILLS = 14


def run_sections(story: RunStory, prefix: str = "", suffix: str = "") -> tuple[Section, ...]:
    """Everything about a run.

    Args:
        story: the run.
        prefix: begins every anchor, so that several runs fit on one page.
        suffix: ends every heading, for the same reason.
    """
    made = (_timeline, _comparison, _points, _latency, _steps, _facts)
    return tuple(section for make in made if (section := make(story, prefix, suffix)) is not None)


def _timeline(story: RunStory, prefix: str, suffix: str) -> Section:
    figure = Figure(
        f"{prefix}timeline",
        "The run over time",
        "Latency (line: median, band: least to most) under the deadline; the operating point; the controller's "
        "estimate of how much slower than its table the device is; load, and the sensors that were known.",
        partial(timeline, story.run),
    )
    return Section(f"{prefix}run", f"What happened{suffix}", figures=(figure,))


def _comparison(story: RunStory, prefix: str, suffix: str) -> Section:
    anchor, title = f"{prefix}static", f"Adaptive against static{suffix}"
    comparison = story.comparison
    if comparison is None:
        why = "Not computed: the recording lacks accuracies, deadlines, slowdowns, or the latencies of two points."
        return Section(anchor, title, (why,))
    bars = Figure(
        f"{prefix}useful",
        "Right and on time",
        "Solid: expected accuracy when a late answer counts as wrong. Faded: what lateness cost. Clairvoyant is the "
        "best choice for each frame, known afterwards. The best static points are shown, the table has all.",
        partial(useful_accuracy_bars, comparison),
    )
    strips = Figure(
        f"{prefix}late",
        "When each way was late",
        "Green: on time. Red: late; the stronger, the more of the frames.",
        partial(late_strips, story.run, comparison),
    )
    return Section(anchor, title, _how_computed(comparison), (bars, strips), (story.scores_table(),))


def _how_computed(comparison: Comparison) -> tuple[str, ...]:
    frames = f"{len(comparison.frames):,} frames"
    told = [
        f"Static rows are computed, not run. For each of {frames} a point's engine time is its tabled one (from "
        f"{comparison.table}) times the run's own estimate of the slowdown; whatever else the frame took, stalls "
        "included, counts for every point alike. That flatters points larger than the one that ran, since a longer run "
        "meets more stalls."
    ]
    if comparison.table == MEASURED_TABLE:
        told = [f"Static rows are computed, not run, for {frames}, from {comparison.table}."]
    if comparison.without_table:
        told.append(
            f"{comparison.without_table:,} points are left out: the recording does not know their accuracy or latency. "
            "Give a profile of the bundle on this device beside the recording to have them."
        )
    return tuple(told)


def _points(story: RunStory, prefix: str, suffix: str) -> Section:
    figure = Figure(
        f"{prefix}shares",
        "Operating points used",
        "Share of the frames that each operating point answered.",
        partial(point_shares, story.run),
    )
    title = f"Points and reasons{suffix}"
    return Section(f"{prefix}points", title, figures=(figure,), tables=(story.reasons_table(), story.late_table()))


def _latency(story: RunStory, prefix: str, suffix: str) -> Section:
    shown = [(i, taken) for i, taken in story.engine_times() if len(taken) >= FEWEST_FOR_HILL][:MOST_HILLS]
    shown.sort(key=lambda pair: float(np.median(pair[1])))
    samples = [(story.run.points[i].label, taken) for i, taken in shown]
    figure = Figure(
        f"{prefix}latency-distributions",
        "Time inside the engine, by operating point",
        "The higher the hill, the more frames took so long; marks at the median and the 99th percentile.",
        partial(distributions, samples, "milliseconds (logarithmic)"),
    )
    figures = (figure,) if samples else ()
    return Section(f"{prefix}latency", f"Latency of the run{suffix}", figures=figures, tables=(story.latency_table(),))


def _steps(story: RunStory, prefix: str, suffix: str) -> Section | None:
    if not story.run.known("steps"):
        return None
    figure = Figure(
        f"{prefix}steps",
        "Steps until the answer",
        "A glance-and-focus model stops when it is sure, or when the next step would not fit.",
        partial(step_counts, story.run),
    )
    return Section(f"{prefix}exits", f"Early exits{suffix}", figures=(figure,))


def _facts(story: RunStory, prefix: str, suffix: str) -> Section:
    return Section(f"{prefix}facts", f"The recording{suffix}", tables=(story.facts_table(),))
