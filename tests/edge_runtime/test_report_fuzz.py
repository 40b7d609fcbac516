"""Whatever stands in a file: a report or one sentence, never a traceback, and charts without numbers that are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import POINTS, STABLE, frame_line, latency, profile, run_lines, start_line, write_profile, write_run

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.profiling.result import Energy, Memory, Operator, Operators, Sustained, SustainedSample
from edge_runtime.reporting.chart_style import NARROW_PX, WIDE_PX
from edge_runtime.reporting.document import Report
from edge_runtime.reporting.report import build_report
from edge_runtime.reporting.text_formats import json_text, markdown

NASTY: list[Any] = [
    0, -1, 1e308, -1e308, 1e-308, float("nan"), float("inf"), None, "x", "", [], {}, [1, 2], {"a": 1}, True, False,
    2**70, 10**400, "\ud800", "<b>", 3.5, 1,
]  # fmt: skip
KEYS = sorted({*frame_line(0), "steps", "limited_by", "late_because", "point_latency_ms"} - {"event"})
EDITS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(KEYS), st.sampled_from(NASTY)), max_size=40)
START_EDITS = st.lists(
    st.tuples(st.sampled_from(["bundle", "backend", "started", "points", "policy"]), st.sampled_from(NASTY)), max_size=3
)
POINT_EDITS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["name", "width", "size_hw", "accuracy"]), st.sampled_from(NASTY)),
    max_size=4,
)


def all_of(report: Report) -> None:
    """Everything that a report is asked for, short of drawing."""
    for figure in report.figures():
        for width_px in (WIDE_PX, NARROW_PX):
            json.dumps(figure.spec(width_px), allow_nan=False)
    json.loads(json_text(report))
    assert markdown(report).startswith("# ")


def report_or_sentence(path: Path) -> Report | None:
    """The report, or None after a sentence that names the file."""
    try:
        return build_report([path])
    except EdgeRuntimeError as error:
        if not str(error).startswith(str(path)):
            raise
        return None


@given(EDITS, START_EDITS, POINT_EDITS)
def test_any_value_in_telemetry_gives_a_report_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Any], start: list[Any], points: list[Any]
) -> None:
    lines = run_lines(40)
    for key, value in start:
        lines[0][key] = value
    for index, key, value in points:
        listed = lines[0]["points"]
        if isinstance(listed, list) and len(listed) == len(POINTS):
            listed[index][key] = value
    for index, key, value in edits:
        lines[1 + index % 40][key] = value
    path = tmp_path_factory.mktemp("run") / "t.jsonl"
    report = report_or_sentence(write_run(path, lines))
    if report is not None:
        all_of(report)


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_any_bytes_give_a_report_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], after_a_run: bool
) -> None:
    path = tmp_path_factory.mktemp("run") / "t.jsonl"
    write_run(path, run_lines(5) if after_a_run else [])
    path.write_bytes(path.read_bytes() + b"\n".join(chunks))
    report = report_or_sentence(path)
    assert report is not None or not after_a_run
    if report is not None:
        all_of(report)


def test_a_profile_of_one_point_with_extreme_values_is_shown(tmp_path: Path) -> None:
    whole = profile()
    point = replace(
        whole.points[0], latency=latency(1e-9, np.random.default_rng(1), 1, 1), accuracy={"test": 0.0},
        memory=Memory("rss", 5, 3, 1, -2), energy=Energy("estimate", -1.0, None, "a guess"),
        operators=Operators("profiler", tuple(Operator(name, "", 0.0) for name in ("", "x" * 300, "x" * 300))),
    )  # fmt: skip
    still = Sustained("p", "b", 1, 1.0, (SustainedSample(0.0, 1, 0.0, 0.0),), STABLE)
    path = write_profile(tmp_path / "a.json", points=(point,), sustained=(still,))
    all_of(build_report([path]))


def test_a_run_whose_numbers_are_all_alike_is_shown(tmp_path: Path) -> None:
    lines = [start_line(), *(frame_line(i, captured_s=5.0, own_load=0, foreign_load=0) for i in range(9))]
    all_of(build_report([write_run(tmp_path / "t.jsonl", lines)]))


def test_hundreds_of_points_make_no_endless_chart(tmp_path: Path) -> None:
    lines = run_lines(900)
    lines[0]["points"] = [{"name": f"p{i}", "accuracy": 0.5, "width": 0.5, "size_hw": [64, 64]} for i in range(300)]
    for index, line in enumerate(lines[1:-1]):
        line["point"] = f"p{index % 300}"
    report = build_report([write_run(tmp_path / "t.jsonl", lines)])
    all_of(report)
    timeline = next(figure for figure in report.figures() if figure.anchor == "run-1-timeline").spec(WIDE_PX)
    assert sum(panel["height"] for panel in timeline["vconcat"]) < 2000
    assert len(POINTS) == 3
