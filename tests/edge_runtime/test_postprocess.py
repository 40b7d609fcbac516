"""From logits to an answer: probabilities, order, calibration, doubt."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.postprocess import UNSURE, classify

LABELS = tuple("abcdefg")


def logits(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_probabilities_are_the_softmax_best_first() -> None:
    answer = classify(logits(0, 3, 1, 2, -1, -2, -3), LABELS)
    expected = np.exp([0, 3, 1, 2, -1, -2, -3])
    expected /= expected.sum()
    assert answer.label == "b"
    assert answer.confidence == pytest.approx(expected[1])
    assert [label for label, _ in answer.top] == ["b", "d", "c", "a", "e"]
    assert [p for _, p in answer.top] == pytest.approx(sorted(expected, reverse=True)[:5])


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    assert [label for label, _ in classify(logits(1, 1, 1), LABELS[:3]).top] == ["a", "b", "c"]


def test_temperature_softens_without_changing_the_order() -> None:
    sharp, soft = classify(logits(0, 3, 1), LABELS[:3]), classify(logits(0, 3, 1), LABELS[:3], temperature=3.0)
    assert soft.confidence == pytest.approx(np.exp(1) / (1 + np.exp(1) + np.exp(1 / 3)))
    assert soft.confidence < sharp.confidence
    assert [label for label, _ in soft.top] == [label for label, _ in sharp.top]


def test_below_the_threshold_the_answer_is_unsure_and_the_candidates_stay() -> None:
    answer = classify(logits(0, 1, 0), LABELS[:3], unsure_below=0.9)
    assert answer.label == UNSURE
    assert answer.confidence < 0.9
    assert answer.top[0][0] == "b"
    assert classify(logits(0, 1, 0), LABELS[:3], unsure_below=0.5).label == "b"


def test_huge_scores_do_not_overflow() -> None:
    assert classify(logits(3e38, -3e38, 0), LABELS[:3]).confidence == 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_say_nothing(bad: float) -> None:
    answer = classify(logits(0, bad, 0), LABELS[:3])
    assert (answer.label, answer.confidence, answer.top) == (UNSURE, 0.0, ())


def test_the_logits_are_not_changed() -> None:
    given = logits(1, 2, 3)
    classify(given, LABELS[:3], temperature=2.0)
    np.testing.assert_array_equal(given, logits(1, 2, 3))
