"""From frame to frame: the first patch lies where the frame before found its answer, unless that says nothing now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_bundle
from exit_fakes import CLASSES, PATCH, SIDE, FakeParts, FakeTime, exits, runner, settings
from test_early_exit_bundle import focus_bundle, focus_values

from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.controller import Controller, LadderPoint
from edge_runtime.early_exit import FAILED, OUT_OF_LOOKS, OUT_OF_TIME, SURE, EarlyExitRunner, LookRecord, cut
from edge_runtime.errors import BackendError, FrameError
from edge_runtime.frame import Frame
from edge_runtime.pipeline import Pipeline
from edge_runtime.preprocess import preprocess
from edge_runtime.readings import Readings
from edge_runtime.runtime import Runtime
from edge_runtime.sensor_loop import NoSensors

PLACES = [np.array([[a, b]], np.float32) for a, b in ((0.0, 1.0), (1.0, 0.5), (0.25, 0.25), (0.0, 0.0))]
FIRST, SECOND, THIRD = (0, 8, 8, 8), (8, 4, 8, 8), (2, 2, 8, 8)
"""Patches that the fake policy chooses after each look."""


def placed(confidences: list[float]) -> tuple[EarlyExitRunner, FakeParts, FakeTime]:
    made, parts, clock = runner(confidences)
    parts.places = PLACES
    return made, parts, clock


def test_the_first_patch_lies_where_the_last_frame_ended_and_the_policy_goes_on_as_it_was_trained() -> None:
    made, parts, _ = placed([0.5, 0.6, 0.95, 0.5])
    made.run()
    assert made.last is not None
    assert (made.last.boxes, made.last.hinted, made.last.classes) == ((FIRST, SECOND), False, (0, 1, 2))
    made.hint = made.found
    made.input[:] = np.random.default_rng(0).normal(size=made.input.shape)
    made.run()
    assert (made.last.boxes, made.last.hinted) == ((SECOND, SECOND), True)
    np.testing.assert_array_equal(parts.images[-2], made.input[:, :, 8:16, 4:12])
    assert [float(memory[0, 0]) for memory in parts.memories] == [0.0, 1.0] * 2  # no step of the policy is left out
    made.run()
    assert (made.last.boxes, made.last.hinted) == ((FIRST, SECOND), False)  # a hint holds for one run


@pytest.mark.parametrize(
    ("confidences", "deadline_ms", "fail_at", "reason"),
    [
        ([0.95, 0.5, 0.5, 0.5], None, None, SURE),  # at the glance: no patch
        ([0.5, 0.6, 0.7, 0.95], None, None, OUT_OF_LOOKS),
        ([0.5, 0.6, 0.7, 0.95], 25.0, None, OUT_OF_TIME),
        ([0.5, 0.6, 0.95, 0.95], None, 2, FAILED),
    ],
)
def test_only_a_patch_that_made_the_answer_sure_is_remembered(
    confidences: list[float], deadline_ms: float | None, fail_at: int | None, reason: str
) -> None:
    made, parts, clock = placed(confidences)
    assert made.found is None
    made.warm_up()
    assert made.found is None
    parts.fail_at = fail_at
    made.deadline_s = None if deadline_ms is None else clock.now_s + deadline_ms / 1000.0
    made.run()
    assert made.last is not None
    assert made.last.reason == reason
    assert made.found is None


@pytest.mark.parametrize(
    ("glance", "hinted"),
    [(0, True), (2, True), (1, False), (-1, False)],
    ids=["the last glance's class", "the last answer's class", "another class", "no numbers"],
)
def test_a_glance_that_says_something_new_leaves_the_place_to_the_policy(glance: int, hinted: bool) -> None:
    made, parts, _ = placed([0.5, 0.6, 0.95, 0.5])
    made.run()
    hint = made.found
    answer = parts.answer

    def changed(look: int, vector: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, memory = answer(look, vector, memory)
        if look == 0:
            scores = np.full_like(scores, np.nan) if glance < 0 else np.eye(CLASSES, dtype="f4")[glance : glance + 1]
        return scores, memory

    parts.answer = changed  # type: ignore[method-assign]
    made.hint = hint
    made.run()
    assert made.last is not None
    assert (made.last.hinted, made.last.boxes[0]) == (hinted, SECOND if hinted else FIRST)
    assert hint is not None
    assert -1 not in hint.classes


@pytest.mark.parametrize("size_hw", [(16, 16), (301, 8), (8, 77)])
def test_the_same_pixel_comes_back_wherever_the_patch_was(size_hw: tuple[int, int]) -> None:
    clock = FakeTime()
    made = EarlyExitRunner(FakeParts(clock, [0.5] * 4), exits(), settings(), size_hw, CLASSES, clock)
    out = np.zeros((1, 3, PATCH, PATCH), np.float32)
    for top in range(size_hw[0] - PATCH + 1):
        for left in range(size_hw[1] - PATCH + 1):
            box = (top, left, PATCH, PATCH)
            made.last = LookRecord(2, SURE, 0.9, (box,), (1.0, 1.0), (0, 0))
            assert made.found is not None
            assert cut(made.input, made.found.place, out) == box


class Residents:
    """Two points of one network, and one of another; the frame loop chooses by pinning."""

    def __init__(self) -> None:
        self.clock = FakeTime()
        self.parts = FakeParts(self.clock, [0.5, 0.6, 0.95, 0.5])
        self.parts.places = PLACES
        self.runners: dict[str, Any] = {
            name: EarlyExitRunner(self.parts, exits(), settings(), (SIDE, SIDE), CLASSES, self.clock)
            for name in ("x2", "x3", "other")
        }
        self.names = frozenset(self.runners)

    def runner(self, point: str) -> EarlyExitRunner:
        found: EarlyExitRunner = self.runners[point]
        return found


def two_networks(root: Path) -> Bundle:
    """Points x2 and x3 of one network, "other" of another."""
    values = focus_values()
    values["programs"].append({**values["programs"][0], "name": "glance2"})
    values["exits"]["parts"].append({**values["exits"]["parts"][0], "glance": "glance2"})
    point = values["points"][0]
    values["points"] += [{**point, "name": "x3"}, {**point, "name": "other", "program": "glance2"}]
    return Bundle.load(focus_bundle(root, values))


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., list[bool]]:
    """Plays frames at these points; says which were started by a hint."""

    def run(
        points: list[str], *, option: bool = True, before: Callable[[int, Pipeline, Residents], None] | None = None
    ) -> list[bool]:
        residents = Residents()
        controller = Controller([LadderPoint(name, 0.5, 10.0) for name in sorted(residents.names)])
        pipeline = Pipeline(
            two_networks(tmp_path / "a.bundle"), residents, controller, residents.clock,  # type: ignore[arg-type]
            look_where_found=option,
        )  # fmt: skip
        hinted = []
        for index, point in enumerate(points):
            controller.pinned = point
            residents.parts.fail_at = None
            if before is not None:
                before(index, pipeline, residents)
            frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8), index, residents.clock.now_s)
            try:
                result = pipeline.process(frame, Budget(deadline_ms=500.0), Readings(0.0))
            except (BackendError, FrameError):
                continue
            assert result.trail is not None
            hinted.append(result.trail.hinted)
        return hinted

    return run


def test_frames_of_one_network_hand_the_place_on_whatever_the_point(play: Callable[..., list[bool]]) -> None:
    assert play(["x2", "x2", "x3", "x2"]) == [False, True, True, True]


def test_without_the_option_every_frame_begins_anew(play: Callable[..., list[bool]]) -> None:
    assert play(["x2"] * 3, option=False) == [False] * 3


def test_a_frame_of_another_network_takes_no_hint_and_leaves_one_of_its_own(play: Callable[..., list[bool]]) -> None:
    assert play(["x2", "other", "other", "x2"]) == [False, False, True, False]


def test_a_frame_that_fails_leaves_no_hint(play: Callable[..., list[bool]]) -> None:
    def fail(index: int, pipeline: Pipeline, residents: Residents) -> None:
        residents.parts.fail_at = 0 if index == 1 else None

    assert play(["x2"] * 4, before=fail) == [False, False, True]  # the second has no answer at all


def test_a_frame_that_cannot_be_prepared_leaves_no_hint(
    play: Callable[..., list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise FrameError("no picture")

    def broken(index: int, pipeline: Pipeline, residents: Residents) -> None:
        monkeypatch.setattr("edge_runtime.pipeline.preprocess", refuse if index == 1 else preprocess)

    assert play(["x2"] * 4, before=broken) == [False, False, True]


def test_a_new_video_begins_without_a_hint(play: Callable[..., list[bool]]) -> None:
    def forget(index: int, pipeline: Pipeline, residents: Residents) -> None:
        if index == 2:
            pipeline.forget()

    assert play(["x2"] * 4, before=forget) == [False, True, False, True]


class TwoFrames:
    """A source of two equal frames."""

    name, dropped, live = "two frames", 0, False

    def frames(self) -> Any:
        for index in range(2):
            yield Frame(np.zeros((SIDE, SIDE, 3), np.uint8), index, 0.0)


def test_a_stream_of_the_runtime_is_one_video(tmp_path: Path) -> None:
    residents = Residents()

    class Engine:
        name = "fake"

        def load(self, point: Any) -> EarlyExitRunner:
            return residents.runner(point.name)

        def close(self) -> None:
            pass

    bundle = two_networks(tmp_path / "a.bundle")
    with Runtime(
        bundle, Engine(), bundle.manifest.points, budget=Budget(500.0), sensors=NoSensors(), clock=residents.clock,
        look_where_found=True,
    ) as runtime:  # fmt: skip
        assert runtime.wait_ready(30)
        runtime.pin("x2")
        hinted = [result.trail.hinted for _ in range(2) for result in runtime.stream(TwoFrames()) if result.trail]
    assert hinted == [False, True, False, True]


@pytest.mark.parametrize("several", [False, True])
def test_where_nothing_looks_several_times_the_option_says_so_and_the_run_goes_on(
    tmp_path: Path, several: bool
) -> None:
    path = focus_bundle(tmp_path / "a.bundle") if several else write_bundle(tmp_path / "a.bundle")
    lines: list[str] = []
    options: dict[str, Any] = {"sensors": NoSensors(), "query_table": "none", "warn": lines.append}
    with Runtime.load(path, look_where_found=True, **options) as runtime:
        result = runtime.infer(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert lines == [f"{path}: no point looks several times on null; look-where-found changes nothing"]
    assert result.trail is None
