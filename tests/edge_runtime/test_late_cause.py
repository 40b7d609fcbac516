"""Why an answer was late, and the robust mean of what a frame costs beside the engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.late_cause import LATE_CAUSES, late_cause
from edge_runtime.overhead import Overhead

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("age_ms", "decode_ms", "sink_ms", "compute_ms", "throttled", "cause"),
    [
        (0.0, 0.0, 0.0, 40.0, False, "compute"),
        (0.0, 0.0, 0.0, 40.0, True, "throttled"),
        (50.0, 5.0, 0.0, 20.0, True, "source"),
        (50.0, 45.0, 0.0, 20.0, False, "decode"),
        (50.0, 5.0, 44.0, 20.0, False, "sink"),
        (10.0, 900.0, 0.0, 20.0, False, "compute"),  # decoding cannot have taken longer than the frame is old
        (10.0, 0.0, 900.0, 20.0, False, "compute"),  # nor the sink have held up this frame for longer
    ],
)
def test_the_part_that_took_the_most_is_the_cause(
    age_ms: float, decode_ms: float, sink_ms: float, compute_ms: float, throttled: bool, cause: str
) -> None:
    assert late_cause(age_ms, decode_ms, sink_ms, compute_ms, throttled=throttled) == cause


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans())
def test_every_late_frame_has_one_of_the_known_causes(a: float, b: float, c: float, d: float, throttled: bool) -> None:
    assert late_cause(a, b, c, d, throttled=throttled) in LATE_CAUSES


def test_a_preempted_frame_hardly_moves_the_mean_and_a_lasting_change_does() -> None:
    overhead = Overhead()
    for _ in range(50):
        overhead.take(1.0)
    overhead.take(80.0)
    assert overhead.mean_ms == pytest.approx(1.1)
    for _ in range(60):
        overhead.take(4.0)
    assert overhead.mean_ms == pytest.approx(4.0, rel=0.05)


def test_a_first_frame_that_was_slow_by_accident_is_forgotten_within_some_frames() -> None:
    overhead = Overhead()
    overhead.take(200.0)
    for _ in range(20):
        overhead.take(1.0)
    assert overhead.mean_ms < 1.5
