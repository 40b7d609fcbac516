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
    """Points that a limit forbids, resident or not."""
    absent: tuple[int, ...]
    """Points that no limit forbids and that are not resident."""
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
    everything = range(len(points))
    allowed, reason = _within_budget(table, slow, budget, everything, period_s)
    frugal = loaded if len(allowed) == len(points) else [i for i in loaded if i in allowed]
    within = bool(frugal)
    if not frugal:
        frugal = [min(loaded, key=lambda i: (points[i].memory_bytes or 0, points[i].energy_j or 0.0, i))]
    highest_ms = slow.cap_share * points[-1].latency_ms
    inside = [i for i in frugal if points[i].latency_ms <= highest_ms] or frugal[:1]
    outside = [] if len(inside) == len(points) else [i for i in everything if i not in inside]
    excluded = [i for i in outside if i not in allowed or points[i].latency_ms > highest_ms]
    absent = [i for i in outside if i in allowed and points[i].latency_ms <= highest_ms]
    if any(i in allowed for i in excluded):
        reason = slow.reason
    accurate = [i for i in inside if points[i].accuracy >= budget.min_accuracy]
    usable = accurate or inside
    order = table.by_accuracy if len(usable) == len(points) else [i for i in table.by_accuracy if i in usable]
    return Selection(
        tuple(order), tuple(excluded), tuple(absent), reason, within, len(accurate) == len(inside), bool(accurate)
    )


def _within_budget(
    table: QueryTable, slow: SlowLoop, budget: Budget, indices: range, period_s: float
) -> tuple[Collection[int], str]:
    """The points whose memory and energy the budget and the cgroup allow, and what forbids the others."""
    points, reason = table.points, ""
    memory_bytes = _memory_limit(slow, budget)
    if memory_bytes is None and budget.max_power_w is None:
        return indices, reason
    allowed = set(indices)
    if memory_bytes is not None:
        heavy = {i for i in allowed if (points[i].memory_bytes or 0) > memory_bytes}
        allowed, reason = allowed - heavy, "memory limit" if heavy else ""
    if budget.max_power_w is not None and period_s > 0.0:
        joules = budget.max_power_w * period_s
        hungry = {i for i in allowed if (points[i].energy_j or 0.0) > joules}
        allowed, reason = allowed - hungry, "power limit" if hungry else reason
    return allowed, reason


def _memory_limit(slow: SlowLoop, budget: Budget) -> float | None:
    """The smaller of the known ones."""
    if budget.max_memory_bytes is None:
        return slow.memory_limit_bytes
    if slow.memory_limit_bytes is None or budget.max_memory_bytes < slow.memory_limit_bytes:
        return float(budget.max_memory_bytes)
    return slow.memory_limit_bytes
