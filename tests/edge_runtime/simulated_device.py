"""A policy on a simulated machine: 30 frames a second, each taking the table's time x `slowdown`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, LadderPoint
from edge_runtime.policies import Policy
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Decision

FPS = 30.0
LADDER = tuple(LadderPoint(f"p{i}", 0.5 + 0.05 * i, 2.0 * (i + 1)) for i in range(6))
"""p0: 2 ms, accuracy 0.50 ... p5: 12 ms, accuracy 0.75."""
ALL = frozenset(p.name for p in LADDER)
COOL = Readings(temperature_c=50.0)


def first_choice(deadline_ms: float, **budget: float) -> Decision:
    """What a fresh controller chooses."""
    return Controller(LADDER).choose(0.0, Budget(deadline_ms, **budget), UNKNOWN, ALL)  # type: ignore[arg-type]


class SimulatedDevice:
    """Runs frames; everything may be changed between two of them."""

    def __init__(
        self,
        ladder: Sequence[LadderPoint] = LADDER,
        deadline_ms: float = 20.0,
        policy: Policy | None = None,
        **options: Any,
    ) -> None:
        self.policy: Any = policy if policy is not None else Controller(ladder, **options)
        self.true_ms = {p.name: p.latency_ms for p in ladder}
        self.budget, self.readings = Budget(deadline_ms), COOL
        self.resident: frozenset[str] = frozenset(self.true_ms)
        self.slowdown, self.now_s, self.age_ms = 1.0, 0.0, 0.0
        self.crowding: float | None = None
        self.late = 0

    def frame(self) -> Decision:
        """One frame."""
        if hasattr(self.policy, "take_crowding"):
            self.policy.take_crowding(self.crowding)
        decision: Decision = self.policy.choose(self.now_s, self.budget, self.readings, self.resident, self.age_ms)
        run_ms = self.true_ms[decision.point] * self.slowdown
        self.late += run_ms + self.age_ms > self.budget.deadline_ms
        self.policy.observe(decision.point, run_ms)
        self.now_s += 1.0 / FPS
        return decision

    def run(self, seconds: float) -> list[Decision]:
        """So many seconds of frames."""
        return [self.frame() for _ in range(round(seconds * FPS))]

    def settle(self) -> Decision:
        """Two quiet seconds; the last decision."""
        return self.run(2.0)[-1]
