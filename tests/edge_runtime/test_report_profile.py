"""Profiles in a report: devices and points, the Pareto front, and what is told about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import BUNDLE, STABLE, method, profile, write_profile, write_run

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result import Energy, Operators, Verdict
from edge_runtime.reporting.ladder import main_threads, pareto_front, prepare_devices
from edge_runtime.reporting.ladder_chart import precision_pairs
from edge_runtime.reporting.profile_sections import profile_sections, spread
from edge_runtime.reporting.profile_story import ladder_tables, profile_notes, profile_summary, query_table
from edge_runtime.reporting.report import build_report

COSTS = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), min_size=1, max_size=30)


@given(COSTS)
def test_nothing_beats_a_point_of_the_front_and_everything_else_is_beaten(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)
    for index, (cost, worth) in enumerate(points):
        beaten = any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
        twin_on_front = any(points[i] == (cost, worth) for i in front)
        assert beaten != twin_on_front
        if index in front:
            assert not beaten


def test_the_front_rises_in_both_cost_and_worth() -> None:
    assert pareto_front([(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (1.0, 0.6)]) == [3, 0]


def test_the_ladder_is_shown_with_the_threads_that_most_points_have() -> None:
    assert main_threads(profile().points) == 2
    few = [p for p in profile().points if p.name == "w1.00-r064-fp32"]
    assert sorted(p.threads for p in few) == [1, 2, 4]
    assert main_threads(few) == 2  # each has one point: the fastest


def test_points_that_only_another_number_of_threads_has_are_still_in_the_ladder() -> None:
    whole = profile()
    kept = [p for p in whole.points if p.threads == 2 or p.name != "w0.50-r064-fp32"]
    kept = [p for p in kept if not (p.threads == 2 and p.name == "w0.25-r064-fp32")]
    (device,), _ = prepare_devices([("a", replace(whole, points=tuple(kept)))])
    names = [(entry.point.name, entry.point.threads) for entry in device.ladder]
    assert ("w0.25-r064-fp32", 1) in names
    assert len({name for name, _ in names}) == len(names) == 18


def test_accuracy_is_of_the_test_split_where_all_points_have_it() -> None:
    whole = profile()
    _, split = prepare_devices([("a", whole)])
    without = replace(whole.points[0], accuracy={"select": 0.4})
    _, other = prepare_devices([("a", replace(whole, points=(without, *whole.points[1:])))])
    assert (split, other) == ("test", "select")


def test_points_without_a_common_split_are_refused() -> None:
    whole = profile()
    odd = replace(whole.points[0], accuracy={"mine": 0.4})
    with pytest.raises(ResultError, match="share no split"):
        prepare_devices([("a.json", replace(whole, points=(odd, *whole.points[1:])))])


def test_devices_of_the_same_model_are_told_apart_by_date_and_number() -> None:
    later = profile(created="2026-11-25T08:00:00Z")
    devices, _ = prepare_devices([("a", profile()), ("b", later), ("c", later)])
    labels = [device.label for device in devices]
    assert len(set(labels)) == 3
    assert labels[0] == "Board 5, 2026-11-24 12:00"
    assert labels[2].endswith("#3")


def test_results_of_two_bundles_are_refused_with_both_names(tmp_path: Path) -> None:
    one = write_profile(tmp_path / "one.json")
    other = write_profile(tmp_path / "other.json", bundle=replace(BUNDLE, name="birds", manifest_sha256="b" * 64))
    with pytest.raises(
        ResultError, match=r"other\.json: is of the bundle birds \(b+\), but .*one\.json is of everyday"
    ):
        build_report([one, other])


def test_a_run_of_another_bundle_is_refused(tmp_path: Path) -> None:
    one = write_profile(tmp_path / "one.json", bundle=replace(BUNDLE, name="birds"))
    with pytest.raises(ResultError, match="is of the bundle 'everyday'"):
        build_report([one, write_run(tmp_path / "t.jsonl")])


def test_the_summary_names_both_ends_of_the_ladder_and_the_faster_device() -> None:
    devices, split = prepare_devices([("a", profile()), ("b", profile("Phone 9", 0.5, threads=(2,)))])
    told = profile_summary(devices, split)
    fast, best = devices[0].front[0], devices[0].front[-1]
    assert f"{fast.p50_ms:.3g} ms at {100 * fast.accuracy:.1f} %" in told[0]
    assert f"{100 * best.accuracy:.1f} % (test)" in told[0]
    assert told[2] == "Over the 18 points that all have, Phone 9 is 2.0 times as fast as Board 5."


def test_what_shakes_trust_is_told() -> None:
    unstable = Verdict(False, "unstable: foreign load 48 %")
    environment = replace(profile().environment, virtual_machine=True)
    result = profile(verdict=unstable, complete=False, environment=environment, notes=("No frequency is known.",))
    devices, _ = prepare_devices([("a", result)])
    assert profile_notes(devices) == (
        "The profile was interrupted; what is shown was measured in full.",
        "The measurement is unstable: foreign load 48 %.",
        "This is a virtual machine; its neighbours may take time from it unseen.",
        "No frequency is known.",
    )
    calm, _ = prepare_devices([("a", profile(verdict=STABLE))])
    assert profile_notes(calm) == ()


def test_every_pair_of_precisions_is_compared_at_the_same_width_and_size() -> None:
    (device,), _ = prepare_devices([("a", profile())])
    pairs = precision_pairs(device)
    assert len(pairs) == 9
    for fp32, int8 in pairs:
        assert (fp32.point.width, fp32.point.size_hw) == (int8.point.width, int8.point.size_hw)
        assert (fp32.point.precision, int8.point.precision) == ("fp32", "int8")


def test_sections_without_anything_to_show_are_left_out() -> None:
    full, split = prepare_devices([("a", profile())])
    anchors = [section.anchor for section in profile_sections(full, split)]
    shown = "ladder latency sustained memory energy operators precision threads trust environment"
    assert anchors == shown.split()
    bare, split = prepare_devices([("a", profile(precisions=("fp32",), threads=(2,), sustained=()))])
    anchors = [section.anchor for section in profile_sections(bare, split)]
    assert not {"sustained", "precision", "threads", "devices"} & set(anchors)


def test_unknown_energy_and_operators_are_said_with_their_reason() -> None:
    whole = profile()
    points = tuple(
        replace(p, energy=Energy("unknown", source="no power sensor"), operators=Operators("ExecuTorch has no tracer"))
        for p in whole.points
    )
    devices, split = prepare_devices([("a", replace(whole, points=points))])
    sections = {section.anchor: section for section in profile_sections(devices, split)}
    assert sections["energy"].sentences == ("Energy is not measurable here: no power sensor",)
    assert any("ExecuTorch has no tracer" in sentence for sentence in sections["operators"].sentences)
    assert sections["energy"].figures == ()


def test_memory_that_depends_on_the_order_of_loading_is_told_as_a_sum() -> None:
    whole = profile()
    points = tuple(
        replace(p, memory=replace(p.memory, peak_bytes=None, note="added beside others")) for p in whole.points
    )
    (device,), split = prepare_devices([("a", replace(whole, points=points))])
    (memory,) = (section for section in profile_sections([device], split) if section.anchor == "memory")
    total = sum(entry.point.memory.added_bytes or 0 for entry in device.ladder) / 1e6
    assert memory.figures == ()
    assert f"all 18 points together add {total:.1f} MB" in memory.sentences[0]
    assert "added_bytes" not in {column.key for table in ladder_tables(device, "") for column in table.columns}


def test_a_long_ladder_is_thinned_but_keeps_both_ends() -> None:
    devices, _ = prepare_devices([("a", profile())])
    entries = devices[0].entries
    thinned = spread(entries, 5)
    assert (len(thinned), thinned[0], thinned[-1]) == (5, entries[0], entries[-1])
    assert spread(entries, 99) == entries


def test_the_query_table_has_every_point_at_every_number_of_threads() -> None:
    devices, _ = prepare_devices([("a", profile())])
    table = query_table(devices)
    assert len(table.rows) == len(profile().points) == 24
    assert sum(bool(row["on_front"]) for row in table.rows) == len(devices[0].front)


def test_the_method_of_these_tests_fits_the_record() -> None:
    assert method().rounds == 3
