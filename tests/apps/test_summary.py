"""The numbers at the end of a run, exact on made-up results."""

from __future__ import annotations

import io

import pytest
from camera_fakes import make_result
from rich.console import Console

from apps.camera.summary import PointShare, RunStatistics, Summary, summary_table


def made_up_run() -> Summary:
    statistics = RunStatistics()
    # latency 1..100 ms, a deadline of 90; the last five were not feasible; two points, three switches
    for index in range(100):
        point = "small" if 10 <= index < 30 or index >= 90 else "large"
        result = make_result(
            index, point, latency_ms=index + 1.0, deadline_ms=90.0, feasible=index < 95, dropped=index // 10
        )
        statistics.add(result, now_s=1000.0 + index * 0.1)
    return statistics.summary()


def test_every_number_is_exact() -> None:
    summary = made_up_run()
    assert summary.frames == 100
    assert summary.feasible == 95
    assert summary.attainment == 90 / 95
    assert summary.late == 10
    assert summary.switches == 3
    assert summary.dropped == 9
    assert summary.latency_ms == pytest.approx((50.5, 95.05, 99.01))
    assert summary.wall_s == pytest.approx(9.9)
    assert summary.fps == pytest.approx(10.0)  # 99 intervals in 9.9 s
    assert [(point.name, point.frames) for point in summary.points] == [("large", 70), ("small", 30)]
    assert [point.time_s for point in summary.points] == pytest.approx([6.9, 3.0])


def test_a_run_without_frames_and_one_with_a_single_frame_have_summaries() -> None:
    empty = RunStatistics().summary()
    assert (empty.frames, empty.attainment, empty.fps, empty.latency_ms, empty.points) == (0, None, None, (), ())
    statistics = RunStatistics()
    statistics.add(make_result(latency_ms=7.0, feasible=False), 5.0)
    single = statistics.summary()
    assert (single.frames, single.attainment, single.fps) == (1, None, None)
    assert single.latency_ms == (7.0, 7.0, 7.0)
    assert single.points == (PointShare("w100_r64", 1, 0.0),)


def test_the_table_holds_every_number() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(summary_table(made_up_run(), {"large": "1.00 × 64"}))
    text = stream.getvalue()
    for words in (
        "100 in 9.9 s (10.0 a second)",
        "94.7% of 95 feasible",
        "late",
        "50.50 ms",
        "95.05 ms",
        "99.01 ms",
        "1.00 × 64",
        "70.0%  70 frames  6.9 s",
        "small",
        "30.0%  30 frames  3.0 s",
    ):
        assert words in text
