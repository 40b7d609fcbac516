"""The anytime runner: it stops when sure, out of time or out of looks, and always has an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exit_fakes import CLASSES, PATCH, SIDE, FakeParts, FakeTime, best, exits, runner, settings

from edge_runtime.early_exit import (
    FAILED,
    OUT_OF_LOOKS,
    OUT_OF_TIME,
    SURE,
    TOO_LITTLE,
    EarlyExitRunner,
    cut,
    shrink,
)
from edge_runtime.early_exit_backend import ProgramParts
from edge_runtime.errors import BackendError
from edge_runtime.exit_records import ExitSetting
from edge_runtime.look_worth import LEAST_SHARE, PRIOR_DOUBT, PRIOR_GAIN, REMEMBERED_LOOKS


@pytest.mark.parametrize(
    ("confidences", "looks", "reason"),
    [([0.95, 0.5, 0.5, 0.5], 1, SURE), ([0.5, 0.6, 0.92, 0.5], 3, SURE), ([0.5, 0.6, 0.7, 0.8], 4, OUT_OF_LOOKS)],
)
def test_a_run_stops_at_the_first_sure_answer_or_after_the_last_look(
    confidences: list[float], looks: int, reason: str
) -> None:
    made, parts, _ = runner(confidences)
    assert best(made.run()) == (looks - 1) % CLASSES
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (looks, reason)
    assert made.last.confidence == pytest.approx(confidences[looks - 1], abs=1e-5)
    assert len(parts.images) == looks
    assert len(made.last.boxes) == looks - 1
    assert made.last.look_ms == pytest.approx([10.0] * looks)


def test_the_points_own_cap_ends_a_run() -> None:
    made, _, _ = runner([0.5] * 4, setting=settings(max_looks=2))
    made.run()
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (2, OUT_OF_LOOKS)


@pytest.mark.parametrize(("deadline_ms", "looks"), [(5.0, 1), (15.0, 1), (25.0, 2), (35.0, 3), (45.0, 4)])
def test_another_look_begins_only_when_it_is_expected_to_end_in_time(deadline_ms: float, looks: int) -> None:
    made, _, clock = runner([0.5] * 4)
    made.warm_up()
    made.deadline_s = clock.now_s + deadline_ms / 1000.0
    made.run()
    assert made.last is not None
    assert made.last.looks == looks
    assert made.last.reason == (OUT_OF_LOOKS if looks == 4 else OUT_OF_TIME)


def test_a_deadline_holds_for_one_run_only() -> None:
    made, _, clock = runner([0.5] * 4)
    made.warm_up()
    made.deadline_s = clock.now_s
    made.run()
    made.run()
    assert made.last is not None
    assert made.last.looks == 4


def test_a_look_may_risk_the_deadline_for_as_much_as_it_is_worth() -> None:
    made, parts, clock = runner([0.5, 0.8, 0.82, 0.82])
    made.warm_up()
    for frame in range(400):  # one patch of 300 takes 30 ms more
        parts.seconds = [0.010, 0.010, 0.010, 0.040 if frame % 100 == 0 else 0.010]
        made.run()
    parts.seconds = [0.010] * 4
    risk = made.look_clock.risk(0.020)
    assert 0.0 < risk < 0.01
    looks, reasons = [], []
    for price in (
        0.0,
        1.5 * risk,
        2.0 * risk / 0.3,
        2.0 * risk / 0.02,
        1.0,
    ):  # what the second look gains, and the third
        made.late_per_right, made.deadline_s = price, clock.now_s + 0.049  # time for all, but not if one is slow
        made.run()
        assert made.last is not None
        looks.append(made.last.looks)
        reasons.append(made.last.reason)
    assert looks == [1, 1, 2, 3, 4]
    # the third and fourth time a look that would make sure could have begun
    assert reasons == [OUT_OF_TIME, OUT_OF_TIME, TOO_LITTLE, TOO_LITTLE, OUT_OF_LOOKS]


def test_looks_are_worth_their_share_of_the_doubt_and_warming_up_tells_nothing() -> None:
    made, _, _ = runner([0.4, 0.7, 0.73, 0.6])
    made.warm_up()
    assert made.worth.share(1) == made.worth.share(3) == PRIOR_GAIN / PRIOR_DOUBT
    for _ in range(4 * REMEMBERED_LOOKS):
        made.run()
    assert made.worth.share(1) == pytest.approx(0.3 / 0.6, abs=0.01)
    assert made.worth.share(2) == pytest.approx(0.03 / 0.3, abs=0.01)
    assert made.worth.share(3) == LEAST_SHARE  # it lost
    assert made.worth.of(1, 0.9) == pytest.approx(0.1 * made.worth.share(1))


def test_a_runner_tells_its_clock_when_it_stops_for_the_deadline_and_only_then() -> None:
    made, _, clock = runner([0.5] * 4)
    told: list[float] = []
    made.look_clock.stopped = lambda: told.append(clock.now_s)  # type: ignore[method-assign]
    made.warm_up()
    made.deadline_s = clock.now_s + 1.0
    made.run()
    assert told == []
    made.deadline_s = clock.now_s + 0.015
    made.run()
    assert told == [clock.now_s]


def test_a_look_that_fails_leaves_the_answer_before_it() -> None:
    made, parts, _ = runner([0.5, 0.6, 0.7, 0.8])
    parts.fail_at = 2
    assert best(made.run()) == 1
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (2, FAILED)
    assert made.last.confidence == pytest.approx(0.6, abs=1e-5)
    parts.fail_at = 0
    with pytest.raises(BackendError, match="the engine broke"):
        made.run()


def test_scores_that_are_no_numbers_never_replace_an_answer_nor_keep_the_last_frames() -> None:
    made, parts, _ = runner([0.5, 0.6, 0.7, 0.8])
    parts.confidences = [0.5, float("nan"), 0.7, 0.8]
    assert best(made.run()) == 0
    parts.confidences = [float("nan"), 0.6, 0.95, 0.8]  # a glance that says nothing does not end the run
    assert best(made.run()) == 2
    parts.confidences = [float("nan"), float("nan"), 0.7, 0.8]
    assert np.isnan(made.run()).all()


def test_a_hard_picture_is_not_taken_for_a_slow_machine() -> None:
    setting = ExitSetting("plan", 4, (0.9,) * 3, 2.0, (0.5, 0.0, 0.5, 0.0))
    made, parts, _ = runner([0.5] * 4, [0.010, 0.020, 0.020, 0.020], setting)
    made.warm_up()
    assert made.expected_ms == pytest.approx(30.0)
    made.run()
    assert made.comparable_ms(70.0) == pytest.approx(30.0)  # four looks at their usual time
    parts.confidences = [0.95] * 4
    made.run()
    assert made.comparable_ms(10.0) == pytest.approx(30.0)
    assert made.comparable_ms(25.0) == pytest.approx(75.0)  # a glance that took 2.5 times its time


def test_temperatures_belong_to_looks() -> None:
    clock = FakeTime()
    facts = exits(temperatures=(2.0, 1.0, 1.0, 1.0))
    made = EarlyExitRunner(FakeParts(clock, [0.9, 0.9, 0.9, 0.9]), facts, settings(), (SIDE, SIDE), CLASSES, clock)
    scores = made.run()
    assert made.last is not None
    assert made.last.looks == 2  # softened, the first look is not sure
    assert float(np.exp(scores[0] - scores[0].max()).sum() ** -1) == pytest.approx(0.9, abs=1e-5)


def test_each_run_starts_without_memory_and_passes_it_on_within() -> None:
    made, parts, _ = runner([0.5] * 4)
    made.run()
    made.run()
    assert [float(memory[0, 0]) for memory in parts.memories] == [0.0, 1.0, 2.0] * 2


def test_the_glance_is_the_shrunk_picture_and_a_patch_lies_where_the_policy_says() -> None:
    made, parts, _ = runner([0.5] * 4)
    draw = np.random.default_rng(0)
    made.input[:] = draw.normal(size=made.input.shape)
    parts.places = [np.array([[a, b]], np.float32) for a, b in ((0.0, 1.0), (1.0, 0.49), (np.nan, 7.0), (0, 0))]
    made.run()
    blocks = made.input.reshape(1, 3, PATCH, 2, PATCH, 2).mean((3, 5))
    np.testing.assert_allclose(parts.images[0], blocks, atol=1e-5)
    assert made.last is not None
    assert made.last.boxes == ((0, 8, 8, 8), (8, 3, 8, 8), (4, 8, 8, 8))  # no number: the middle; beyond: the edge
    np.testing.assert_array_equal(parts.images[2], made.input[:, :, 8:16, 3:11])


def test_shrinking_and_cutting_write_into_what_they_are_given() -> None:
    picture, out = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32), np.zeros((1, 3, 8, 8), "f4")
    shrink(picture, out)
    assert out.mean() == pytest.approx(picture.mean(), abs=1e-3)
    assert cut(picture, np.array([[1.0, 0.0]], np.float32), out) == (4, 0, 8, 8)
    np.testing.assert_array_equal(out, picture[:, :, 4:, :8])


@pytest.mark.parametrize("concatenating", [False, True])
def test_parts_call_the_programs_in_order(concatenating: bool) -> None:
    seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def call(name: str, *outputs: np.ndarray) -> Any:
        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            seen.append((name, [a.shape for a in arrays]))
            return list(outputs)

        return run

    vector, memory, scores = np.zeros((1, 5), "f4"), np.zeros((1, 4), "f4"), np.zeros((1, 3), "f4")
    encoder = (vector, np.zeros((1, 2, 3, 3), "f4"))
    answers = (scores,) if concatenating else (scores, memory)
    parts = ProgramParts(
        call("glance", *encoder), call("policy", np.zeros((1, 2), "f4"), memory), call("focus", *encoder),
        (call("first", *answers), call("second", *answers)), concatenating,
    )  # fmt: skip
    held = np.zeros((1, 0 if concatenating else 4), "f4")
    found, feature_map = parts.encode(0, np.zeros((1, 3, 8, 8), "f4"))
    _, held = parts.answer(0, found, held)
    parts.place(feature_map, memory)
    found, _ = parts.encode(1, np.zeros((1, 3, 8, 8), "f4"))
    _, held = parts.answer(1, found, held)
    assert [name for name, _ in seen] == ["glance", "first", "policy", "focus", "second"]
    assert seen[4][1] == ([(1, 10)] if concatenating else [(1, 5), (1, 4)])
    parts.close()
    with pytest.raises(BackendError, match="closed"):
        parts.encode(0, vector)
