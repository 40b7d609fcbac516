"""The clairvoyant choice, with which regret is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.errors import PolicyError
from edge_runtime.policies.baseline import BaselinePolicy


class OraclePolicy(BaselinePolicy):
    """Knows what each point would take on the coming frame, and takes the most accurate one that is on time.

    When none is, the fastest. It does not look beyond the coming frame, and pays nothing for a switch.

    Args:
        latency_ms_of: point's name -> true engine time of the coming frame, milliseconds; the simulator or the replay
            gives it.
    Raises:
        PolicyError: without `latency_ms_of`.
    """

    name = "oracle"

    def __init__(self, ladder: Sequence[LadderPoint], latency_ms_of: Callable[[str], float] | None = None) -> None:
        super().__init__(ladder)
        if latency_ms_of is None:
            raise PolicyError("policy oracle needs the true latencies; it runs in a simulation or a replay only")
        self._latency_ms_of = latency_ms_of

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        true_ms = {i: self._latency_ms_of(self.ladder[i].name) for i in usable}
        fitting = [i for i in usable if true_ms[i] <= self._time_left_ms]
        if fitting:
            return max(fitting, key=lambda i: (self.ladder[i].accuracy, -true_ms[i])), "on time"
        return min(usable, key=lambda i: true_ms[i]), "nothing is on time"
