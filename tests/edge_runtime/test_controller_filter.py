"""The filter's shortcuts give what the plain arithmetic gives, bit for bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_device import ALL, COOL, LADDER

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings, SlowdownFilter
from edge_runtime.controller_surprises import SPIKES, Surprises
from edge_runtime.result import Decision

slowdowns = st.floats(0.5, 30.0)
SIZES = st.tuples(slowdowns, st.floats(0.0, 60.0))
"""A late frame's slowdown, and its milliseconds beyond the expected."""


@given(sizes=st.lists(SIZES, max_size=40), usual=st.integers(0, 200), asked=SIZES)
def test_late_frames_count_if_they_exceed_both_the_factor_and_the_addition(
    sizes: list[tuple[float, float]], usual: int, asked: tuple[float, float]
) -> None:
    memory = Surprises(ControllerSettings())
    for surprise in [*[None] * len(sizes), *[0.0] * usual]:
        memory.remember(surprise)
    for size in sizes:
        memory.remember_size(*size)
    kept = sizes[-SPIKES:]
    for factor, addition_ms in [asked, *kept]:  # at a late frame's own size too: it does not exceed itself
        above = sum(found[0] > factor and found[1] > addition_ms for found in kept)
        remembered = min(len(sizes) + usual, 128)
        late = remembered - min(usual, 128)
        expected = late * (above / len(kept)) / (ControllerSettings().prior_frames + remembered) if kept else 0.0
        assert memory.spiked(factor, addition_ms) == expected


def run(tracked: SlowdownFilter, seen: list[float]) -> None:
    """Frames of a point of 4 ms whose table is well known."""
    for slowdown in seen:
        tracked.observe(slowdown, 4.0, 1e-4)


CALM, LOADED = [1.0, 1.02, 0.98, 1.01, 0.99] * 8, [2.0, 2.4, 1.8, 2.3, 2.0] * 8


def late_beyond(tracked: SlowdownFilter, slowdown: float) -> float:
    """P(a frame of 4 ms takes more than so many times its time)."""
    return tracked.late_probability(4.0, 4.0 * slowdown, 1e-4)


def loaded_after(calm: list[float]) -> SlowdownFilter:
    """A filter that saw a calm and then a load whose frames differ so much that it hardly follows a single one."""
    tracked = SlowdownFilter(ControllerSettings())
    run(tracked, calm + LOADED)
    tracked.variance, tracked.drift, tracked._memory.noise_ms2 = 1e-4, 2e-4, 0.25 * 16.0
    return tracked


def test_what_a_load_taught_says_nothing_of_the_calm_after_it() -> None:
    tracked, never_loaded = (SlowdownFilter(ControllerSettings()) for _ in range(2))
    run(never_loaded, CALM + CALM)
    run(tracked, CALM + LOADED + CALM)
    assert tracked.mean == pytest.approx(1.0, abs=0.02)
    once_late = 1.0 / (80.0 + ControllerSettings().prior_frames)  # the load's first frame came out of the calm
    assert late_beyond(tracked, 1.1) == pytest.approx(late_beyond(never_loaded, 1.1) + once_late, abs=0.012)


def test_what_a_load_taught_is_there_for_the_next_load() -> None:
    tracked, first = SlowdownFilter(ControllerSettings()), SlowdownFilter(ControllerSettings())
    run(tracked, CALM + LOADED + CALM + LOADED[:4])
    run(first, CALM + LOADED[:4])
    assert tracked._memory.known > 20 > first._memory.known


def test_two_frames_as_fast_as_those_of_the_calm_end_a_load_and_one_does_not() -> None:
    tracked = loaded_after(CALM)
    run(tracked, [1.0])
    assert tracked.mean > 1.9
    run(tracked, [1.02])
    assert tracked.mean == 1.02


def test_two_fast_frames_with_a_slow_one_between_them_end_no_load() -> None:
    tracked = loaded_after(CALM)
    run(tracked, [1.0, 2.0, 1.02])
    assert tracked.mean > 1.9


def test_a_calm_that_was_hardly_seen_ends_no_load() -> None:
    tracked = loaded_after(CALM[:6])
    run(tracked, [1.0, 1.02])
    assert tracked.mean > 1.8


def test_with_a_new_table_the_other_states_are_forgotten() -> None:
    tracked = loaded_after(CALM)
    tracked.rescale(0.75)  # 1.0 is no longer what the calm machine gives
    run(tracked, [1.0, 1.02])
    assert tracked.mean > 1.3


def test_asking_for_a_wish_changes_no_decision() -> None:
    assert decisions(wishing=True) == decisions(wishing=False)


def decisions(*, wishing: bool) -> list[Decision]:
    """Of 300 frames, some late; with a wish after each frame or without."""
    controller, found = Controller(LADDER), []
    for frame in range(300):
        found.append(controller.choose(frame / 30.0, Budget(9.0), COOL, ALL))
        controller.observe(
            found[-1].point, LADDER[int(found[-1].point[1])].latency_ms * (3.0 if frame % 17 == 0 else 1.1)
        )
        if wishing:
            controller.wish(ALL)
    return found


@given(observed=st.lists(slowdowns, min_size=1, max_size=30), deadline_ms=st.floats(2.0, 60.0))
def test_the_stated_share_is_that_of_the_filter_at_that_moment(observed: list[float], deadline_ms: float) -> None:
    controller = Controller(LADDER)
    for frame, seen in enumerate(observed):
        decision = controller.choose(frame / 30.0, Budget(deadline_ms), COOL, ALL)
        index = controller.table.index[decision.point]
        allowed_ms = controller._time_ms - (controller.settings.switch_cost_ms if decision.switched else 0.0)
        cost_ms, variance = controller.table.cost_ms[index], controller.table.variance[index]
        assert decision.on_time_share == 1.0 - controller.filter.late_probability(cost_ms, allowed_ms, variance)
        controller.observe(decision.point, LADDER[index].latency_ms * seen)
