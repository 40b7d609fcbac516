"""Reading recorded runs for a report, and comparing them with static points."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import frame_line, run_lines, start_line, write_run

from edge_runtime.errors import ResultError
from edge_runtime.reporting.run_buckets import gather, stretches
from edge_runtime.reporting.run_log import RunLog
from edge_runtime.reporting.run_points import distinct_labels
from edge_runtime.reporting.run_reader import read_run
from edge_runtime.reporting.run_story import RunStory
from edge_runtime.reporting.static_comparison import compare_with_static, tabled_latencies
from edge_runtime.telemetry import TELEMETRY_SCHEMA


def read(tmp_path: Path, lines: list[dict[str, Any]] | None = None, tail: str = "") -> RunLog:
    return read_run(write_run(tmp_path / "t.jsonl", lines, tail))


def test_a_whole_run_is_read_without_remarks(tmp_path: Path) -> None:
    run = read(tmp_path)
    assert (run.frames, run.complete, run.notes) == (90, True, ())
    assert (run.bundle, run.backend) == ("everyday", "onnxruntime")
    assert [p.label for p in run.points] == ["0.25 × 32", "0.50 × 48", "1.00 × 64"]
    assert run.duration_s == pytest.approx(89 / 30, abs=1e-6)
    assert run.known("slowdown")
    assert not run.known("battery_share")


def test_a_run_that_was_killed_in_a_line_is_shown_up_to_there(tmp_path: Path) -> None:
    run = read(tmp_path, run_lines()[:-1], tail='{"event":"frame","index":90,"capt')
    assert run.frames == 90
    assert run.notes == ("The last line is cut off: the run was killed. The 90 frames before it are shown.",)


def test_a_run_without_an_end_says_so(tmp_path: Path) -> None:
    (note,) = read(tmp_path, run_lines()[:-1]).notes
    assert "no end" in note


def test_a_clock_that_went_backwards_is_told_and_time_never_falls(tmp_path: Path) -> None:
    lines = run_lines(20)
    for line in lines[11:21]:
        line["captured_s"] -= 50.0
    run = read(tmp_path, lines)
    assert (np.diff(run.at_s) >= 0.0).all()
    assert run.duration_s < 2.0
    assert [note for note in run.notes if "clock went backwards" in note] == [
        "1 times the clock went backwards; those steps count as no time at all."
    ]


def test_nan_and_infinity_count_as_unknown(tmp_path: Path) -> None:
    lines = run_lines(12)
    lines[3]["slowdown"], lines[4]["deadline_ms"], lines[5]["latency_ms"] = math.nan, math.inf, math.nan
    run = read(tmp_path, lines)
    assert run.frames == 11  # without a latency there is no frame
    assert int(np.isnan(run.columns["slowdown"]).sum()) == 1
    assert any("3 frames hold NaN or infinity" in note for note in run.notes)


def test_damaged_lines_in_the_middle_are_left_out_and_named(tmp_path: Path) -> None:
    path = write_run(tmp_path / "t.jsonl")
    content = path.read_text(encoding="utf-8").splitlines(keepends=True)
    content[4] = "}{\n"
    path.write_text("".join(content), encoding="utf-8")
    run = read_run(path)
    assert run.frames == 89
    assert run.notes == ("1 lines are damaged and left out, the first is line 5.",)


def test_events_and_keys_of_later_versions_are_ignored(tmp_path: Path) -> None:
    lines = run_lines(8)
    lines.insert(3, {"event": "weather", "wind_mps": 3})
    lines[5]["mood"] = {"good": [1, 2, 3]}
    run = read(tmp_path, lines)
    assert (run.frames, run.notes) == (8, ())


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "the recording is empty"),
        ([start_line()], "the recording has no frames"),
        ([{"hello": 1}], "line 1 is not telemetry"),
        ([start_line(schema_version=TELEMETRY_SCHEMA + 1), frame_line(0)], "update edge-runtime"),
        ([start_line(schema_version=True), frame_line(0)], "telemetry schema True is unknown"),
        ([*run_lines(3), *run_lines(3)], "line 6 starts a second run"),
    ],
)
def test_a_file_that_tells_no_story_is_refused_with_a_sentence(
    tmp_path: Path, lines: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(ResultError, match=sentence):
        read(tmp_path, lines)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"nothing\.jsonl: cannot be read: No such file"):
        read_run(tmp_path / "nothing.jsonl")


def test_budget_and_table_lines_of_schema_2_are_read(tmp_path: Path) -> None:
    table = [{"name": "large", "accuracy": 0.61, "latency_ms": 1.25, "p99_ms": None}]
    lines = [
        start_line(schema_version=2),
        {"event": "table", "points": table},
        {"event": "budget", "deadline_ms": 2.0, "min_accuracy": 0.45},
        frame_line(0, limited_by="device hot"),
        {"event": "budget", "deadline_ms": 2.0, "min_accuracy": 0.0},
        frame_line(1, on_time=False, late_because="decode"),
        {"event": "failed", "index": 2},
        {"event": "end"},
    ]
    run = read(tmp_path, lines)
    assert run.columns["min_accuracy"].tolist() == [0.45, 0.0]
    assert {p.name: (p.accuracy, p.latency_ms) for p in run.points}["large"] == (0.61, 1.25)
    assert run.limits == ("device hot", "best within the deadline")
    assert RunStory(run).late_table().rows == ({"cause": "decode", "frames": 1},)
    assert run.notes == ("1 frames were not answered, because the engine failed.",)


def test_text_that_would_break_a_page_is_replaced(tmp_path: Path) -> None:
    line = start_line(bundle="a\u0000b\ud800")
    run = read(tmp_path, [line, frame_line(0, reason="x" * 5000)])
    assert run.bundle == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert len(run.reasons[0]) == 200


def test_the_tabled_latency_is_the_prediction_without_its_slowdown(tmp_path: Path) -> None:
    found, source = tabled_latencies(read(tmp_path))
    assert found == pytest.approx({"small": 0.1, "middle": 0.3, "large": 1.0})
    assert source == "the controller's own predictions"


def test_static_scores_follow_from_tabled_latency_slowdown_and_deadline(tmp_path: Path) -> None:
    """Large: 1.0 ms, +0.5 beside the engine, deadline 2 ms: late exactly while the device is 3 times slower."""
    comparison = compare_with_static(read(tmp_path))
    assert comparison is not None
    scores = {score.point or score.kind: score for score in comparison.scores}
    slow = 45  # the second and third quarter of 90 frames, 22 or 23 each
    assert scores["large"].late == pytest.approx(slow, abs=1)
    assert (scores["middle"].late, scores["small"].late, scores["adaptive"].late) == (0, 0, 0)
    assert scores["large"].useful_accuracy == pytest.approx(0.6 * (1 - scores["large"].late / 90))
    assert scores["middle"].useful_accuracy == pytest.approx(0.5)
    assert scores["adaptive"].useful_accuracy == pytest.approx(0.526, abs=0.01)
    assert scores["clairvoyant"].useful_accuracy >= max(s.useful_accuracy for s in comparison.scores)
    assert comparison.static[0].point == "middle"
    assert [score.basis for score in comparison.scores] == ["measured", *["computed"] * 4]


def test_a_run_pinned_to_one_point_scores_as_that_static_point(tmp_path: Path) -> None:
    """The computed row of the point that ran is the run, stalls included."""
    lines = [start_line(), frame_line(0, "small"), frame_line(1, "large")]
    lines += [
        frame_line(i, "middle", 2.0, latency_ms=9.0 if i % 7 == 0 else 1.1, on_time=i % 7 != 0) for i in range(2, 60)
    ]
    comparison = compare_with_static(read(tmp_path, lines))
    assert comparison is not None
    middle = next(score for score in comparison.static if score.point == "middle")
    assert middle.on_time[2:].tolist() == comparison.adaptive.on_time[2:].tolist()


def test_what_a_frame_cost_beside_the_engine_counts_for_every_point(tmp_path: Path) -> None:
    """1.4 ms went elsewhere: the large point (1.0 ms) would have missed 2 ms, the middle one (0.3 ms) would not."""
    lines = [start_line(), frame_line(0, "large"), frame_line(1, "middle")]
    lines += [frame_line(i, "small", latency_ms=1.5) for i in range(2, 12)]
    comparison = compare_with_static(read(tmp_path, lines))
    assert comparison is not None
    assert {s.point: int((~s.on_time[2:]).sum()) for s in comparison.static} == {"small": 0, "middle": 0, "large": 10}


def test_the_run_itself_knows_best_whether_it_was_late(tmp_path: Path) -> None:
    """Rounded numbers may say otherwise; then the recorded word counts, for the run and for its point alike."""
    lines = [start_line(), frame_line(0, "large"), *(frame_line(i, on_time=False) for i in range(1, 6))]
    comparison = compare_with_static(read(tmp_path, lines))
    assert comparison is not None
    assert {s.point: s.late for s in comparison.static} == {"middle": 5, "large": 0}
    assert comparison.adaptive.late == 5


def test_a_prediction_comes_before_the_query_table(tmp_path: Path) -> None:
    table = [{"name": "middle", "latency_ms": 9.0}, {"name": "large", "latency_ms": 7.0}]
    lines = [start_line(schema_version=2), {"event": "table", "points": table}, *(frame_line(i) for i in range(5))]
    found, source = tabled_latencies(read(tmp_path, lines), {"large": 8.0})
    assert found == pytest.approx({"middle": 0.3, "large": 7.0})
    assert source == "the controller's own predictions and the recording's query table"


def test_points_of_the_same_size_go_by_their_names(tmp_path: Path) -> None:
    start = start_line()
    start["points"] += [{**start["points"][1], "name": "middle-int8"}]
    run = read(tmp_path, [start, frame_line(0)])
    assert [p.label for p in run.points] == ["0.25 × 32", "middle", "1.00 × 64", "middle-int8"]


def test_a_bucket_shows_no_value_that_never_was() -> None:
    values = np.array([1.6, 33.3, 1.6, 33.3])
    assert set(gather(np.arange(4.0), 2).percentile(values, 50).tolist()) <= {1.6, 33.3}


def test_frames_measured_at_every_point_are_used_as_measured(tmp_path: Path) -> None:
    lines = [start_line()]
    lines += [frame_line(i, point_latency_ms={"small": 0.1, "middle": 5.0, "large": 0.2}, latency_ms=5.5, on_time=False)
              for i in range(10)]  # fmt: skip
    comparison = compare_with_static(read(tmp_path, lines), {"small": 9.0, "large": 9.0})
    assert comparison is not None
    late = {score.point: score.late for score in comparison.static}
    assert late == {"small": 0, "middle": 10, "large": 0}
    assert "measured" in comparison.table


def test_points_without_a_latency_come_from_a_profile_or_are_counted(tmp_path: Path) -> None:
    lines = [start_line(), *(frame_line(i, ("small", "middle")[i % 2]) for i in range(10))]
    run = read(tmp_path, lines)
    alone, together = compare_with_static(run), compare_with_static(run, {"large": 1.0, "another": 3.0})
    assert alone is not None
    assert together is not None
    assert (alone.without_table, len(alone.static)) == (1, 2)
    assert (together.without_table, len(together.static)) == (0, 3)
    assert together.table.endswith("the profile in this report")


def test_a_run_that_knows_too_little_is_not_compared(tmp_path: Path) -> None:
    lines = [start_line(), *(frame_line(i, deadline_ms=None) for i in range(10))]
    assert compare_with_static(read(tmp_path, lines)) is None


def test_frames_held_back_by_heat_are_told_apart(tmp_path: Path) -> None:
    lines = run_lines(40)
    for line in lines[1:21]:
        line["reason"] = "device hot"
    story = RunStory(read(tmp_path, lines))
    assert "On 20 frames heat, battery or memory held the adaptive run back" in story.summary()[2]


def test_buckets_keep_the_extremes_of_a_long_run() -> None:
    at_s = np.linspace(0.0, 100.0, 50_000)
    values = np.ones(50_000)
    values[31_000] = 99.0
    buckets = gather(at_s, 200)
    assert len(buckets.start_s) == 200
    assert buckets.percentile(values, 100).max() == 99.0
    assert buckets.mean(values > 50.0).sum() * 250 == pytest.approx(1.0)


def test_a_run_of_one_frame_is_a_run(tmp_path: Path) -> None:
    run = read(tmp_path, [start_line(), frame_line(0)])
    assert (run.duration_s, len(stretches(run, 10)), len(gather(run.at_s, 10).start_s)) == (0.0, 1, 1)
    assert RunStory(run).tiles()[2].text == "1"


def test_stretches_cover_the_run_in_order(tmp_path: Path) -> None:
    run = read(tmp_path)
    parts = stretches(run, 10)
    assert [run.points[part.point].name for part in parts] == ["large", "middle", "small", "large"]
    assert [part.end_s for part in parts[:-1]] == [part.start_s for part in parts[1:]]
    assert parts[-1].end_s == run.duration_s


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["one-look-int8", "all-int8"], ["one-look", "all"]),
        (["one-look-int8", "all-int8", "all-int8"], ["one-look", "all", "all"]),
        (["one-look-int8"], ["one-look-int8"]),
        (["budget-1-int8-et", "budget-2-int8-et"], ["budget-1", "budget-2"]),
        (["all", "all-int8"], ["all", "all-int8"]),
        (["a-int8", "-int8"], ["a-int8", "-int8"]),
        (["p1", "p11"], ["p1", "p11"]),
    ],
)
def test_what_all_names_end_in_is_left_out_of_their_labels(names: list[str], shown: list[str]) -> None:
    assert distinct_labels(names, [""] * len(names)) == shown


def test_the_lines_of_these_tests_are_what_the_runtime_writes(tmp_path: Path) -> None:
    """Were a key renamed in telemetry, the columns would be empty: compare with what frame_record gives."""
    from edge_runtime.frame import Frame
    from edge_runtime.look_trail import LookTrail
    from edge_runtime.readings import UNKNOWN
    from edge_runtime.result import Classification, Decision, Result
    from edge_runtime.telemetry import frame_record

    decision = Decision("small", "why", 1.0, 1.0)
    frame, answer = Frame(np.zeros((2, 2, 3), np.uint8), 0, 1.0), Classification("cup", 0.5)
    result = Result(frame, answer, (), decision, 0.1, 0.2, 0.4, 2.0)
    written = json.loads(json.dumps(frame_record(result, UNKNOWN)))
    assert set(frame_line(0)) <= set(written)
    looked = dataclasses.replace(result, trail=LookTrail(3, 5, "sure", (0.0, 0.0, 2.0, 2.0), ()))
    assert json.loads(json.dumps(frame_record(looked, UNKNOWN)))["steps"] == 3
