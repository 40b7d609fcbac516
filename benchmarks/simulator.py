"""A device in virtual time: frames at a camera's rate, the newest wins, a late or dropped frame scores 0.

The order of a frame is the pipeline's (edge_runtime/pipeline.py): choose with the frame's age and the running mean of
what a frame costs beside the engine, run, observe. No clock is read, so a run depends on its seed alone.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.record import RESULTS
from benchmarks.traces import Array, FrameTruth, TracePoint
from edge_runtime.overhead import Overhead
from edge_runtime.policies import LadderPoint, Policy, make_policy

TABLE_ERROR = 0.05
"""Standard deviation of log(tabled / true quiet latency): what two measurements of one point differ by here."""
ROUNDING_MS = 1e-9


class World(Protocol):
    """A device and what happens to it; a trace, or a model that what is done acts back on."""

    name: str
    fps: float
    frames: int
    points: tuple[TracePoint, ...]
    marks: tuple[tuple[float, str], ...]

    def frame(self, index: int, now_s: float) -> FrameTruth:
        """The truth of one frame at a moment; asked in rising order of time, once a frame."""

    def spend(self, start_s: float, finish_s: float, busy_ms: float) -> None:
        """The device worked from start to finish, and computed for so long of it."""


@dataclass(frozen=True)
class RunLog:
    """One policy through one world; arrays hold one value a frame."""

    policy: str
    world: str
    fps: float
    points: tuple[TracePoint, ...]
    marks: tuple[tuple[float, str], ...]
    point: npt.NDArray[np.int16]
    """Index in `points`; -1 for a dropped frame."""
    latency_ms: Array
    """From capture to answer; NaN for a dropped frame."""
    score: Array
    """Expected accuracy of an answer in time and at or above the floor, else 0."""
    possible: npt.NDArray[np.bool_]
    """(frames, points): the point would have answered the frame within its budget, had the device been free."""
    best: Array
    """Highest score that any point could have had; 0 when the frame was not feasible."""
    expected: Array
    """Probability of being on time that the policy expected; NaN where it has no such estimate."""
    switches: int

    @property
    def feasible(self) -> npt.NDArray[np.bool_]:
        return self.best > 0.0

    @property
    def on_time(self) -> npt.NDArray[np.bool_]:
        return self.score > 0.0


def ladder_of(points: Sequence[TracePoint], seed: int, error: float = TABLE_ERROR) -> tuple[LadderPoint, ...]:
    """The query table as a device measures it: the true quiet latencies with an error of each point's own."""
    draw = random.Random(f"table {seed}")
    return tuple(LadderPoint(p.name, p.accuracy, p.quiet_ms * math.exp(draw.gauss(0.0, error))) for p in points)


def switch_cost_ms() -> float:
    """Extra engine time of the first frame after a switch: the median that was measured on this machine, one thread."""
    measured: dict[str, Any] = json.loads((RESULTS / "switch_latency.json").read_text(encoding="utf-8"))
    return max(0.0, float(measured["extra_latency_ms"]["1 threads, one global pool, no spinning"]["p50"]))


def simulate(world: World, policy: Policy, switch_ms: float = 0.0) -> RunLog:
    """Run a policy through a world."""
    return _Run(world, switch_ms).play(policy)


def simulate_oracle(world: World, switch_ms: float = 0.0, most_ms: float = math.inf) -> RunLog:
    """The clairvoyant choice of each frame, which knows the frame's whole cost, a switch included.

    Args:
        most_ms: only points whose quiet latency is at most this are used.
    """
    run = _Run(world, switch_ms)
    usable = [p for p in world.points if p.quiet_ms <= most_ms]
    ladder = [LadderPoint(p.name, p.accuracy, p.quiet_ms) for p in usable]
    policy = make_policy("oracle", ladder, latency_ms_of=run.true_latency_ms)
    run.clairvoyant = policy
    return run.play(policy)


def steady_choice(run: RunLog, window_s: float = 1.0) -> RunLog:
    """What the best point of each moment would have scored: known is the state of the machine, not the single frame.

    For each frame the point is taken that does best on the frames around it. The oracle beats it by foreseeing single
    interruptions, which no controller can; what a policy loses beyond it, it loses by adapting badly.

    Args:
        run: any run through the world; its `possible` is used.
        window_s: length of the moment, the frame in its middle.
    """
    accuracy = np.array([p.accuracy for p in run.points], np.float32)
    worth = run.possible * accuracy
    reach = max(1, round(window_s * run.fps / 2.0))
    total = np.concatenate([np.zeros((1, len(accuracy))), np.cumsum(worth, axis=0)])
    frames = np.arange(len(worth))
    around = total[np.minimum(frames + reach + 1, len(worth))] - total[np.maximum(frames - reach, 0)]
    chosen = np.argmax(around, axis=1)
    switches = int((np.diff(chosen) != 0).sum())
    return replace(
        run, policy="best of each second", point=chosen.astype(np.int16), score=worth[frames, chosen],
        latency_ms=np.full(len(worth), np.nan, np.float32), expected=np.full(len(worth), np.nan, np.float32),
        switches=switches,
    )  # fmt: skip


