"""ALERT: expected accuracy under one normally distributed slowdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.policies.baseline import BaselinePolicy

FIRST_GAIN, FIRST_VARIANCE = 0.5, 0.1
FIRST_PROCESS_NOISE, MEASUREMENT_NOISE = 0.1, 0.001
NOISE_MEMORY = 0.3
LARGEST_SLOWDOWN = 1e6


class AlertPolicy(BaselinePolicy):
    """After ALERT (Wan et al., USENIX ATC 2020, arXiv:1911.00119), without its choice of system resources.

    From the paper: a probabilistic model detects how volatile the machine is, and network and system resources are
    chosen together to meet limits of latency, accuracy and energy. So much its abstract confirms. Its full text and its
    authors' code could not be consulted; the paper's only as far as memory goes are: one slowdown for all networks,
    tracked by a Kalman filter with adaptive process noise, the latency of each network normal with the filter's mean
    and variance times its profiled latency, the floor of the process noise, and the filter's five constants.

    Ours: only the network is chosen; a late answer is worth nothing, so accuracy x P(on time) is maximised; among
    equals the fastest is taken; `LARGEST_SLOWDOWN` keeps the arithmetic finite. A comparison is one with this policy,
    not with the authors' system.

    P comes from `math.erf`, whose last bit may differ from machine to machine.
    """

    name = "alert"

    def __init__(self, ladder: Sequence[LadderPoint]) -> None:
        super().__init__(ladder)
        self._mean, self._variance = 1.0, FIRST_VARIANCE
        self._gain, self._process_noise = FIRST_GAIN, FIRST_PROCESS_NOISE
        self._innovation = 0.0

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        values = {i: self.ladder[i].accuracy * self._on_time(i) for i in usable}
        best = max(usable, key=lambda i: (values[i], -self.ladder[i].latency_ms))
        if values[best] <= 0.0:
            return usable[0], "nothing is expected to be on time"
        return best, "highest expected accuracy"

    def _on_time(self, index: int) -> float:
        """P(slowdown x profiled latency <= time left)."""
        room = self._time_left_ms / self.ladder[index].latency_ms - self._mean
        return 0.5 * (1.0 + math.erf(room / math.sqrt(2.0 * self._variance)))

    def _learn(self, index: int, run_ms: float) -> None:
        slowdown = min(run_ms / self.ladder[index].latency_ms, LARGEST_SLOWDOWN)
        gained = self._gain * self._innovation
        self._process_noise = max(
            FIRST_PROCESS_NOISE, NOISE_MEMORY * self._process_noise + (1.0 - NOISE_MEMORY) * gained * gained
        )
        self._variance = (1.0 - self._gain) * self._variance + self._process_noise
        self._gain = self._variance / (self._variance + MEASUREMENT_NOISE)
        self._innovation = slowdown - self._mean
        self._mean = self._mean + self._gain * self._innovation

    def _slowdown(self) -> float:
        return self._mean
