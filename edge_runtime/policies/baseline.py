"""What all the compared policies share: the usable points, pinning, counting. They have no slow loop."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edge_runtime.budget import Budget
from edge_runtime.controller_ladder import LadderPoint, by_latency
from edge_runtime.readings import Readings
from edge_runtime.result import Decision


class BaselinePolicy:
    """A policy without its rule; a subclass gives `_pick`, and `_learn` if it learns.

    Args:
        ladder: the query table, in any order.
    """

    name = "baseline"

    def __init__(self, ladder: Sequence[LadderPoint]) -> None:
        self.ladder: tuple[LadderPoint, ...] = ()
        self.pinned: str | None = None
        self.switches = 0
        self.current: int | None = None
        self._index: dict[str, int] = {}
        self._age_ms = 0.0
        self._time_left_ms = 0.0
        self.replace_ladder(ladder)

    def choose(
        self, now_s: float, budget: Budget, readings: Readings, resident: Collection[str], age_ms: float = 0.0
    ) -> Decision:
        """Decide for one frame; see `Policy`."""
        self._age_ms, self._time_left_ms = age_ms, budget.deadline_ms - age_ms
        here = [i for i, point in enumerate(self.ladder) if point.name in resident]
        if self.pinned in resident:
            return self._decide(self._index[str(self.pinned)], "pinned", budget)
        accurate = [i for i in here if self.ladder[i].accuracy >= budget.min_accuracy]
        index, reason = self._pick(now_s, accurate or here)
        return self._decide(index, reason, budget)

    def observe(self, point: str, run_ms: float) -> None:
        """Learn from a finished frame; see `Policy`."""
        if run_ms > 0.0:
            self._learn(self._index[point], run_ms)

    def replace_ladder(self, ladder: Sequence[LadderPoint]) -> None:
        """Take a new query table of the same points."""
        name = None if self.current is None else self.ladder[self.current].name
        self.ladder = by_latency(ladder)
        self._index = {point.name: i for i, point in enumerate(self.ladder)}
        self.current = None if name is None else self._index.get(name)

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        """The index of the point for this frame, and why. `usable` is never empty and rises."""
        raise NotImplementedError

    def _learn(self, index: int, run_ms: float) -> None:
        """Take in a measured run time (> 0)."""

    def _slowdown(self) -> float:
        """Expected observed / tabled latency; a policy that has no such estimate says 1."""
        return 1.0

    def _most_accurate(self, usable: list[int]) -> int:
        return max(usable, key=lambda i: (self.ladder[i].accuracy, -self.ladder[i].latency_ms))

    def _steps(self, usable: list[int]) -> list[int]:
        """The usable points that no faster usable point reaches in accuracy: the levels of a ladder."""
        steps: list[int] = []
        for i in usable:
            if not steps or self.ladder[i].accuracy > self.ladder[steps[-1]].accuracy:
                steps.append(i)
        return steps

    def _decide(self, index: int, reason: str, budget: Budget) -> Decision:
        switched = self.current is not None and index != self.current
        self.switches += switched
        self.current = index
        point, slowdown = self.ladder[index], self._slowdown()
        expected_ms = point.latency_ms * slowdown
        feasible = point.accuracy >= budget.min_accuracy and expected_ms <= self._time_left_ms
        return Decision(point.name, reason, expected_ms, slowdown, switched, feasible)