class _Run:
    """The state of one simulation."""

    def __init__(self, world: World, switch_ms: float) -> None:
        self._world, self._switch_ms = world, switch_ms
        self._position = {p.name: i for i, p in enumerate(world.points)}
        self._accuracy = [p.accuracy for p in world.points]
        self._truth: FrameTruth | None = None
        self.clairvoyant: Policy | None = None
        self._take_crowding: Callable[[float | None], None] | None = None
        self._point = np.full(world.frames, -1, np.int16)
        self._latency_ms = np.full(world.frames, np.nan, np.float32)
        self._score = np.zeros(world.frames, np.float32)
        self._best = np.zeros(world.frames, np.float32)
        self._possible = np.zeros((world.frames, len(world.points)), np.bool_)
        self._expected = np.full(world.frames, np.nan, np.float32)
        self._last: int | None = None
        self._overhead = Overhead()
        self._switches = 0

    def true_latency_ms(self, name: str) -> float:
        """What a point takes in the frame at hand."""
        assert self._truth is not None
        index = self._position[name]
        extra_ms = self._switch_ms if self._last is not None and index != self._last else 0.0
        return self._truth.latency_ms[index] + extra_ms

    def play(self, policy: Policy) -> RunLog:
        """All frames, in order."""
        world, period_s = self._world, 1.0 / self._world.fps
        self._take_crowding = getattr(policy, "take_crowding", None)
        free_s, index = 0.0, 0
        while index < world.frames:
            newest = min(int(free_s * world.fps + ROUNDING_MS), world.frames - 1)
            for dropped in range(index, newest):
                self._note_possible(dropped, world.frame(dropped, free_s))
            index = max(index, newest)
            free_s = self._answer(policy, index, index * period_s, free_s)
            index += 1
        return RunLog(
            policy.name, world.name, world.fps, world.points, world.marks, self._point, self._latency_ms,
            self._score, self._possible, self._best, self._expected, self._switches,
        )  # fmt: skip

    def _answer(self, policy: Policy, index: int, captured_s: float, free_s: float) -> float:
        """One frame; returns when the device is free again."""
        truth = self._truth = self._world.frame(index, max(captured_s, free_s))
        self._note_possible(index, truth)
        start_s = free_s if free_s > captured_s else captured_s + truth.wake_ms / 1000.0
        age_ms = (start_s - captured_s) * 1000.0
        beside_ms = truth.beside_ms if policy is self.clairvoyant else self._overhead.mean_ms
        resident = truth.resident
        if policy is self.clairvoyant and _must_save(truth):
            resident = frozenset((self._world.points[self._cheapest(truth)].name,))
        if self._take_crowding is not None:
            self._take_crowding(truth.crowding)
        decision = policy.choose(start_s, truth.budget, truth.readings, resident, age_ms + beside_ms)
        if decision.on_time_share is not None:
            self._expected[index] = decision.on_time_share
        run_ms = self.true_latency_ms(decision.point)
        chosen = self._position[decision.point]
        self._switches += self._last is not None and chosen != self._last
        self._last = chosen
        policy.observe(decision.point, run_ms)
        self._overhead.take(truth.beside_ms)
        latency_ms = age_ms + truth.beside_ms + run_ms
        finish_s = start_s + (truth.beside_ms + run_ms) / 1000.0
        self._world.spend(start_s, finish_s, truth.beside_ms + run_ms)
        self._point[index], self._latency_ms[index] = chosen, latency_ms
        if self._counts(truth, chosen, latency_ms):
            self._score[index] = self._accuracy[chosen]
        return finish_s

    def _counts(self, truth: FrameTruth, point: int, latency_ms: float) -> bool:
        """The answer is in time and keeps the rest of the budget."""
        return (
            latency_ms <= truth.budget.deadline_ms + ROUNDING_MS
            and self._accuracy[point] >= truth.budget.min_accuracy
            and self._world.points[point].name in truth.resident
            and (not _must_save(truth) or point == self._cheapest(truth))
        )

    def _cheapest(self, truth: FrameTruth) -> int:
        """The only point that counts while the battery is below its floor."""
        points = self._world.points
        usable = [i for i, p in enumerate(points) if p.name in truth.resident]
        accurate = [i for i in usable if points[i].accuracy >= truth.budget.min_accuracy]
        return min(accurate or usable, key=lambda i: points[i].quiet_ms)

    def _note_possible(self, index: int, truth: FrameTruth) -> None:
        """What each point would have done for a device that was free when the frame was captured."""
        fixed_ms = truth.wake_ms + truth.beside_ms
        possible, best = self._possible[index], 0.0
        for point, run_ms in enumerate(truth.latency_ms):
            if self._counts(truth, point, fixed_ms + run_ms):
                possible[point] = True
                best = max(best, self._accuracy[point])
        self._best[index] = best


def _must_save(truth: FrameTruth) -> bool:
    floor, charge = truth.budget.battery_floor_share, truth.readings.battery_share
    return floor is not None and truth.readings.on_battery is not False and charge is not None and charge < floor
