"""Which operating point a frame would have liked to use, had every point been resident: a hint for the resident set.

The controller chooses among resident points only, so it cannot say what it misses. This is a coarse look at the same
table: the most accurate point that fits the deadline with room to spare at the slowdown that the controller estimates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edge_runtime.budget import Budget
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.result import Result

ROOM_SHARE = 0.85  # as the controller's own margin for stepping up
NO_WISH = ("", "deadline", "not in memory")
"""Reasons of `Decision.limited_by` that another point could help against; heat, battery or a power limit are others."""


def wanted_point(
    ladder: Sequence[LadderPoint], holdable: Collection[str], budget: Budget, result: Result
) -> str | None:
    """The point to hold ready.

    Args:
        ladder: the query table.
        holdable: names of the points that can become resident.
        budget: what the application wants.
        result: of the frame that is over.
    Returns:
        its name, or None when no point fits or something else than time limits the choice.
    """
    if result.decision.limited_by not in NO_WISH:
        return None
    period_ms = budget.deadline_ms if budget.target_fps is None else 1000.0 / budget.target_fps
    left_ms = min(budget.deadline_ms - (result.latency_ms - result.run_ms), period_ms) * ROOM_SHARE
    best: LadderPoint | None = None
    for point in ladder:
        if point.latency_ms * result.decision.slowdown > left_ms or point.name not in holdable:
            continue
        if best is None or (point.accuracy, -point.latency_ms) > (best.accuracy, -best.latency_ms):
            best = point
    return None if best is None else best.name
