"""Policies: interchangeable objects that choose an operating point for each frame.

    policy = make_policy("ours", ladder)
    decision = policy.choose(now_s, budget, readings, resident, age_ms)
    policy.observe(decision.point, run_ms)

`ours` is the controller of this project; the others are what it is compared with, each after its paper. None of them
reads a clock or a sensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from edge_runtime.budget import Budget
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.errors import PolicyError
from edge_runtime.readings import Readings
from edge_runtime.result import Decision

__all__ = ["POLICIES", "LadderPoint", "Policy", "make_policy"]

POLICIES = {
    "ours": "edge_runtime.controller:Controller",
    "static": "edge_runtime.policies.static:StaticPolicy",
    "best-static": "edge_runtime.policies.static:BestStaticPolicy",
    "threshold": "edge_runtime.policies.threshold:ThresholdPolicy",
    "pi": "edge_runtime.policies.pi:PiPolicy",
    "alert": "edge_runtime.policies.alert:AlertPolicy",
    "slackfit": "edge_runtime.policies.slackfit:SlackFitPolicy",
    "oracle": "edge_runtime.policies.oracle:OraclePolicy",
}
"""Name -> module and class."""


class Policy(Protocol):
    """Chooses an operating point for each frame, and learns from the frames that are finished."""

    pinned: str | None
    """Name of the point that is forced, or None."""

    @property
    def name(self) -> str:
        """One of POLICIES, or the application's own."""

    @property
    def ladder(self) -> tuple[LadderPoint, ...]:
        """The query table, fastest point first."""

    @property
    def switches(self) -> int:
        """Decisions so far whose point differed from the one before."""

    @property
    def current(self) -> int | None:
        """Index in `ladder` of the point of the last decision."""

    def choose(
        self, now_s: float, budget: Budget, readings: Readings, resident: Collection[str], age_ms: float = 0.0
    ) -> Decision:
        """Decide for one frame.

        Args:
            now_s: any monotonic clock, seconds.
            budget: what the application wants.
            readings: of the sensors; unknown is None.
            resident: names of the points that can run at once; at least one of them is in the ladder.
            age_ms: how much of the deadline is spent already: the frame's age and what a frame costs beside the engine.
        """

    def observe(self, point: str, run_ms: float) -> None:
        """Learn from a finished frame: what the engine took for the point, in milliseconds."""

    def replace_ladder(self, ladder: Sequence[LadderPoint]) -> None:
        """Take a new query table of the same points, for example when the device has measured them."""


def make_policy(
    name: str, ladder: Sequence[LadderPoint], settings: ControllerSettings | None = None, **options: Any
) -> Policy:
    """Make a policy by its name.

    Args:
        name: one of POLICIES.
        ladder: the query table, in any order.
        settings: constants of `ours`; the others have their own.
        options: what the policy's constructor takes beside these, such as `point` for static.
    Raises:
        PolicyError: there is no such policy, or it lacks an option that it needs.
    """
    if name not in POLICIES:
        raise PolicyError(f"no policy is named {name!r}; choose one of {', '.join(POLICIES)}")
    module, kind = POLICIES[name].split(":")
    make: Callable[..., Policy] = getattr(importlib.import_module(module), kind)
    if name == "ours":
        options = {"settings": settings, **options}
    return make(ladder, **options)
