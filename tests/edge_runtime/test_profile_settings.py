"""How long a profile may take, and threads and durations as people write them."""

from __future__ import annotations

import pytest

from edge_runtime.errors import ResultError
from edge_runtime.profiling.settings import MODES, make_plan, parse_duration, parse_threads


def test_quick_fits_forty_points_into_its_time_and_keeps_a_minimum() -> None:
    quick = MODES["quick"]
    small = make_plan(quick, [1.0] * 20)
    assert (small.rounds, small.block_runs) == (16, 4)
    assert small.seconds < quick.measure_s
    many = make_plan(quick, [1.0] * 40)
    assert many.seconds <= quick.measure_s
    assert many.rounds < 16
    assert many.block_runs == 4
    slow = make_plan(quick, [5000.0] * 40)
    assert (slow.rounds, slow.block_runs) == (3, 4)


@pytest.mark.parametrize(
    ("text", "cores", "counts", "note"),
    [
        (None, 4, (), ""),
        ("2", 4, (2,), ""),
        ("4,1,2,2", 4, (1, 2, 4), ""),
        ("1,2,4", 2, (1, 2), "4 threads left out: this process may use 2 cores"),
        ("sweep", 1, (1,), ""),
        ("sweep", 6, (1, 2, 4, 6), ""),
    ],
)
def test_threads_as_people_write_them(text: str | None, cores: int, counts: tuple[int, ...], note: str) -> None:
    assert parse_threads(text, cores) == (counts, note)


@pytest.mark.parametrize("text", ["", "0", "x", "1,", "-1", "1.5", "99999999999999999999", "8"])
def test_threads_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ResultError, match="--threads"):
        parse_threads(text, 4)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("0.5h", 1800.0)])
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0", "nan", "infh", "-5m", "25h", "10 parsecs"])
def test_durations_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ResultError, match="expected a time from 1s to 24h"):
        parse_duration(text)
