"""Thresholds on a mean latency, one level at a time."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.policies.baseline import BaselinePolicy


class ThresholdPolicy(BaselinePolicy):
    """Dynamic-OFA's runtime manager (Lou et al. 2021, arXiv:2105.03596), which counts the last 20 frames.

    When their mean latency is above the limit, one level down; when the next level is expected to stay under
    `up_share` of the limit, one level up. After each step the count begins anew. Differs: levels are the points that
    no faster one reaches in accuracy; the way up is by latency, since the accuracy floor already limits the levels.

    Args:
        window: frames in the mean.
        up_share: share of the time left that the next level's expected latency may take, 0-1.
    """

    name = "threshold"

    def __init__(self, ladder: Sequence[LadderPoint], window: int = 20, up_share: float = 0.9) -> None:
        super().__init__(ladder)
        self._window, self._up_share = window, up_share
        self._sum_ms, self._count = 0.0, 0

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        steps = self._steps(usable)
        if self.current is None:
            fitting = [i for i in steps if self.ladder[i].latency_ms <= self._time_left_ms]
            return (fitting or steps)[-1 if fitting else 0], "first frame"
        level = max((k for k, i in enumerate(steps) if i <= self.current), default=0)
        if steps[level] != self.current:
            return self._moved(steps[level], "level is gone")
        if self._count < self._window:
            return self.current, "counting"
        mean_ms = self._sum_ms / self._count
        if mean_ms > self._time_left_ms and level > 0:
            return self._moved(steps[level - 1], "mean above the limit")
        if level + 1 < len(steps):
            higher = self.ladder[steps[level + 1]]
            expected_ms = mean_ms * higher.latency_ms / self.ladder[self.current].latency_ms
            if expected_ms <= self._up_share * self._time_left_ms:
                return self._moved(steps[level + 1], "mean below the limit")
        return self.current, "within the limits"

    def _learn(self, index: int, run_ms: float) -> None:
        if self._count >= self._window:  # a running mean over about the window
            self._sum_ms -= self._sum_ms / self._count
            self._count -= 1
        self._sum_ms += run_ms
        self._count += 1

    def _moved(self, index: int, reason: str) -> tuple[int, str]:
        self._sum_ms, self._count = 0.0, 0
        return index, reason
