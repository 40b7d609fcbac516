"""One point for every frame: what a program without adaptation does."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.errors import PolicyError
from edge_runtime.policies.baseline import BaselinePolicy


class StaticPolicy(BaselinePolicy):
    """A point that is given, or the most accurate one.

    Args:
        point: its name; None takes the most accurate. While it is not resident, the most accurate
            one that is.
    Raises:
        PolicyError: there is no such point.
    """

    name = "static"

    def __init__(self, ladder: Sequence[LadderPoint], point: str | None = None) -> None:
        super().__init__(ladder)
        if point is not None and point not in self._index:
            names = ", ".join(p.name for p in self.ladder)
            raise PolicyError(f"policy {self.name}: no operating point {point!r}; choose one of {names}")
        self._point = point

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        if self._point is None:
            return self._most_accurate(usable), "static"
        wanted = self._index[self._point]
        return (wanted if wanted in usable else self._most_accurate(usable)), "static"


class BestStaticPolicy(StaticPolicy):
    """The best single point: the one that a sweep of the whole trace names, given as `point`.

    Without it, what can be known beforehand: the most accurate point whose tabled latency fits the first frame's
    deadline, among those that are resident then.
    """

    name = "best-static"

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        if self._point is None:
            fitting = [i for i in usable if self.ladder[i].latency_ms <= self._time_left_ms] or usable[:1]
            self._point = self.ladder[self._most_accurate(fitting)].name
        return super()._pick(now_s, usable)
