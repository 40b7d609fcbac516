"""When to stop looking: thresholds for any budget, and a mode that bounds the accuracy lost.

All of it is solved on held-out pictures. On training pictures a network is surer than it has a right to be: thresholds
solved there let fewer pictures go early in use, and the cost runs over the plan.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zoo.confidence import fit_temperature

NEVER = 2.0  # a confidence is at most 1
BISECTIONS = 60


class ExitError(ValueError):
    """A budget or a bound that cannot be met; the message says what can."""


@dataclass(frozen=True)
class Answers:
    """What a network answered after each look, on pictures that it was not trained on."""

    confidence: np.ndarray
    """(looks, pictures) float64, 0-1: the highest calibrated probability."""
    right: np.ndarray
    """(looks, pictures) bool."""

    @staticmethod
    def from_logits(logits: np.ndarray, labels: np.ndarray, temperatures: Sequence[float]) -> Answers:
        """From scores (looks, pictures, classes), labels (pictures,) and one temperature for each look."""
        scaled = logits.astype(np.float64) / np.asarray(temperatures, np.float64)[:, None, None]
        exponents = np.exp(scaled - scaled.max(2, keepdims=True))
        confidence = (exponents / exponents.sum(2, keepdims=True)).max(2)
        return Answers(confidence, logits.argmax(2) == labels)

    @property
    def looks(self) -> int:
        """Looks of a whole run."""
        return self.confidence.shape[0]


@dataclass(frozen=True)
class ExitPlan:
    """Thresholds, and what they are expected to give."""

    thresholds: tuple[float, ...]
    """A run stops after a look whose confidence is this high; one for each look but the last, after which it ends."""
    cost: float
    """Expected cost of a picture, in the unit of the costs that it was solved for."""
    looks: float
    """Expected number of looks."""
    accuracy: float
    """Expected accuracy, 0-1."""
    shares: tuple[float, ...]
    """Share of the pictures that stop after each look."""

    @property
    def limit(self) -> int:
        """Looks at most: none gets past a threshold of 0."""
        return next((look for look, t in enumerate(self.thresholds, start=1) if t <= 0.0), len(self.thresholds) + 1)


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """One temperature for each look, from held-out scores (looks, pictures, classes)."""
    right = torch.from_numpy(np.asarray(labels, np.int64))
    return tuple(fit_temperature(torch.from_numpy(np.asarray(scores, np.float64)), right) for scores in logits)


def stops(answers: Answers, thresholds: Sequence[float]) -> np.ndarray:
    """The look after which each picture stops, (pictures,) int64, 0 for the first."""
    if len(thresholds) != answers.looks - 1:
        raise ExitError(
            f"thresholds: {len(thresholds)} given, expected {answers.looks - 1}: one for each look but the last"
        )
    sure = answers.confidence[:-1] >= np.asarray(thresholds)[:, None]
    return np.where(sure.any(0), sure.argmax(0), answers.looks - 1)


def play(answers: Answers, costs: Sequence[float], thresholds: Sequence[float]) -> ExitPlan:
    """What thresholds give on these pictures.

    Args:
        costs: of a run that stops after each look, rising (multiply-adds or milliseconds).
    """
    at = stops(answers, thresholds)
    shares = np.bincount(at, minlength=answers.looks) / len(at)
    return ExitPlan(
        tuple(float(t) for t in thresholds), float(np.asarray(costs)[at].mean()), float(at.mean() + 1.0),
        float(answers.right[at, np.arange(len(at))].mean()), tuple(shares.tolist()),
    )  # fmt: skip


def unsure_threshold(answers: Answers, thresholds: Sequence[float], share: float) -> float:
    """The confidence below which this share (0-1) of the pictures ends, each at the look after which it stops."""
    at = stops(answers, thresholds)
    return float(np.quantile(answers.confidence[at, np.arange(len(at))], share))


def solve_thresholds(answers: Answers, costs: Sequence[float], budget: float) -> ExitPlan:
    """Thresholds whose expected cost is a budget.

    The shares that stop after each look follow a geometric row, p, p^2, p^3, ..., as in the paper; p is solved for, so
    that any budget can be asked for. After each look the surest of those still there go.

    Args:
        answers: on held-out pictures.
        costs: of a run that stops after each look, rising.
        budget: in the unit of the costs.
    Raises:
        ExitError: less than the first look or more than all of them; costs do not rise; there is no picture.
    """
    costs = [float(c) for c in costs]
    if answers.confidence.shape[1] == 0:
        raise ExitError("exits: no pictures; solve them on at least a few hundred that were not trained on")
    if len(costs) != answers.looks or any(a >= b for a, b in itertools.pairwise(costs)):
        raise ExitError(f"exits: costs are {costs}, expected {answers.looks} rising numbers")
    if not costs[0] <= budget <= costs[-1]:
        raise ExitError(f"exits: budget is {budget:g}, expected {costs[0]:g} (one look) to {costs[-1]:g} (all looks)")
    low, high = -30.0, 30.0  # logarithm of p: all stop after the first look, none before the last
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if float(np.dot(_geometric(middle, len(costs)), costs)) <= budget:
            low = middle
        else:
            high = middle
    return play(answers, costs, _quantile_thresholds(answers, _geometric(low, len(costs))))


def best_thresholds(answers: Answers, costs: Sequence[float], budget: float) -> ExitPlan:
    """Of all limits to the number of looks that a budget can be spent within, the one that answers best.

    The geometric row of the paper always leaves some pictures for the last look. Where late looks add little, it pays
    to end every run earlier and to let fewer pictures go after the glance. A limit is a threshold of 0.

    Args, Raises:
        as `solve_thresholds`.
    """
    best = solve_thresholds(answers, costs, budget)
    for limit in range(answers.looks - 1, 1, -1):
        if costs[limit - 1] < budget:
            break
        first = Answers(answers.confidence[:limit], answers.right[:limit])
        inner = solve_thresholds(first, costs[:limit], budget).thresholds
        plan = play(answers, costs, (*inner, 0.0, *(NEVER,) * (answers.looks - 1 - limit)))
        if plan.accuracy >= best.accuracy:
            best = plan
    return best


def _geometric(log_p: float, looks: int) -> np.ndarray:
    powers = log_p * np.arange(1, looks + 1)
    shares = np.exp(powers - powers.max())
    return shares / shares.sum()


def _quantile_thresholds(answers: Answers, shares: np.ndarray) -> list[float]:
    """Let so many of the pictures go after each look: the surest of those still there.

    The rounding of one look is made up for at the next, so that small splits keep the plan.
    """
    count = answers.confidence.shape[1]
    left = np.arange(count)
    thresholds, gone = [], 0
    for look in range(answers.looks - 1):
        wanted = round(float(shares[: look + 1].sum()) * count) - gone
        confidence = np.sort(answers.confidence[look, left])[::-1]
        if wanted <= 0 or len(left) == 0:
            threshold = NEVER
        elif wanted >= len(left):
            threshold = 0.0
        else:
            threshold = float((confidence[wanted - 1] + confidence[wanted]) / 2.0)
        going = answers.confidence[look, left] >= threshold
        gone += int(going.sum())
        left = left[~going]
        thresholds.append(threshold)
    return thresholds


def binomial_tail(successes: int, trials: int, share: float) -> float:
    """Probability of at most so many successes in independent trials of this chance."""
    if share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 1.0 if successes >= trials else 0.0
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(share) + (trials - k) * math.log1p(-share)
        for k in range(successes + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def common_thresholds(looks: int, count: int = 100) -> list[tuple[float, ...]]:
    """One threshold for all looks, from never stopping early to always stopping after the first."""
    return [(NEVER,) * (looks - 1)] + [(1.0 - index / count,) * (looks - 1) for index in range(count + 1)]


def control_risk(
    answers: Answers,
    costs: Sequence[float],
    max_loss: float,
    level: float = 0.95,
    candidates: Sequence[Sequence[float]] | None = None,
) -> ExitPlan:
    """The boldest thresholds that lose at most so much accuracy against all looks, with this confidence.

    A picture is lost when all looks answer it right and the early answer is wrong; the share of lost pictures bounds
    the accuracy lost. Candidates are tested from the most cautious on, each by the exact binomial tail, and the first
    that cannot be shown to be safe ends the search; so one level holds for the whole search (learn then test,
    Angelopoulos et al. 2021, arXiv:2110.01052). The guarantee is over the draw of the held-out pictures.

    Args:
        answers: on held-out pictures.
        max_loss: accuracy that may be lost, 0-1.
        level: 0-1; the chance that the promise holds.
        candidates: from cautious to bold; they must not be made from these pictures. None: `common_thresholds`.
    Raises:
        ExitError: max_loss or level is not between 0 and 1.
    """
    if not (0.0 < max_loss < 1.0 and 0.0 < level < 1.0):
        raise ExitError(f"exits: max_loss is {max_loss} and level is {level}, expected each between 0 and 1")
    safe: Sequence[float] = (NEVER,) * (answers.looks - 1)
    columns = np.arange(answers.confidence.shape[1])
    for thresholds in common_thresholds(answers.looks) if candidates is None else candidates:
        early = answers.right[stops(answers, thresholds), columns]
        lost = int((answers.right[-1] & ~early).sum())
        if binomial_tail(lost, len(columns), max_loss) > 1.0 - level:
            break
        safe = thresholds
    return play(answers, costs, safe)


def plan_budgets(answers: Answers, costs: Sequence[float], count: int = 10) -> list[ExitPlan]:
    """Plans at equal distances between one look and all looks, cheapest first."""
    first, last = float(costs[0]), float(costs[-1])
    budgets = [first + (last - first) * (index + 1) / (count + 1) for index in range(count)]
    return [best_thresholds(answers, costs, budget) for budget in budgets]
