"""Dominated and superfluous points leave a bundle, with a note; the ends of the ladder never do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.point_choice import choose_points, drop_dominated, thin_out
from edge_runtime.manifest import OperatingPoint


def point(name: str, latency_ms: float | None, accuracy: float) -> OperatingPoint:
    return OperatingPoint(name, "program", 1.0, (64, 64), 1000, {"select": accuracy}, latency_ms=latency_ms)


def names(points: list[OperatingPoint]) -> list[str]:
    return [p.name for p in points]


LADDERS = st.lists(
    st.tuples(st.floats(0.1, 100.0), st.floats(0.0, 1.0)), min_size=2, max_size=12
).map(lambda rows: [point(f"p{i}", ms, accuracy) for i, (ms, accuracy) in enumerate(rows)])  # fmt: skip


def test_a_slower_point_of_equal_accuracy_leaves_with_a_note_that_names_its_better() -> None:
    kept, notes = drop_dominated([point("cheap", 1.0, 0.8), point("slow", 2.0, 0.8), point("good", 3.0, 0.9)])
    assert names(kept) == ["cheap", "good"]
    assert notes == [
        "slow is left out: cheap takes 1.00 ms in place of 2.00 ms and is right on 80.0% in place of 80.0% of select"
    ]


def test_points_whose_latencies_differ_by_less_than_the_noise_both_stay() -> None:
    kept, notes = drop_dominated([point("one", 1.00, 0.8), point("other", 1.03, 0.8)])
    assert (names(kept), notes) == (["one", "other"], [])


@given(LADDERS)
def test_no_deadline_loses_accuracy_when_dominated_points_leave(ladder: list[OperatingPoint]) -> None:
    kept, notes = drop_dominated(ladder)
    assert len(kept) + len(notes) == len(ladder)
    for deadline_ms in (p.latency_ms for p in ladder):
        best = max(p.accuracy["select"] for p in ladder if p.latency_ms <= deadline_ms)
        assert max(p.accuracy["select"] for p in kept if p.latency_ms <= deadline_ms) == best


@given(LADDERS, st.integers(2, 12))
def test_thinning_keeps_the_cheapest_and_the_most_accurate(ladder: list[OperatingPoint], limit: int) -> None:
    kept, notes = thin_out(ladder, limit)
    assert len(kept) == min(limit, len(ladder))
    assert min(p.latency_ms for p in kept) == min(p.latency_ms for p in ladder)
    assert max(p.accuracy["select"] for p in kept) == max(p.accuracy["select"] for p in ladder)
    assert bool(notes) is (limit < len(ladder))


def test_thinning_gives_up_the_point_that_adds_least_accuracy() -> None:
    ladder = [point("a", 1.0, 0.5), point("b", 2.0, 0.51), point("c", 4.0, 0.7), point("d", 8.0, 0.8)]
    kept, notes = thin_out(ladder, 3)
    assert names(kept) == ["a", "c", "d"]
    assert notes == ["the device wants at most 3 points; left out, worth least first: b"]


def test_a_point_without_a_measurement_and_a_limit_of_one_are_refused() -> None:
    with pytest.raises(ValueError, match="p has no measured latency"):
        drop_dominated([point("p", None, 0.5)])
    with pytest.raises(ValueError, match="max_points is 1"):
        thin_out([point("p", 1.0, 0.5)], 1)


def test_each_engine_keeps_its_own_share_of_points_and_says_what_left() -> None:
    def of(program: str) -> list[OperatingPoint]:
        ladder = [("cheap", 1.0, 0.6), ("middle", 2.0, 0.7), ("good", 4.0, 0.9), ("slow", 8.0, 0.5)]
        return [replace(point(f"{name}-{program}", *rest), program=program) for name, *rest in ladder]

    points = [p for pair in zip(of("a"), of("b"), strict=True) for p in pair]
    engines = {"a": "onnxruntime", "b": "executorch"}
    assert choose_points(points, engines, False, None) == (of("a") + of("b"), [])
    kept, notes = choose_points(points, engines, True, 2)
    assert names(kept) == ["cheap-a", "good-a", "cheap-b", "good-b"]
    assert [note.partition(" is")[0].rpartition(" ")[2] for note in notes] == [
        "slow-a",
        "middle-a",
        "slow-b",
        "middle-b",
    ]
