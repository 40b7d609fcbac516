"""The operating points of a Glance and Focus bundle: exits solved on held-out answers of the engine, and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import ConversionError
from zoo.focus_exits import (
    NEVER,
    Answers,
    ExitPlan,
    control_risk,
    fit_temperatures,
    plan_budgets,
    play,
    unsure_threshold,
)

HELD_OUT, MEASURED = ("calib", "select"), ("select", "test")
Scores = Mapping[str, np.ndarray]
"""Split -> scores (looks, scenes of each picture, pictures, classes)."""


@dataclass(frozen=True)
class SolvedExits:
    """What the points of one set of parts do."""

    temperatures: tuple[float, ...]
    plans: dict[str, ExitPlan]
    """Point -> thresholds, and what they are expected to give."""
    accuracy: dict[str, dict[str, float]]
    """Point -> split -> accuracy."""
    gate: dict[str, float]
    """Accuracy on select after every look ("look 2") and of every point: what int8 is compared by."""
    unsure_below: dict[str, float]
    """Point -> confidence below which its answer is "unsure"."""


def solve_exits(
    scores: Scores,
    labels: Mapping[str, np.ndarray],
    costs: list[int],
    budgets: int,
    max_loss: float,
    report: Callable[[str], None],
    temperatures: tuple[float, ...] | None = None,
    unsure_share: float = 0.0,
) -> SolvedExits:
    """One look, all looks, budgets between, and one that bounds the loss.

    Several scenes of a picture make a plan's cost truer, but they are no independent draws, which the bound asks for:
    it is solved on the first scene of each picture.

    Args:
        scores: of each split that has pictures.
        labels: of the pictures (pictures,) int64.
        costs: multiply-adds up to each look.
        budgets: points between one look and all looks.
        max_loss: accuracy that "safe" may lose, 0-1.
        temperatures: of the bundle; None: fitted here.
        unsure_share: share of the held-out pictures, 0-1, that each point may answer "unsure".
    Raises:
        ConversionError: no split is held out.
    """
    held = [name for name in HELD_OUT if name in scores]
    if not held:
        raise ConversionError("no held-out pictures: train with calib_pictures or select_pictures above 0")
    logits, right = join_scenes([(scores[name], labels[name]) for name in held])
    temperatures = temperatures or fit_temperatures(logits, right)
    answers = Answers.from_logits(logits, right, temperatures)
    first = join_scenes([(scores[name][:, :1], labels[name]) for name in held])
    last = answers.looks - 1
    plans = {"one-look": play(answers, costs, (0.0, *(NEVER,) * (last - 1)))}
    for index, plan in enumerate(plan_budgets(answers, costs, budgets), start=1):
        plans[f"budget-{index}"] = plan
    safe = control_risk(Answers.from_logits(*first, temperatures), costs, max_loss)
    plans["safe"] = play(answers, costs, safe.thresholds)
    plans["all"] = play(answers, costs, (NEVER,) * last)
    accuracy = _judged(scores, labels, plans, costs, temperatures, report)
    below = {
        name: unsure_threshold(answers, plan.thresholds, unsure_share) if unsure_share > 0.0 else 0.0
        for name, plan in plans.items()
    }
    return SolvedExits(temperatures, plans, accuracy, gate_of(scores, labels, plans, costs, temperatures), below)


def join_scenes(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All scenes of some splits in one row.

    Args:
        parts: of each split scores (looks, scenes of each picture, pictures, classes) and labels (pictures,).
    Returns:
        scores (looks, all scenes, classes) and labels (all scenes,): first scenes of a split first.
    """
    rows = [scores.reshape(scores.shape[0], -1, scores.shape[3]) for scores, _ in parts]
    labels = [np.tile(right, scores.shape[1]) for scores, right in parts]
    return np.concatenate(rows, 1), np.concatenate(labels)


def _judged(
    scores: Scores, labels: Mapping[str, np.ndarray], plans: Mapping[str, ExitPlan], costs: list[int],
    temperatures: tuple[float, ...], report: Callable[[str], None],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Plan -> split -> accuracy."""
    accuracy: dict[str, dict[str, float]] = {name: {} for name in plans}
    for split in (name for name in MEASURED if name in scores):
        judged = Answers.from_logits(*join_scenes([(scores[split], labels[split])]), temperatures)
        for name, plan in plans.items():
            realised = play(judged, costs, plan.thresholds)
            accuracy[name][split] = realised.accuracy
            report(
                f"{name} on {split}: planned {plan.cost / 1e6:.2f}, realised {realised.cost / 1e6:.2f} MMAdds, "
                f"{realised.looks:.2f} looks, accuracy {realised.accuracy:.3f}"
            )
    return accuracy


def gate_of(
    scores: Scores,
    labels: Mapping[str, np.ndarray],
    plans: Mapping[str, ExitPlan],
    costs: list[int],
    temperatures: tuple[float, ...],
) -> dict[str, float]:
    """Accuracy on select, all its scenes, after every look and of every point; empty without pictures to select on."""
    if "select" not in scores:
        return {}
    judged = Answers.from_logits(*join_scenes([(scores["select"], labels["select"])]), temperatures)
    found = {f"look {look + 1}": float(row.mean()) for look, row in enumerate(judged.right)}
    return found | {name: play(judged, costs, plan.thresholds).accuracy for name, plan in plans.items()}
