"""The road of a frame: choose, preprocess, run, answer, learn. The only file that knows the order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import Runner
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.clip_buffer import ClipBuffer
from edge_runtime.detection import detect, surest
from edge_runtime.early_exit import DEADLINE_SHARE, EarlyExitRunner, FoundPlace
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.frame import Frame
from edge_runtime.late_cause import late_cause
from edge_runtime.look_trail import LookTrail, make_trail
from edge_runtime.manifest import OperatingPoint
from edge_runtime.overhead import OVERHEAD_MEMORY, Overhead
from edge_runtime.policies import Policy
from edge_runtime.preprocess import preprocess
from edge_runtime.readings import Readings
from edge_runtime.residency import ResidentSet
from edge_runtime.result import Box, Classification, Result
from edge_runtime.steady_answer import SteadyAnswer

__all__ = ["OVERHEAD_MEMORY", "Choice", "Pipeline"]


@dataclass(frozen=True)
class Choice:
    """Everything that one decision was made from, for the record."""

    now_s: float
    budget: Budget
    readings: Readings
    resident: frozenset[str]
    age_ms: float
    crowding: float | None = None
    """Tasks that wanted a core as the frame began, for each core."""


class Pipeline:
    """Takes frames one at a time; the policy and the resident set are its state.

    Args:
        look_where_found: a network that looks several times cuts a frame's first patch where the frame before found its
            answer (docs/glance-and-focus.md); for video.
        crowding: tells before each frame how many tasks want a core, for each core; None is unknown. Policies that have
            a method `take_crowding` hear of it.
        steady: averages the answers to a video; None: each frame alone.
    """

    def __init__(
        self, bundle: Bundle, resident: ResidentSet, policy: Policy, clock: Callable[[], float] = time.monotonic,
        *, look_where_found: bool = False, crowding: Callable[[], float | None] = lambda: None,
        steady: SteadyAnswer | None = None,
    ) -> None:  # fmt: skip
        self.bundle, self.resident, self.policy, self._clock = bundle, resident, policy, clock
        self.choice: Choice | None = None
        """Of the last frame, also when it failed afterwards."""
        self.observed_ms = 0.0
        """What the policy learned from the last answered frame."""
        self._crowding = crowding
        self._take_crowding: Callable[[float | None], None] | None = getattr(policy, "take_crowding", None)
        self._points = {p.name: p for p in bundle.manifest.points}
        self._overhead = Overhead()
        self._steady = steady or SteadyAnswer.of_bundle(bundle.manifest, 0.0)
        self._look_where_found = look_where_found
        self._found: dict[str, FoundPlace] = {}
        """The last frame's network (by its first program) and where it found its answer; empty after any other end."""
        facts, clip = bundle.manifest, bundle.manifest.clip
        self._clip = None if clip is None else ClipBuffer(bundle.spec, facts.points, clip.duration_ms / 1000.0)

    def forget(self) -> None:
        """Another video begins: the last frame says nothing of the next."""
        self._found = {}
        self._steady.forget()
        if self._clip is not None:
            self._clip.forget()

    def warm(self) -> None:
        """Do what the first frame would pay for beside the engine: imports, and the first picture of each size."""
        with contextlib.suppress(EdgeRuntimeError):  # the first frame says what is missing
            for size_hw in {point.size_hw for point in self.bundle.manifest.points}:
                preprocess(np.zeros((240, 320, 3), np.uint8), self.bundle.spec, size_hw)

    def process(
        self, frame: Frame, budget: Budget, readings: Readings, *, live: bool = False, dropped: int = 0,
        sink_ms: float = 0.0,
    ) -> Result:  # fmt: skip
        """Answer one frame at the operating point that fits the moment.

        Args:
            frame: the picture.
            budget, readings: what is wanted, and how the device is.
            live: the frame's age counts: its latency begins at capture.
            dropped: frames that the source lost so far.
            sink_ms: how long the loop was held up before this frame.
        """
        started_s = self._clock()
        hints, self._found = self._found, {}  # a frame that fails, or is another network's, leaves none
        begin_s = min(frame.captured_s, started_s) if live else started_s
        waited_ms = (started_s - begin_s) * 1000.0
        crowding = None
        if self._take_crowding is not None:
            crowding = self._crowding()
            self._take_crowding(crowding)
        choice = Choice(started_s, budget, readings, self.resident.names, waited_ms + self._overhead.mean_ms, crowding)
        self.choice = choice
        decision = self.policy.choose(started_s, budget, readings, choice.resident, choice.age_ms)
        point, runner = self._points[decision.point], self.resident.runner(decision.point)

        clip_frames = self._prepare(frame, point, runner)
        prepared_s = self._clock()
        if isinstance(runner, EarlyExitRunner):
            runner.deadline_s = begin_s + budget.deadline_ms * DEADLINE_SHARE / 1000.0
            runner.hint = hints.get(point.program)
        output = runner.run()
        finished_s = self._clock()
        answer, boxes = self._answer(frame, live, output, point)
        outputs = (output.copy(),)
        answered_s = self._clock()

        run_ms = (finished_s - prepared_s) * 1000.0
        self._learn(point, runner, run_ms)
        self._overhead.take((answered_s - started_s) * 1000.0 - run_ms)
        latency_ms = (answered_s - begin_s) * 1000.0
        on_time, throttled = latency_ms <= budget.deadline_ms, readings.throttled is True
        parts_ms = waited_ms, frame.decode_ms or 0.0, sink_ms, latency_ms - waited_ms
        cause = None if on_time else late_cause(*parts_ms, throttled=throttled)
        return Result(
            frame, answer, outputs, decision, (prepared_s - started_s) * 1000.0, run_ms, latency_ms,
            budget.deadline_ms, dropped, on_time, cause, sink_ms, self._trail(runner, frame, point.size_hw),
            clip_frames, boxes,
        )  # fmt: skip

    def _answer(
        self, frame: Frame, live: bool, output: npt.NDArray[np.float32], point: OperatingPoint
    ) -> tuple[Classification, tuple[Box, ...] | None]:
        """What the output says, and the boxes of a detector."""
        facts = self.bundle.manifest
        if facts.boxes is None:
            return self._steady.take(frame, live, output, point.temperature, point.unsure_below), None
        boxes = detect(output, facts.labels, facts.boxes, point, self.bundle.spec, frame.pixels.shape[:2])
        return surest(boxes, output, facts.labels, point.temperature), boxes

    def _prepare(self, frame: Frame, point: OperatingPoint, runner: Runner) -> int | None:
        """Write the point's input; for clips returns how many different frames are in it."""
        if self._clip is not None:
            return self._clip.fill(frame, point, runner.input)
        preprocess(frame.pixels, self.bundle.spec, point.size_hw, out=runner.input)
        return None

    def _learn(self, point: OperatingPoint, runner: Runner, run_ms: float) -> None:
        """Tell the policy how long the run took, and remember where its answer was found."""
        self.observed_ms = runner.comparable_ms(run_ms) if isinstance(runner, EarlyExitRunner) else run_ms
        self.policy.observe(point.name, self.observed_ms)
        found = runner.found if self._look_where_found and isinstance(runner, EarlyExitRunner) else None
        if found is not None:
            self._found = {point.program: found}

    def _trail(self, runner: Runner, frame: Frame, size_hw: tuple[int, int]) -> LookTrail | None:
        """Where an early-exit runner looked in this frame."""
        if not isinstance(runner, EarlyExitRunner) or runner.last is None:
            return None
        return make_trail(runner.last, runner.max_looks, frame.pixels.shape[:2], self.bundle.spec, size_hw)
