"""Budgets that make no sense are refused in a sentence; the others keep what they were given."""

from __future__ import annotations

from typing import Any

import pytest

from edge_runtime.budget import Budget
from edge_runtime.errors import BudgetError


def test_a_frame_rate_is_a_deadline_of_one_period() -> None:
    assert Budget.from_fps(20.0, 0.6) == Budget(50.0, 0.6)
    assert Budget().deadline_ms == pytest.approx(1000 / 30)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"deadline_ms": 0.0}, "deadline is 0.0 ms, expected more than 0; give a positive latency or fps"),
        ({"deadline_ms": -5.0}, "deadline is -5.0 ms"),
        ({"deadline_ms": float("nan")}, "deadline is nan ms"),
        ({"deadline_ms": float("inf")}, "deadline is inf ms"),
        ({"min_accuracy": 60.0}, "minimum accuracy is 60.0, expected 0 to 1"),
        ({"min_accuracy": -0.1}, "minimum accuracy is -0.1"),
        ({"min_accuracy": float("nan")}, "minimum accuracy is nan"),
        ({"battery_floor_share": 20.0}, "battery floor is 20.0, expected 0 to 1"),
        ({"battery_floor_share": float("nan")}, "battery floor is nan"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message) as caught:
        Budget(**values)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e-320])
def test_a_frame_rate_that_makes_no_sense_is_refused(fps: float) -> None:
    with pytest.raises(BudgetError, match="expected more than 0"):
        Budget.from_fps(fps)
