"""Drive a Runtime as a camera would, and note what each frame really cost: wall time, CPU time, interruptions.

`--repeat N` runs each network N times per frame: real work of a network N times as large, for machines on which the
shipped points take less than a millisecond and no deadline of a camera could matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.traces import TracePoint
from edge_runtime.backends import Backend, BackendOptions, Runner, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.frame import Frame
from edge_runtime.manifest import OperatingPoint
from edge_runtime.pattern_source import pattern_picture
from edge_runtime.runtime import Runtime
from edge_runtime.sensing.run_queue import RunQueue
from edge_runtime.sensors import SYSTEM_ROOT

PICTURES = 8
QUIET_RUNS, QUIET_WARM_UP = 25, 3

try:
    import resource
except ImportError:  # Windows does not say how often a thread was interrupted; one interruption is assumed then
    resource = None  # type: ignore[assignment]


@dataclass(frozen=True)
class FrameRow:
    """One answered frame."""

    index: int
    point: str
    age_ms: float
    """From capture to the start of processing."""
    idle: bool
    """The runtime was waiting for this frame, so that its age is the lateness of the wake-up."""
    beside_ms: float
    """Processing time less the engine's."""
    run_ms: float
    cpu_ms: float
    """CPU time of the engine call; the rest of run_ms the thread was off its core."""
    interruptions: int
    """How often the core was taken away during the engine call."""
    latency_ms: float
    on_time: bool
    switched: bool
    expected: float | None = None
    """Probability of being on time that the policy expected."""
    crowding: float | None = None
    """Tasks that wanted a core as the frame began, for each core."""


class MeteredRunner:
    """A runner that repeats its network and notes what the last call cost."""

    def __init__(self, inner: Runner, repeat: int, meter: Meter) -> None:
        self.input = inner.input
        self._inner, self._repeat, self._meter = inner, repeat, meter

    def run(self) -> npt.NDArray[np.float32]:
        """Logits of the last repetition."""
        before, cpu_s = _interruptions(), time.thread_time()
        for _ in range(self._repeat):
            logits = self._inner.run()
        self._meter.cpu_ms = (time.thread_time() - cpu_s) * 1000.0
        self._meter.interruptions = _interruptions() - before
        return logits

    def close(self) -> None:
        """Release the engine's memory."""
        self._inner.close()


class Meter:
    """A backend around another one. The engine must work in the calling thread: one thread."""

    def __init__(self, inner: Backend, repeat: int) -> None:
        self.name, self._inner, self._repeat = inner.name, inner, repeat
        self.cpu_ms, self.interruptions = 0.0, 0

    def load(self, point: OperatingPoint) -> MeteredRunner:
        """A metered runner of the point."""
        return MeteredRunner(self._inner.load(point), self._repeat, self)

    def close(self) -> None:
        """Close the inner backend."""
        self._inner.close()


def open_meter(bundle: Bundle, repeat: int) -> tuple[Meter, tuple[OperatingPoint, ...]]:
    """The bundle's first engine on one thread, and its points."""
    name = bundle.manifest.programs[0].backend
    meter = Meter(open_backend(name, bundle, BackendOptions(threads=1)), repeat)
    return meter, tuple(bundle.points_for(name))


def pareto_points(points: tuple[OperatingPoint, ...], quiet_ms: dict[str, float]) -> tuple[OperatingPoint, ...]:
    """Points that no faster one equals in accuracy, cheapest first."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: quiet_ms[p.name]):
        if not kept or point.accuracy["select"] > kept[-1].accuracy["select"]:
            kept.append(point)
    return tuple(kept)


def measure_quiet(meter: Meter, points: tuple[OperatingPoint, ...], fps: float = 30.0) -> dict[str, float]:
    """Point -> median CPU milliseconds of one frame's engine work, points in turn, with pauses and other data between
    as in a camera's loop. CPU time, so that what else runs on the machine disturbs it little."""
    runners = {p.name: meter.load(p) for p in points}
    samples: dict[str, list[float]] = {p.name: [] for p in points}
    other = np.zeros(1 << 20, np.float32)
    for turn in range(QUIET_WARM_UP + QUIET_RUNS):
        for name, runner in runners.items():
            time.sleep(0.25 / fps)
            other += 1.0
            runner.run()
            if turn >= QUIET_WARM_UP:
                samples[name].append(meter.cpu_ms)
    for runner in runners.values():
        runner.close()
    return {name: float(np.median(values)) for name, values in samples.items()}


