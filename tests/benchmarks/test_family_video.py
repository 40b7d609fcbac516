"""The figures of a played video come from its telemetry."""

from __future__ import annotations

import pytest

from benchmarks.family_video import sentence, summed_up

FRAME = {"point": "a", "feasible": True, "on_time": True, "latency_ms": 10.0, "switched": False, "dropped": 0}


def test_frames_that_no_point_could_make_do_not_count_against_it() -> None:
    rows = [
        FRAME,
        FRAME | {"point": "b", "on_time": False, "switched": True, "dropped": 2, "latency_ms": 30.0},
        FRAME | {"feasible": False, "on_time": False, "latency_ms": 20.0},
        FRAME,
    ]
    found = summed_up(rows)
    assert (found["frames"], found["dropped"], found["feasible"], found["switches"]) == (4, 2, 3, 1)
    assert found["in_time_of_feasible"] == pytest.approx(2 / 3)
    assert found["latency_ms"]["p50"] == 15.0
    assert found["frames_per_point"] == {"a": 3, "b": 1}
    assert "66.7% in time of 3 feasible frames" in sentence(found)


def test_a_run_without_a_feasible_frame_says_so() -> None:
    assert "no frame was feasible" in sentence(summed_up([FRAME | {"feasible": False}]))


def test_an_empty_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        summed_up([])
