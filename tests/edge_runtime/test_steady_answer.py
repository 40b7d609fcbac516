"""Answers to a video that are averaged over time, from cut to cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_bundle
from fake_engine import our_threads

from edge_runtime import Runtime
from edge_runtime.errors import BudgetError
from edge_runtime.frame import Frame
from edge_runtime.postprocess import classify
from edge_runtime.result import Classification
from edge_runtime.steady_answer import CUT_DIFFERENCE, SteadyAnswer, thumbnail

LABELS = ("cat", "dog", "cup")
GREY = np.full((48, 64, 3), 100, np.uint8)
SMOOTH_S = 0.2


def logits(**shares: float) -> np.ndarray:
    """Scores whose softmax is these probabilities."""
    return np.log(np.array([[shares[label] for label in LABELS]], np.float32))


CAT, DOG = logits(cat=0.8, dog=0.1, cup=0.1), logits(cat=0.1, dog=0.7, cup=0.2)


class Video:
    """Takes one answer after the other."""

    def __init__(self, smooth_s: float = SMOOTH_S) -> None:
        self.steady, self.count = SteadyAnswer(LABELS, smooth_s), 0

    def take(
        self, scores: np.ndarray, at_s: float | None, *, pixels: np.ndarray = GREY, live: bool = False,
        captured_s: float = 0.0, temperature: float = 1.0, unsure_below: float = 0.0,
    ) -> Classification:  # fmt: skip
        self.count += 1
        frame = Frame(pixels, self.count, captured_s, at_s)
        return self.steady.take(frame, live, scores, temperature, unsure_below)


def confidence_of(answer: Classification, label: str) -> float:
    return dict(answer.top)[label]


def test_a_frame_counts_by_the_time_since_the_last_one() -> None:
    for gap_s in (1 / 30, 0.1, 2.0):
        video = Video()
        video.take(CAT, 1.0)
        share = 1.0 - math.exp(-gap_s / SMOOTH_S)
        answer = video.take(DOG, 1.0 + gap_s)
        assert confidence_of(answer, "cat") == pytest.approx(share * 0.1 + (1 - share) * 0.8, abs=1e-6)
        assert sum(p for _, p in answer.top) == pytest.approx(1.0)


def test_one_wrong_frame_does_not_change_the_label_and_a_lasting_change_does() -> None:
    video = Video()
    video.take(CAT, 0.0)
    assert video.take(DOG, 1 / 30).label == "cat"
    labels = [video.take(DOG, (2 + n) / 30).label for n in range(8)]
    assert labels[-1] == "dog"


def test_two_steps_of_half_the_time_forget_as_much_as_one() -> None:
    fast, slow = Video(), Video()
    for video in (fast, slow):
        video.take(CAT, 0.0)
    fast.take(DOG, 0.05)
    found = fast.take(DOG, 0.1), slow.take(DOG, 0.1)
    assert found[0].confidence == pytest.approx(found[1].confidence, abs=1e-6)


def test_after_a_cut_the_new_picture_counts_alone() -> None:
    video = Video()
    video.take(CAT, 0.0)
    other = (GREY + np.uint8(CUT_DIFFERENCE + 1)).astype(np.uint8)
    assert video.take(DOG, 1 / 30, pixels=other) == classify(DOG, LABELS)
    video = Video()
    video.take(CAT, 0.0)
    like = (GREY + np.uint8(CUT_DIFFERENCE - 1)).astype(np.uint8)
    assert video.take(DOG, 1 / 30, pixels=like) != classify(DOG, LABELS)


def test_the_threshold_and_the_temperature_of_each_point_count_as_long_as_its_answer() -> None:
    video = Video()
    video.take(CAT, 0.0, unsure_below=0.9)
    share = 1.0 - math.exp(-0.1 / SMOOTH_S)
    softer = np.exp(CAT / 2.0)
    softer /= softer.sum()
    expected = share * softer[0, 0] + (1 - share) * 0.8
    limit = (1 - share) * 0.9
    assert expected > limit
    answer = video.take(CAT, 0.1, temperature=2.0)
    assert (answer.label, answer.confidence) == ("cat", pytest.approx(expected, abs=1e-6))
    for gap_s, label in ((0.1, "cat"), (1.9, "unsure")):
        video = Video()
        video.take(CAT, 0.0)
        assert video.take(CAT, gap_s, unsure_below=0.95).label == label, gap_s


@pytest.mark.parametrize("case", ["off", "picture of its own", "time stands still", "time goes back", "forgotten"])
def test_a_frame_with_nothing_before_it_is_answered_alone(case: str) -> None:
    video = Video(0.0 if case == "off" else SMOOTH_S)
    own = case == "picture of its own"
    video.take(CAT, None if own else 1.0)
    if case == "forgotten":
        video.steady.forget()
    at_s = {"picture of its own": None, "time stands still": 1.0, "time goes back": 0.5}.get(case, 1.03)
    assert video.take(DOG, at_s) == classify(DOG, LABELS)


def test_a_live_source_goes_by_the_time_of_capture() -> None:
    video = Video()
    video.take(CAT, None, live=True, captured_s=5.0)
    answer = video.take(DOG, None, live=True, captured_s=5.1)
    share = 1.0 - math.exp(-0.1 / SMOOTH_S)
    assert confidence_of(answer, "dog") == pytest.approx(share * 0.7 + (1 - share) * 0.1, abs=1e-5)


def test_scores_that_are_not_finite_are_unsure_and_leave_nothing_behind() -> None:
    video = Video()
    video.take(CAT, 0.0)
    assert video.take(np.full((1, 3), np.nan, np.float32), 0.03) == Classification("unsure", 0.0)
    assert video.take(DOG, 0.06) == classify(DOG, LABELS)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (480, 640), (1080, 1920), (2000, 3)])
def test_pictures_of_any_size_have_thumbnails_of_one_size(shape: tuple[int, int]) -> None:
    small = thumbnail(np.full((*shape, 3), 77, np.uint8))
    assert small.shape == (16, 16, 3)
    assert np.all(small == 77.0)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_time_constant_that_is_none_is_refused_before_anything_starts(tmp_path: Path, bad: float) -> None:
    with pytest.raises(BudgetError, match=r"smooth_s: .* choose 0 or more"):
        Runtime.load(write_bundle(tmp_path / "a.bundle"), smooth_s=bad)
    assert our_threads() == set()


def answers(path: Path, source: Any, smooth_s: float) -> list[Classification]:
    with Runtime.load(path, smooth_s=smooth_s) as runtime:
        runtime.wait_ready(30)
        runtime.pin("w1.00-r032")
        return [result.answer for result in runtime.stream(source)]


class Film:
    """Six frames of a file that become brighter, a little each."""

    name, live, dropped = "film", False, 0

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def frames(self) -> Any:
        for index in range(self.first, self.first + 6):
            yield Frame((GREY + np.uint8(index)).astype(np.uint8), index, media_s=index / 30)


def test_a_stream_is_smoothed_when_it_is_asked_for_and_each_stream_begins_anew(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "a.bundle")
    alone, smooth = answers(path, Film(), 0.0), answers(path, Film(), 0.5)
    assert alone[0] == smooth[0]
    change = next(n for n in range(1, 6) if alone[n].label != alone[n - 1].label)
    assert smooth[change].label == alone[change - 1].label
    assert smooth[change].confidence < alone[change].confidence
    with Runtime.load(path, smooth_s=0.5) as runtime:
        first = next(iter(runtime.stream(Film())))
        again = next(iter(runtime.stream(Film())))
        picture = runtime.infer(GREY)
    assert first.answer == again.answer
    assert picture.answer == classify(picture.outputs[0], runtime.labels)


def test_a_stream_that_goes_on_in_time_is_another_one_all_the_same(tmp_path: Path) -> None:
    with Runtime.load(write_bundle(tmp_path / "a.bundle"), smooth_s=5.0) as runtime:
        runtime.wait_ready(30)
        runtime.pin("w1.00-r032")
        before = list(runtime.stream(Film()))
        after = next(iter(runtime.stream(Film(first=6))))
    assert before[-1].answer != classify(before[-1].outputs[0], runtime.labels)  # others count beside it
    assert after.answer == classify(after.outputs[0], runtime.labels)
