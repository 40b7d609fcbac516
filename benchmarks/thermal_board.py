"""A board without a fan that heats up with what it computes and slows down when it is hot.

One thermal resistance and one capacity (an RC model): the die tends to ambient + R * power with time constant tau.
Power is idle power plus what the processor takes while it computes, which falls with its speed. The firmware lowers
the speed step by step while the die is above the soft limit, as a step-wise governor does, and raises it below. So a
controller that uses the costliest point for long pays for it later, and the oracle of one frame is not the best one:
the reference is the best of clairvoyant runs that are held below each of the points.

The default board follows the Raspberry Pi 5's limits (profiles/raspberry-pi-5.toml: throttled from 80, hard limit 85
degrees). Resistance, powers and time constant are assumptions of a size that such boards have, and fleet.py draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.simulator import RunLog, World, simulate_oracle
from benchmarks.traces import FrameTruth, Trace, TraceWorld


@dataclass(frozen=True)
class Board:
    """Constants of a board."""

    resistance_k_per_w: float = 9.0
    time_constant_s: float = 60.0
    idle_w: float = 2.5
    busy_w: float = 8.0
    """At full speed, computing all the time."""
    power_exponent: float = 2.5
    """Power of computing falls with speed to this power: voltage falls with frequency."""
    soft_limit_c: float = 80.0
    release_c: float = 77.0
    """Below it the firmware raises the speed again."""
    governor_period_s: float = 0.25
    speed_step: float = 0.1
    slowest: float = 0.4


@dataclass(frozen=True)
class Ambient:
    """Air that warms evenly from one temperature to another."""

    from_c: float = 22.0
    to_c: float = 34.0

    def at(self, share: float) -> float:
        return self.from_c + (self.to_c - self.from_c) * min(1.0, share)


class ThermalWorld:
    """A trace on a board: everything takes longer by the throttle, which what was done acts on."""

    def __init__(self, trace: Trace, board: Board, ambient: Ambient, start_c: float | None = None) -> None:
        """Put a trace on a board.

        Args:
            start_c: temperature at the start; None is that of a board that was idle for long.
        """
        self._inner, self._board, self._ambient = TraceWorld(trace), board, ambient
        self.name, self.fps, self.frames = trace.name, trace.fps, trace.frames
        self.points, self.marks = trace.points, trace.marks
        self._length_s = trace.duration_s
        idle_c = ambient.from_c + board.resistance_k_per_w * board.idle_w
        self.temperature_c = idle_c if start_c is None else start_c
        self.speed = 1.0
        self._at_s = self._governed_s = 0.0
        self._read_s = -math.inf
        self._read_c, self._read_throttled = self.temperature_c, False

    def frame(self, index: int, now_s: float) -> FrameTruth:
        """The truth of a frame at the present speed."""
        self._pass(now_s, 0.0)
        if now_s - self._read_s >= 1.0:  # the sensors' own period; whole degrees, as many boards report
            self._read_s, self._read_c = now_s, float(round(self.temperature_c))
            self._read_throttled = self.speed < 1.0
        truth = self._inner.frame(index, now_s)
        readings = replace(truth.readings, temperature_c=self._read_c, throttled=self._read_throttled)
        return replace(
            truth, latency_ms=[ms / self.speed for ms in truth.latency_ms], beside_ms=truth.beside_ms / self.speed,
            readings=readings,
        )  # fmt: skip

    def spend(self, start_s: float, finish_s: float, busy_ms: float) -> None:
        """Heat up by what was computed."""
        self._pass(start_s, 0.0)
        span_s = finish_s - start_s
        self._pass(finish_s, min(1.0, busy_ms / 1000.0 / span_s) if span_s > 0 else 0.0)

    def _pass(self, until_s: float, busy: float) -> None:
        """Let time pass at a constant share of computing, exactly, between two looks of the governor."""
        board = self._board
        while self._at_s < until_s:
            step_s = min(until_s, self._governed_s + board.governor_period_s) - self._at_s
            power_w = board.idle_w + board.busy_w * busy * self.speed**board.power_exponent
            target_c = self._ambient.at(self._at_s / self._length_s) + board.resistance_k_per_w * power_w
            decay = math.exp(-step_s / board.time_constant_s)
            self.temperature_c = target_c + (self.temperature_c - target_c) * decay
            self._at_s += step_s
            if self._at_s >= self._governed_s + board.governor_period_s - 1e-9:
                self._governed_s = self._at_s
                self._govern()

    def _govern(self) -> None:
        board = self._board
        if self.temperature_c > board.soft_limit_c:
            self.speed = max(board.slowest, self.speed - board.speed_step)
        elif self.temperature_c < board.release_c:
            self.speed = min(1.0, self.speed + board.speed_step)


def best_capped_oracle(make_world: Callable[[], World], switch_ms: float, every: int = 1) -> RunLog:
    """The best of the clairvoyant runs that use no point above each of the points, or each n-th one from the top."""
    caps = list(make_world().points)[::-1][::every]
    runs = [simulate_oracle(make_world(), switch_ms, cap.quiet_ms) for cap in caps]
    return max(runs, key=lambda run: float(run.score.mean()))
