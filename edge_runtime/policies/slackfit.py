"""SlackFit: the bucket of points whose latency fits the slack."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.policies.baseline import BaselinePolicy


class SlackFitPolicy(BaselinePolicy):
    """SuperServe's SlackFit (Khare et al. 2023, arXiv:2312.16733).

    Offline, the points that no faster one reaches in accuracy are put into buckets of equal width between the smallest
    and the largest profiled latency. Online, the most urgent request's slack, the time left until its deadline, names
    the costliest bucket that still ends before it; of that bucket the most accurate point is taken. Differs: one
    request at a time, so that the choice of a batch size falls away. It believes the profiled latencies: what slows
    the device down shows only in the slack that waiting frames have lost.

    Args:
        buckets: how many.
    """

    name = "slackfit"

    def __init__(self, ladder: Sequence[LadderPoint], buckets: int = 16) -> None:
        self._buckets = buckets
        super().__init__(ladder)

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        steps = self._steps(usable)
        low_ms, high_ms = self.ladder[steps[0]].latency_ms, self.ladder[steps[-1]].latency_ms
        width_ms = (high_ms - low_ms) / self._buckets
        best, reason = steps[0], "no bucket fits"
        for i in steps:
            latency_ms = self.ladder[i].latency_ms
            bucket = min(int((latency_ms - low_ms) / width_ms), self._buckets - 1) if width_ms > 0.0 else 0
            ends_ms = max(latency_ms, low_ms + (bucket + 1) * width_ms)  # rounding must not empty the last one
            if (ends_ms if i != steps[0] else latency_ms) <= self._time_left_ms:
                best, reason = i, "bucket fits the slack"
        return best, reason
