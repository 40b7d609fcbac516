"""Which points may be used at all: resident, and within the caps of the slow loop and the limits of the budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edge_runtime.budget import Budget
from edge_runtime.controller_limits import SlowLoop
from edge_runtime.controller_table import QueryTable


@dataclass(frozen=True)
class Selection:
    """The usable points of one moment."""

    order: tuple[int, ...]
    """Most accurate first, and among equals the fastest; never empty."""
    excluded: tuple[int, ...]
    """Resident points that a limit forbids."""
    reason: str
    """What forbids them."""
    within_limits: bool
    """False when even the least demanding point breaks a limit."""
    all_accurate: bool
    """Every usable point reaches the accuracy floor."""
    floor_reached: bool
    """Some usable point did; if so, `order` holds no other."""


def select(table: QueryTable, slow: SlowLoop, budget: Budget, resident: Collection[str], period_s: float) -> Selection:
    """Apply the limits.

    Args:
        table: the query table.
        slow: its caps.
        budget: its limits.
        resident: names of the points that can run at once.
        period_s: mean time between two frames, for the power limit; 0 when unknown.
    Raises:
        ValueError: no point of the table is resident.
    """
    points = table.points
    loaded = [i for i, point in enumerate(points) if point.name in resident]
    if not loaded:
        raise ValueError("no resident point is in the ladder")
    memory_bytes = _memory_limit(slow, budget)
    highest_ms = slow.cap_share * points[-1].latency_ms
    frugal, reason = loaded, ""
    if memory_bytes is not None:
        frugal = [i for i in loaded if (points[i].memory_bytes or 0) <= memory_bytes]
        reason = "memory limit" if len(frugal) < len(loaded) else ""
    if budget.max_power_w is not None and period_s > 0.0:
        joules = budget.max_power_w * period_s
        kept = [i for i in frugal if (points[i].energy_j or 0.0) <= joules]
        reason, frugal = ("power limit", kept) if len(kept) < len(frugal) else (reason, frugal)
    within = bool(frugal)
    if not frugal:
        frugal = [min(loaded, key=lambda i: (points[i].memory_bytes or 0, points[i].energy_j or 0.0, i))]
    inside = [i for i in frugal if points[i].latency_ms <= highest_ms] or frugal[:1]
    reason = slow.reason if len(inside) < len(frugal) else reason
    accurate = [i for i in inside if points[i].accuracy >= budget.min_accuracy]
    usable = accurate or inside
    order = sorted(usable, key=lambda i: (-points[i].accuracy, points[i].latency_ms))
    excluded = tuple(i for i in loaded if i not in inside)
    return Selection(tuple(order), excluded, reason, within, len(accurate) == len(inside), bool(accurate))


def _memory_limit(slow: SlowLoop, budget: Budget) -> float | None:
    """The smaller of the known ones."""
    if budget.max_memory_bytes is None:
        return slow.memory_limit_bytes
    if slow.memory_limit_bytes is None or budget.max_memory_bytes < slow.memory_limit_bytes:
        return float(budget.max_memory_bytes)
    return slow.memory_limit_bytes
