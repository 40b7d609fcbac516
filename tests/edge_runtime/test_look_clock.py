"""Whether the next look will end in time: usual times, looks that lost the core, and machines that became slower."""

from __future__ import annotations

import random

import pytest

from edge_runtime.look_clock import (
    FEWEST_LOOKS,
    REMEMBERED_LOOKS,
    REMEMBERED_SLOW_LOOKS,
    SLOW_SHARE_RATE,
    STOPS_TO_FORGET,
    TAIL_LOOKS,
    TAIL_POWER,
    USUAL_LOOKS,
    LookClock,
    Window,
)


def looked(clock: LookClock, *seconds: float, times: int = 1) -> None:
    """Frames whose looks take so long."""
    for _ in range(times):
        for look, taken in enumerate(seconds):
            clock.observe(look, taken)


def test_a_window_is_the_sorted_end_of_what_it_was_given() -> None:
    window, given, draw = Window(50), [], random.Random(0)
    for _ in range(200):
        given.append(round(draw.random(), 1))
        window.add(given[-1])
        last = given[-50:]
        assert len(window) == len(last)
        assert window.median() == sorted(last)[len(last) // 2]
        assert window.share_above(0.4) == pytest.approx(sum(x > 0.4 for x in last) / len(last))
    assert Window(3).share_above(0.0) == 0.0


def test_beyond_what_was_seen_the_tail_goes_on() -> None:
    window = Window(1000)
    for number in range(1000):
        window.add(0.0 if number % 100 else 0.010 + number / 1e6)  # ten of a thousand lost 10 ms or a bit more
    eighth = sorted(window._sorted)[-TAIL_LOOKS]
    assert window.tail_above(0.005) == window.share_above(0.005) == pytest.approx(0.01)
    assert window.share_above(2.0 * eighth) == 0.0
    assert window.tail_above(2.0 * eighth) == pytest.approx(TAIL_LOOKS / 1000 / 2.0**TAIL_POWER)
    assert window.tail_above(4.0 * eighth) < window.tail_above(2.0 * eighth)
    values = [k / 1000 for k in range(1, 60)]
    shares = [window.tail_above(v) for v in values]
    assert shares == sorted(shares, reverse=True)
    calm = Window(100)
    for _ in range(100):
        calm.add(0.0)
    assert calm.tail_above(0.001) == 0.0  # nothing was ever lost


def test_nothing_is_risky_before_the_first_patch() -> None:
    clock = LookClock()
    assert clock.risk(0.001) == 0.0
    clock.observe(0, 0.010)
    assert clock.risk(0.001) == 0.0
    assert clock.usual_s(3.0) == pytest.approx(0.010)


def test_the_risk_is_the_share_of_looks_that_lost_more_than_there_is_room_for() -> None:
    clock = LookClock()
    looked(clock, 0.010, 0.010, times=49)
    looked(clock, 0.010, 0.050)
    looked(clock, 0.010)
    assert clock.risk(0.0099) == 1.0  # not even the usual time
    assert clock.risk(0.011) == pytest.approx(1 / 101)
    assert clock.risk(0.051) == 0.0
    looked(clock, 0.010, times=REMEMBERED_LOOKS)  # and it is forgotten, by glances alone too
    assert clock.risk(0.011) == 0.0


def test_after_a_look_that_lost_its_core_the_next_one_is_judged_by_such_ones_before_it() -> None:
    clock = LookClock()
    for _ in range(2 * FEWEST_LOOKS):
        looked(clock, 0.010, 0.010, times=3)
        looked(clock, 0.050, 0.011)  # the next one is always quick
    looked(clock, 0.050)
    # 64 such ones lost 1 ms each, and looks are a tenth slower of late: 2 ms to lose, twice what was ever lost
    tail = TAIL_LOOKS / (2 * FEWEST_LOOKS) / 2.0**TAIL_POWER
    assert clock.risk(0.013) == pytest.approx(clock._slow_share * tail)
    looked(clock, 0.010)
    assert clock.risk(0.012) > 0.1  # after an ordinary one, one of ten loses its core


def test_few_looks_after_slow_ones_are_no_reason_to_stop() -> None:
    clock = LookClock()
    looked(clock, 0.010, 0.010, times=50)
    looked(clock, 0.050, 0.050, times=1)
    looked(clock, 0.010, 0.010, times=5)
    looked(clock, 0.050)
    assert clock.risk(0.020) == 0.0


def test_what_follows_slow_looks_weighs_as_much_as_slow_looks_are_frequent() -> None:
    clock, slow_share = LookClock(), 1.0
    for frame in range(10 * FEWEST_LOOKS):
        slow = frame % 5 == 2
        looked(clock, 0.050 if slow else 0.010, 0.050 if slow else 0.010)
        for _ in range(2):
            slow_share += SLOW_SHARE_RATE * (slow - slow_share)
    looked(clock, 0.050)
    slow_share += SLOW_SHARE_RATE * (1 - slow_share)
    assert clock.risk(0.020) == pytest.approx(slow_share)  # each of them was slow again
    assert 0.15 < slow_share < 0.4


def test_a_machine_that_became_slower_is_believed_when_several_looks_say_so() -> None:
    clock = LookClock()
    looked(clock, 0.010, 0.020, times=60)
    looked(clock, 0.030, 0.060)
    assert clock.risk(0.045) == 0.0
    looked(clock, 0.030)
    assert clock.risk(0.045) == 1.0  # three times as slow: 60 ms
    assert clock.risk(0.065) == 0.0
    looked(clock, 0.030, 0.060, times=100)  # the usual time now
    assert clock.usual_s(2.0) == pytest.approx(0.090)


def test_patches_seen_on_a_busy_machine_are_no_reason_never_to_look_again() -> None:
    clock = LookClock()
    looked(clock, 0.100, 0.100, times=20)
    assert clock.risk(0.050) == 1.0
    looked(clock, 0.010, times=USUAL_LOOKS)  # the load is gone, and the runner had to stop after each glance
    assert clock.risk(0.050) < 0.01
    assert clock.usual_s(2.0) == pytest.approx(0.020)


def test_what_came_after_slow_looks_is_tried_again_in_time() -> None:
    clock = LookClock()
    for _ in range(REMEMBERED_SLOW_LOOKS):
        looked(clock, 0.010, 0.010, times=3)
        looked(clock, 0.050, 0.050)
    stops = 0
    looked(clock, 0.010, 0.010, 0.010, 0.050)
    while clock.risk(0.020) > 0.0:
        clock.stopped()
        stops += 1
    assert stops == STOPS_TO_FORGET * (REMEMBERED_SLOW_LOOKS - FEWEST_LOOKS + 1)
