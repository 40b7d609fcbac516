"""One block of the live benchmark: a policy in a real Runtime beside real contention, and what the block was worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contention import LOADS, Contention
from benchmarks.counterfactual import rebuild
from benchmarks.frame_loop import CameraClock, FrameRow, Meter, drive
from benchmarks.policy_runs import UNCOUNTED, UncountedController
from benchmarks.record_contention import LEAD_IN_S, marks, phases
from benchmarks.scores import Scores, score
from benchmarks.simulator import RunLog, ladder_of, simulate, simulate_oracle, switch_cost_ms
from benchmarks.traces import Trace, TraceWorld
from edge_runtime import Budget, Bundle, Runtime
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.device_profile import match_profile, read_machine_facts
from edge_runtime.manifest import OperatingPoint
from edge_runtime.policies import make_policy
from edge_runtime.runtime import PolicyMaker
from edge_runtime.sensor_loop import TrustedSensors
from edge_runtime.sensors import DeviceSensors


@dataclass(frozen=True)
class Block:
    """What to run."""

    policy: str
    load: str
    fps: float
    seed: int

    @property
    def kind(self) -> str:
        """The recording that this block repeats."""
        return recording_name(self.load, self.fps)


@dataclass(frozen=True)
class LiveSetup:
    """What all blocks share."""

    bundle: Bundle
    meter: Meter
    points: tuple[OperatingPoint, ...]
    recordings: dict[str, Trace]
    """kind -> the same load recorded with all points in turn; gives deadline and quiet latencies."""
    length_s: float


def recording_name(load: str, fps: float) -> str:
    """How a recorded trace is called."""
    return f"recorded {load} {fps:g} fps"


@dataclass(frozen=True)
class Outcome:
    """What became of a block."""

    scores: Scores
    run: RunLog
    oracle: RunLog
    """What the clairvoyant would have done in it."""
    replayed: Scores
    """The same policy in simulation, on the trace that was rebuilt from the block: the same minutes of the machine."""


def run_block(block: Block, setup: LiveSetup, best_point: str) -> Outcome:
    """Run a policy live, then its oracle and its replay on what was measured.

    Args:
        best_point: for best-static, from a sweep over the recording.
    """
    recording, load = setup.recordings[block.kind], LOADS[block.load]
    deadline_ms = recording.budgets[0][1].deadline_ms

    def share(at_s: float) -> float:
        return load.deadline_share(at_s, setup.length_s)

    camera = CameraClock(block.fps, int(setup.length_s * block.fps))
    profile = match_profile(read_machine_facts())[0]
    limits = DeviceLimits.from_profile(profile)
    make = _maker(block.policy, best_point, limits)
    sensors = TrustedSensors(DeviceSensors(count_children=False), profile)
    rows, levels = _play(
        block, setup, camera, sensors, limits, make, lambda at_s: Budget(round(deadline_ms * share(at_s), 3))
    )
    trace = rebuild(
        block.kind, block.fps, camera.frame_count, recording.points, rows, slept_through=camera.slept_through,
        phase_of=phases(levels, camera.frame_count, block.fps), seed=block.seed, learn_effects=False,
    ).with_deadline(deadline_ms, share)  # fmt: skip
    run = _as_run(block, trace, rows, marks(levels))
    oracle = simulate_oracle(TraceWorld(trace))
    replayed = simulate(TraceWorld(trace), make(ladder_of(trace.points, block.seed)), switch_cost_ms())
    return Outcome(score(run, oracle), run, oracle, score(replayed, oracle))


def _play(
    block: Block, setup: LiveSetup, camera: CameraClock, sensors: TrustedSensors, limits: DeviceLimits,
    make: PolicyMaker, budget_at: Callable[[float], Budget],
) -> tuple[list[FrameRow], list[tuple[float, float]]]:  # fmt: skip
    """The block itself: the answered frames, and the load's changes."""
    with (
        Runtime(
            setup.bundle, setup.meter, setup.points, budget=budget_at(0.0), policy=make, sensors=sensors, limits=limits
        ) as runtime,
        Contention(LOADS[block.load], setup.length_s, block.seed) as contention,
    ):  # fmt: skip

        def set_budget(count: int, at_s: float) -> None:
            budget = budget_at(at_s)
            if budget != runtime.budget:
                runtime.budget = budget

        runtime.wait_ready()
        camera.started_s = time.monotonic() + LEAD_IN_S
        contention.begin(camera.started_s)
        return drive(runtime, setup.meter, camera, set_budget), contention.levels


def _maker(policy: str, best_point: str, limits: DeviceLimits) -> PolicyMaker:
    """The policy as both the live run and its replay make it."""
    if policy == UNCOUNTED:
        return lambda ladder: UncountedController(ladder, limits=limits)
    options: dict[str, Any] = {"ours": {"limits": limits}, "best-static": {"point": best_point}}.get(policy, {})
    return lambda ladder: make_policy(policy, ladder, **options)


def _as_run(block: Block, trace: Trace, rows: Sequence[FrameRow], moments: tuple[tuple[float, str], ...]) -> RunLog:
    """What happened, in the form of a simulated run."""
    position = {p.name: i for i, p in enumerate(trace.points)}
    accuracy = np.array([p.accuracy for p in trace.points], np.float32)
    point = np.full(trace.frames, -1, np.int16)
    latency_ms = np.full(trace.frames, np.nan, np.float32)
    on_time, expected = np.zeros(trace.frames, np.bool_), np.full(trace.frames, np.nan, np.float32)
    for row in rows:
        point[row.index], latency_ms[row.index] = position[row.point], row.latency_ms
        on_time[row.index] = row.on_time
        expected[row.index] = np.nan if row.expected is None else row.expected
    fixed_ms = trace.wake_ms + trace.beside_ms
    starts_s = np.array([at_s for at_s, _ in trace.budgets])
    holding = np.searchsorted(starts_s, np.arange(trace.frames) / trace.fps + 1e-9, side="right") - 1
    deadline_ms = np.array([budget.deadline_ms for _, budget in trace.budgets])[holding]
    possible = fixed_ms[:, None] + trace.latency_ms <= deadline_ms[:, None]
    answered = np.flatnonzero(on_time)
    possible[answered, point[answered]] = True  # it was measured
    return RunLog(
        block.policy, block.kind, block.fps, trace.points, moments, point, latency_ms,
        np.where(on_time, accuracy[point], 0.0).astype(np.float32), possible,
        (possible * accuracy).max(axis=1), expected, sum(row.switched for row in rows),
    )  # fmt: skip
