"""The filter's shortcuts give what the plain arithmetic gives, bit for bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from simulated_device import ALL, COOL, LADDER

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings, SlowdownFilter
from edge_runtime.result import Decision

slowdowns = st.floats(0.5, 30.0)


@given(observed=st.lists(slowdowns, max_size=40), slowdown=slowdowns, extra_ms=st.floats(0.0, 60.0))
def test_late_frames_count_if_they_exceed_both_the_factor_and_the_addition(
    observed: list[float], slowdown: float, extra_ms: float
) -> None:
    tracked = SlowdownFilter(ControllerSettings())
    for seen in observed:
        tracked.observe(seen, 4.0, 0.01)
    spikes = tracked._spikes
    for asked in [(slowdown, extra_ms), *spikes]:  # at a spike itself too: it does not exceed itself
        above = sum(factor > asked[0] and addition_ms > asked[1] for factor, addition_ms in spikes)
        late = len(tracked._recent) - len(tracked._sorted)
        expected = (
            late * (above / len(spikes)) / (ControllerSettings().prior_frames + len(tracked._recent)) if spikes else 0.0
        )
        assert tracked._spiked(*asked) == expected


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
