"""A proportional-integral controller of the latency."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.policies.baseline import BaselinePolicy

LOWEST_ALLOWANCE, HIGHEST_ALLOWANCE = 0.001, 4.0


class PiPolicy(BaselinePolicy):
    """The textbook loop (Hellerstein et al. 2004, Feedback Control of Computing Systems, chapter 9), velocity form.

    The measured share of the deadline is steered to `setpoint`; what is actuated is the allowance, the tabled latency
    that a point may have, as a share of the time left: u += kp (e - e_before) + ki e. The costliest point under the
    allowance, without those that a faster one reaches in accuracy, is taken. The velocity form cannot wind up: the
    allowance is limited, and where no step corresponds to it the next error corrects it.

    Args:
        setpoint: wanted latency as a share of the time left.
        kp, ki: gains; with the plant's gain near 1 they leave poles inside the unit circle up to a slowdown of 3.
    """

    name = "pi"

    def __init__(self, ladder: Sequence[LadderPoint], setpoint: float = 0.8, kp: float = 0.2, ki: float = 0.15) -> None:
        super().__init__(ladder)
        self._setpoint, self._kp, self._ki = setpoint, kp, ki
        self._allowance, self._error_before = setpoint, 0.0

    def _pick(self, now_s: float, usable: list[int]) -> tuple[int, str]:
        steps = self._steps(usable)
        allowed_ms = self._allowance * self._time_left_ms
        fitting = [i for i in steps if self.ladder[i].latency_ms <= allowed_ms]
        return (fitting[-1], "under the allowance") if fitting else (steps[0], "allowance below every point")

    def _learn(self, index: int, run_ms: float) -> None:
        left_ms = self._time_left_ms
        share = run_ms / left_ms if left_ms > 0.0 else HIGHEST_ALLOWANCE
        error = self._setpoint - min(share, HIGHEST_ALLOWANCE)
        change = self._kp * (error - self._error_before) + self._ki * error
        self._error_before = error
        allowance = self._allowance + change
        dearest = self.ladder[-1].latency_ms / left_ms if left_ms > 0.0 else HIGHEST_ALLOWANCE
        highest = min(max(dearest, LOWEST_ALLOWANCE), HIGHEST_ALLOWANCE)  # no more than the costliest point needs
        self._allowance = min(max(allowance, LOWEST_ALLOWANCE), highest)
