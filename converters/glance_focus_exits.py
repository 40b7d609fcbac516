"""The operating points of a Glance and Focus bundle: exits solved on held-out answers of the engine, and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from converters.errors import ConversionError
from zoo.focus_exits import NEVER, Answers, ExitPlan, control_risk, fit_temperatures, plan_budgets, play

HELD_OUT, MEASURED = ("calib", "select"), ("select", "test")
Scores = Mapping[str, np.ndarray]
"""Split -> scores (looks, pictures, classes)."""


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


def solve_exits(
    scores: Scores,
    labels: Mapping[str, np.ndarray],
    costs: list[int],
    budgets: int,
    max_loss: float,
    report: Callable[[str], None],
    temperatures: tuple[float, ...] | None = None,
) -> SolvedExits:
    """One look, all looks, budgets between, and one that bounds the loss.

    Args:
        scores, labels: of each split that has pictures.
        costs: multiply-adds up to each look.
        budgets: points between one look and all looks.
        max_loss: accuracy that "safe" may lose, 0-1.
        temperatures: of the bundle; None: fitted here.
    Raises:
        ConversionError: no split is held out.
    """
    held = [name for name in HELD_OUT if name in scores]
    if not held:
        raise ConversionError("no held-out pictures: train with calib_pictures or select_pictures above 0")
    logits, right = np.concatenate([scores[n] for n in held], 1), np.concatenate([labels[n] for n in held])
    temperatures = temperatures or fit_temperatures(logits, right)
    answers = Answers.from_logits(logits, right, temperatures)
    last = answers.looks - 1
    plans = {"one-look": play(answers, costs, (0.0, *(NEVER,) * (last - 1)))}
    for index, plan in enumerate(plan_budgets(answers, costs, budgets), start=1):
        plans[f"budget-{index}"] = plan
    plans["safe"] = control_risk(answers, costs, max_loss)
    plans["all"] = play(answers, costs, (NEVER,) * last)
    accuracy: dict[str, dict[str, float]] = {name: {} for name in plans}
    for split in (name for name in MEASURED if name in scores):
        judged = Answers.from_logits(scores[split], labels[split], temperatures)
        for name, plan in plans.items():
            realised = play(judged, costs, plan.thresholds)
            accuracy[name][split] = realised.accuracy
            report(
                f"{name} on {split}: planned {plan.cost / 1e6:.2f}, realised {realised.cost / 1e6:.2f} MMAdds, "
                f"{realised.looks:.2f} looks, accuracy {realised.accuracy:.3f}"
            )
    return SolvedExits(temperatures, plans, accuracy, gate_of(scores, labels, plans, costs, temperatures))


def gate_of(
    scores: Scores,
    labels: Mapping[str, np.ndarray],
    plans: Mapping[str, ExitPlan],
    costs: list[int],
    temperatures: tuple[float, ...],
) -> dict[str, float]:
    """Accuracy on select after every look and of every point; empty without pictures to select on."""
    if "select" not in scores:
        return {}
    judged = Answers.from_logits(scores["select"], labels["select"], temperatures)
    found = {f"look {look + 1}": float(row.mean()) for look, row in enumerate(judged.right)}
    return found | {name: play(judged, costs, plan.thresholds).accuracy for name, plan in plans.items()}
