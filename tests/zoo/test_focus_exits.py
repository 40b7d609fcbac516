"""Exits, by simulation: planned cost is kept on fresh pictures, and a promise on accuracy holds as often as it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zoo.focus_exits import (
    NEVER,
    Answers,
    ExitError,
    best_thresholds,
    binomial_tail,
    common_thresholds,
    control_risk,
    fit_temperatures,
    plan_budgets,
    play,
    solve_thresholds,
    stops,
)

COSTS = (1.0, 2.5, 4.0)


def simulated(count: int, seed: int, overconfidence: float = 0.0) -> Answers:
    """Three looks at pictures of varying difficulty; a sure answer is more often right, a later one too."""
    draw = np.random.default_rng(seed)
    easy = draw.beta(1.5, 1.5, count)
    confidence, right = [], []
    for gain in (0.0, 0.3, 0.45):
        odds = np.log(easy / (1 - easy)) + 4.0 * gain + draw.normal(0, 0.3, count)
        sure = 1 / (1 + np.exp(-odds))  # no two pictures are equally sure
        right.append(draw.random(count) < sure)
        confidence.append(sure + overconfidence * (1 - sure))
    return Answers(np.stack(confidence), np.stack(right))


@pytest.mark.parametrize("budget", np.linspace(1.1, 3.9, 10))
def test_the_cost_on_fresh_pictures_is_within_two_percent_of_the_plan(budget: float) -> None:
    plan = solve_thresholds(simulated(40_000, 0), COSTS, budget)  # so many that the draw adds 0.5 % at most
    assert plan.cost == pytest.approx(budget, rel=1e-3)
    realised = play(simulated(40_000, 1), COSTS, plan.thresholds)
    assert realised.cost == pytest.approx(budget, rel=0.02)
    assert sum(plan.shares) == pytest.approx(1.0)


def test_thresholds_from_overconfident_training_pictures_overspend() -> None:
    trained = solve_thresholds(simulated(10_000, 0, overconfidence=0.4), COSTS, 2.0)
    assert play(simulated(10_000, 1), COSTS, trained.thresholds).cost > 1.08 * 2.0


def test_more_budget_gives_more_looks_and_more_accuracy() -> None:
    plans = plan_budgets(simulated(10_000, 0), COSTS)
    assert len(plans) == 10
    for cheap, dear in itertools.pairwise(plans):
        assert cheap.cost < dear.cost
        assert cheap.looks < dear.looks
        assert cheap.accuracy < dear.accuracy + 0.003  # the last looks add little, the draw adds noise


def test_where_late_looks_add_nothing_runs_end_earlier_and_answer_better() -> None:
    answers = simulated(10_000, 0)
    # nothing is learned after the second look
    flat = Answers(answers.confidence[[0, 1, 1]], answers.right[[0, 1, 1]])
    best, plain = best_thresholds(flat, COSTS, 1.9), solve_thresholds(flat, COSTS, 1.9)
    assert best.cost == pytest.approx(plain.cost, rel=1e-3)
    assert best.limit == 2
    assert plain.limit == 3
    assert best.accuracy > plain.accuracy + 0.01
    assert best.shares[2:] == (0.0,)


@pytest.mark.parametrize("budget", [1.0, 1.5, 2.0, 2.7, 4.0])
def test_the_best_limit_is_never_worse_and_costs_the_same(budget: float) -> None:
    answers = simulated(5_000, 3)
    best, plain = best_thresholds(answers, COSTS, budget), solve_thresholds(answers, COSTS, budget)
    assert best.accuracy >= plain.accuracy
    assert best.cost == pytest.approx(budget, rel=2e-3)


def test_a_limit_is_a_threshold_of_zero() -> None:
    answers = simulated(100, 0)
    assert play(answers, COSTS, (0.0, NEVER)).limit == 1
    assert play(answers, COSTS, (0.7, 0.0)).limit == 2
    assert play(answers, COSTS, (0.7, 0.6)).limit == 3


def test_the_ends_are_one_look_and_all_looks() -> None:
    answers = simulated(500, 0)
    assert solve_thresholds(answers, COSTS, 1.0).shares[0] == 1.0
    assert solve_thresholds(answers, COSTS, 4.0).shares[2] == 1.0


def test_the_surest_pictures_go_first() -> None:
    answers = simulated(1000, 0)
    plan = solve_thresholds(answers, COSTS, 2.0)
    first = stops(answers, plan.thresholds) == 0
    assert answers.confidence[0, first].min() > answers.confidence[0, ~first].max()


@pytest.mark.parametrize(
    ("budget", "costs", "message"),
    [(0.9, COSTS, r"budget is 0\.9, expected 1 "), (5.0, COSTS, "to 4 "), (2.0, (1.0, 1.0, 2.0), "rising")],
)
def test_a_plan_that_cannot_be_made_is_refused(budget: float, costs: tuple[float, ...], message: str) -> None:
    with pytest.raises(ExitError, match=message):
        solve_thresholds(simulated(50, 0), costs, budget)


def test_the_promise_on_accuracy_holds_as_often_as_it_says() -> None:
    # the true loss of each threshold, from many pictures; then 300 calibrations of 400 pictures each
    truth = simulated(200_000, 99)
    columns = np.arange(200_000)
    losses = {}
    for thresholds in common_thresholds(3):
        early = truth.right[stops(truth, thresholds), columns]
        losses[thresholds] = float((truth.right[-1] & ~early).mean())
    broken, saved = 0, 0.0
    for seed in range(300):
        plan = control_risk(simulated(400, 1000 + seed), COSTS, 0.08, level=0.9)
        broken += losses[plan.thresholds] > 0.08
        saved += (COSTS[-1] - plan.cost) / 300
    assert broken <= 300 * 0.1 + 3 * (300 * 0.1 * 0.9) ** 0.5  # three standard deviations of such a count
    assert saved > 0.2  # and it is not safe by never stopping


def test_a_tighter_promise_costs_more() -> None:
    answers = simulated(4000, 0)
    costs = [control_risk(answers, COSTS, loss).cost for loss in (0.01, 0.05, 0.2)]
    assert costs[0] > costs[1] > costs[2]
    assert control_risk(simulated(20, 0), COSTS, 0.01).thresholds == (NEVER, NEVER)  # too few pictures to promise it


def test_candidates_are_tried_in_order_until_one_is_not_safe() -> None:
    answers = simulated(4000, 0)
    bold, cautious = (0.0, 0.0), (0.97, 0.97)
    assert control_risk(answers, COSTS, 0.05, candidates=[bold, cautious]).thresholds == (NEVER, NEVER)
    assert control_risk(answers, COSTS, 0.05, candidates=[cautious, bold]).thresholds == cautious


def test_the_binomial_tail_is_exact() -> None:
    assert binomial_tail(0, 10, 0.1) == pytest.approx(0.9**10)
    assert binomial_tail(1, 3, 0.5) == pytest.approx(0.5)
    assert binomial_tail(12, 1000, 0.02) == pytest.approx(0.0379, abs=5e-4)
    assert (binomial_tail(3, 3, 1.0), binomial_tail(2, 3, 1.0), binomial_tail(0, 3, 0.0)) == (1.0, 0.0, 1.0)


def test_temperatures_undo_the_overconfidence_of_each_look() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (2, 4000, 5))
    labels = np.array([draw.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in logits[0]])
    found = fit_temperatures(np.stack([logits[0] * 2.0, logits[0] * 5.0]), labels)
    assert found == pytest.approx((2.0, 5.0), rel=0.08)
    answers = Answers.from_logits(np.stack([logits[0] * 2.0, logits[0] * 5.0]), labels, found)
    for look in range(2):
        assert answers.confidence[look].mean() == pytest.approx(answers.right[look].mean(), abs=0.02)


def test_a_wrong_number_of_thresholds_is_refused() -> None:
    with pytest.raises(ExitError, match="1 given, expected 2"):
        play(simulated(10, 0), COSTS, (0.5,))