def trace_points(points: tuple[OperatingPoint, ...], quiet_ms: dict[str, float]) -> tuple[TracePoint, ...]:
    """The points as a trace holds them."""
    return tuple(TracePoint(p.name, p.accuracy["select"], quiet_ms[p.name]) for p in points)


class CameraClock:
    """A live source of a fixed rate: the newest frame wins. Pictures are made before, so that none costs time.

    Args:
        fps: of the camera.
        frame_count: frames of the block, dropped ones included.
        started_s: when frame 0 is captured, on `clock`; may be set until `frames` is called.
        clock: the pipeline's clock.
        wait: sleeps so many seconds; may return late.
    """

    live = True
    name = "camera at a fixed rate"

    def __init__(
        self, fps: float, frame_count: int, started_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._clock, self._wait = clock, wait
        self.fps, self.frame_count, self.started_s = fps, frame_count, started_s
        self.dropped = 0
        self.age_ms, self.idle = 0.0, False
        self.slept_through: dict[int, float] = {}
        """Frames that passed while the process waited for a core: index -> milliseconds until it got one."""
        self._pictures = [pattern_picture(i * 30, (480, 640)) for i in range(PICTURES)]

    def frames(self) -> Iterator[Frame]:
        """Frames as they come due; `age_ms` and `idle` then say how the newest was taken."""
        index = 0
        while index < self.frame_count:
            now_s = self._clock()
            newest = self._newest(now_s, index)
            self.dropped += newest - index
            index = newest
            self.idle = now_s < self._due_s(index)
            if self.idle:
                self._wait(self._due_s(index) - now_s)
                woke_s = self._clock()
                newest = self._newest(woke_s, index)
                for missed in range(index, newest):
                    self.slept_through[missed] = (woke_s - self._due_s(missed)) * 1000.0
                self.dropped += newest - index
                index, now_s = newest, woke_s
            self.age_ms = (now_s - self._due_s(index)) * 1000.0
            yield Frame(self._pictures[index % PICTURES], index, self._due_s(index))
            index += 1

    def _due_s(self, index: int) -> float:
        return self.started_s + index / self.fps

    def _newest(self, now_s: float, index: int) -> int:
        """The newest frame that is due, `index` or later."""
        due = int((now_s - self.started_s) * self.fps + 1e-6)
        return max(index, min(due, self.frame_count - 1))


def drive(
    runtime: Runtime, meter: Meter, camera: CameraClock, before_frame: Callable[[int, float], None] | None = None
) -> list[FrameRow]:
    """Answer a block of frames.

    Args:
        runtime: works on the meter's runners.
        before_frame: called before each frame with the count of answers so far and the frame's time in the block,
            for example to pin a point.
    """
    rows: list[FrameRow] = []
    run_queue = RunQueue(SYSTEM_ROOT)
    for frame in camera.frames():
        if before_frame is not None:
            before_frame(len(rows), frame.index / camera.fps)
        crowding = run_queue.crowding(threads=1)
        result = runtime.infer(frame, live=True, dropped=camera.dropped)
        beside_ms = max(0.0, result.latency_ms - camera.age_ms - result.run_ms)
        row = FrameRow(
            frame.index, result.decision.point, camera.age_ms, camera.idle, beside_ms, result.run_ms, meter.cpu_ms,
            meter.interruptions, result.latency_ms, result.on_time, result.decision.switched,
            result.decision.on_time_share, crowding,
        )  # fmt: skip
        rows.append(row)
    return rows


def _interruptions() -> int:
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw)
