"""Exits solved on several scenes of each picture: budgets on all of them, the bound on one each."""

from __future__ import annotations

import numpy as np
import pytest

from converters.errors import ConversionError
from converters.glance_focus_exits import gate_of, join_scenes, solve_exits
from zoo.focus_exits import Answers, control_risk, fit_temperatures, play, stops

COSTS = [10, 20, 30]
SCENES, PICTURES = 4, 300


def made(seed: int, scenes: int = SCENES, pictures: int = PICTURES) -> tuple[np.ndarray, np.ndarray]:
    """Scores (3 looks, scenes, pictures, 5) that get better with each look; scenes of a picture are much alike."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 5, pictures)
    scores = draw.normal(0.0, 1.0, (3, 1, pictures, 5)) + draw.normal(0.0, 0.5, (3, scenes, pictures, 5))
    scores[:, :, np.arange(pictures), labels] += np.array([1.0, 2.0, 3.0])[:, None, None]
    return scores, labels


def known(scenes: int = SCENES) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    drawn = {name: made(seed, scenes) for seed, name in enumerate(("calib", "select"))} | {"test": made(2, 1)}
    return {name: scores for name, (scores, _) in drawn.items()}, {name: right for name, (_, right) in drawn.items()}


def test_all_scenes_of_a_split_stand_in_one_row_with_the_labels_of_their_pictures() -> None:
    scores, labels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5), np.array([7, 8, 9, 6])
    row, right = join_scenes([(scores, labels), (scores[:, :1], labels)])
    assert row.shape == (2, 16, 5)
    assert right.tolist() == [7, 8, 9, 6] * 4
    np.testing.assert_array_equal(row[:, 4 * 2 + 1], scores[:, 2, 1])  # third scene of the second picture
    np.testing.assert_array_equal(row[:, 12:], scores[:, 0])


def test_budgets_are_met_on_all_scenes() -> None:
    scores, labels = known()
    solved = solve_exits(scores, labels, COSTS, 3, 0.05, lambda line: None)
    answers = Answers.from_logits(
        *join_scenes([(scores[n], labels[n]) for n in ("calib", "select")]), solved.temperatures
    )
    assert answers.confidence.shape == (3, 2 * SCENES * PICTURES)
    for index, plan in enumerate((solved.plans["budget-1"], solved.plans["budget-2"], solved.plans["budget-3"])):
        assert plan.cost == pytest.approx(15.0 + 5.0 * index, rel=0.005)
        assert play(answers, COSTS, plan.thresholds) == plan


def test_the_bound_is_solved_on_one_scene_of_each_picture() -> None:
    scores, labels = known()
    solved = solve_exits(scores, labels, COSTS, 0, 0.05, lambda line: None)
    first = join_scenes([(scores[n][:, :1], labels[n]) for n in ("calib", "select")])
    expected = control_risk(Answers.from_logits(*first, solved.temperatures), COSTS, 0.05)
    everything = join_scenes([(scores[n], labels[n]) for n in ("calib", "select")])
    bolder = control_risk(Answers.from_logits(*everything, solved.temperatures), COSTS, 0.05)
    assert solved.plans["safe"].thresholds == expected.thresholds
    assert bolder.thresholds < expected.thresholds  # four times as many draws, if they were independent, prove more
    answers = Answers.from_logits(*everything, solved.temperatures)
    assert solved.plans["safe"] == play(answers, COSTS, expected.thresholds)  # what it costs is told by all


def test_one_scene_of_each_picture_gives_what_it_always_gave() -> None:
    scores, labels = known(scenes=1)
    solved = solve_exits(scores, labels, COSTS, 0, 0.05, lambda line: None)
    logits = np.concatenate([scores["calib"][:, 0], scores["select"][:, 0]], 1)
    right = np.concatenate([labels["calib"], labels["select"]])
    assert solved.temperatures == fit_temperatures(logits, right)
    assert solved.plans["safe"] == control_risk(Answers.from_logits(logits, right, solved.temperatures), COSTS, 0.05)


def test_accuracy_and_the_gate_are_over_all_scenes_of_a_split() -> None:
    scores, labels = known()
    solved = solve_exits(scores, labels, COSTS, 0, 0.05, lambda line: None)
    expected = {name: float((scores[name][-1].argmax(2) == labels[name]).mean()) for name in ("select", "test")}
    assert solved.accuracy["all"] == pytest.approx(expected)
    gate = gate_of(scores, labels, solved.plans, COSTS, solved.temperatures)
    assert gate["look 3"] == gate["all"] == pytest.approx(expected["select"])
    assert gate == solved.gate


def test_without_held_out_pictures_there_is_one_sentence() -> None:
    with pytest.raises(ConversionError, match="no held-out pictures: train with calib_pictures or select_pictures"):
        solve_exits({"test": made(0)[0]}, {"test": made(0)[1]}, COSTS, 0, 0.05, lambda line: None)


def test_each_point_may_answer_unsure_in_the_same_share_of_held_out_pictures() -> None:
    scores, labels = known()
    solved = solve_exits(scores, labels, COSTS, 2, 0.05, lambda line: None, unsure_share=0.1)
    answers = Answers.from_logits(
        *join_scenes([(scores[n], labels[n]) for n in ("calib", "select")]), solved.temperatures
    )
    assert set(solved.unsure_below) == set(solved.plans)
    for name, plan in solved.plans.items():
        at = stops(answers, plan.thresholds)
        ended = answers.confidence[at, np.arange(len(at))]
        assert (ended < solved.unsure_below[name]).mean() == pytest.approx(0.1, abs=0.001), name
    assert solved.unsure_below["one-look"] < solved.unsure_below["all"]
    never = solve_exits(scores, labels, COSTS, 2, 0.05, lambda line: None)
    assert set(never.unsure_below.values()) == {0.0}
