"""What applications use: load a bundle, hand in frames, get answers within the budget."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import Backend, open_backend
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.controller import Controller
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.controller_ladder import LadderPoint
from edge_runtime.errors import BundleError
from edge_runtime.frame import Frame
from edge_runtime.manifest import OperatingPoint
from edge_runtime.pipeline import Pipeline
from edge_runtime.policies import Policy, make_policy
from edge_runtime.profiling.table_record import QueryTable
from edge_runtime.readings import Readings
from edge_runtime.residency import ResidentSet
from edge_runtime.result import Decision, Result
from edge_runtime.run_recorder import RunRecorder
from edge_runtime.runtime_defaults import (
    can_look_again,
    choose_profile,
    choose_query_table,
    device_sensors,
    engine_options,
)
from edge_runtime.sensor_loop import SensorLoop, Sensors, crowding_of
from edge_runtime.steady_answer import SteadyAnswer
from edge_runtime.telemetry import TelemetryFile
from edge_runtime.wanted_point import wanted_point

OnSwitch = Callable[[Decision, Decision], None]
OnResult = Callable[[Result, Readings], None]
PolicyMaker = Callable[[tuple[LadderPoint, ...]], Policy]
"""Makes a policy from the query table."""


class FrameSource(Protocol):
    """Where frames come from; edge_runtime.sources makes them."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def live(self) -> bool:
        """Frames age while nobody takes them."""

    @property
    def dropped(self) -> int:
        """Frames lost so far."""

    def frames(self) -> Iterator[Frame]:
        """The frames, in order."""


class Runtime:
    """A loaded bundle with its controller. Not for use by several threads at once.

    Use `Runtime.load`; close it, or use it as a context manager.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        points: tuple[OperatingPoint, ...],
        *,
        budget: Budget,
        sensors: Sensors,
        sensor_period_s: float = 1.0,
        telemetry: TelemetryFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        query_table: QueryTable | None = None,
        policy: str | Policy | PolicyMaker = "ours",
        limits: DeviceLimits | None = None,
        resident: int | str = "default",
        allowed_bytes: int | None = None,
        look_where_found: bool = False,
        smooth_s: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.bundle, self.points, self.budget = bundle, points, budget
        """`budget` may be set at any moment; it holds from the next frame."""
        self._resident_limit = resident
        steady = SteadyAnswer.of_bundle(bundle.manifest, smooth_s)
        self._query_table = query_table
        self._backend, self._clock = backend, clock
        self._measured_points = 0
        self._callbacks: list[OnSwitch] = []
        self._listeners: list[OnResult] = []
        self._last: Decision | None = None
        self._frames, self._sink_ms = 0, 0.0
        self._resident = ResidentSet(backend, points, clock, budget.max_memory_bytes or resident, allowed_bytes)
        try:
            self._policy = self._make_policy(policy, limits)
        except BaseException:
            self._resident.close()
            raise
        self._pipeline = Pipeline(
            bundle, self._resident, self._policy, clock, look_where_found=look_where_found,
            crowding=partial(crowding_of(sensors), threads), steady=steady,
        )  # fmt: skip
        self._pipeline.warm()
        self._sensors = SensorLoop(sensors, sensor_period_s, clock)
        self._recorder = None if telemetry is None else RunRecorder(telemetry, self._policy)
        if self._recorder is not None:
            self._recorder.start(bundle.manifest.name, backend.name, points)

    @staticmethod
    def load(
        bundle: str | Path | Bundle,
        *,
        backend: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        profile: str | Path | None = None,
        budget: Budget | None = None,
        sensors: Sensors | None = None,
        adapt: bool = True,
        policy: str | Policy | PolicyMaker = "ours",
        telemetry: str | Path | None = None,
        global_thread_pool: bool = False,
        query_table: str | Path = "auto",
        resident: int | str = "default",
        look_where_found: bool = False,
        smooth_s: float = 0.0,
        warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
        tell: Callable[[str], None] = lambda text: None,
    ) -> Runtime:
        """Open a bundle and start building its points in the background.

        Args:
            bundle: folder NAME.bundle, or one that is already loaded.
            backend: "onnxruntime", "executorch" or "null"; None takes the first that the bundle has a program for.
            precision: "fp32" or "int8"; None takes all programs of the backend.
            threads: for the engine; None takes the profile's, never more than the usable cores.
            profile: device profile by name or .toml path; None takes the one that matches this machine.
            budget: deadline and floors; None is 30 frames per second.
            sensors: None reads this device.
            adapt: False stays at the most accurate point.
            policy: one of `edge_runtime.policies.POLICIES` by name, an object, or a function that
                makes one from the query table.
            telemetry: a JSON-lines file to write.
            global_thread_pool: one pool for all sessions of the process (see docs/embedding.md: it is process-wide).
            query_table: a result of `edge-runtime profile`; "auto" takes the newest that fits this bundle, device and
                engine; "none" takes none.
            resident: what all resident points together may take, in bytes, or "all" for every point; "default" is
                1.5 times what the largest takes, and no more than the profile allows. The budget's limit goes first.
            look_where_found: for video and networks that look several times: a frame's first patch is cut where the
                frame before found its answer. `warn` hears of it where no point looks several times.
            smooth_s: answers to a video are averaged over so many seconds (docs/embedding.md); 0: each frame alone, and
                all that a detector can do.
            warn: receives single sentences about what went wrong while the run goes on.
            tell: receives single sentences about what was chosen.
        Raises:
            BundleError, BackendError, BudgetError, ProfileError, PolicyError, SinkError, ResultError: with the reason.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        name = backend or opened.manifest.programs[0].backend
        points = opened.points_for(name, precision)
        device = choose_profile(profile)
        options = engine_options(device, threads, precision, global_thread_pool)
        table = choose_query_table(opened, options.threads, name, points, query_table, warn, tell)
        look_where_found = look_where_found and can_look_again(opened, name, points, warn)
        engine = open_backend(name, opened, options)
        record = None if telemetry is None else TelemetryFile(telemetry, warn)
        with contextlib.ExitStack() as undo:  # of what is open when something fails
            undo.callback(engine.close)
            if record is not None:
                undo.callback(record.close)
            runtime = Runtime(
                opened, engine, points, budget=budget or Budget(), telemetry=record, policy=policy, resident=resident,
                sensors=device_sensors(device) if sensors is None else sensors, sensor_period_s=device.sensor_period_s,
                limits=DeviceLimits.from_profile(device), query_table=table, allowed_bytes=device.memory_limit_bytes,
                look_where_found=look_where_found, smooth_s=smooth_s, threads=options.threads,
            )  # fmt: skip
            undo.callback(runtime.close)
            if not adapt:
                runtime.pin(max(points, key=lambda p: p.accuracy["select"]).name)
            undo.pop_all()
        return runtime

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.bundle.manifest.labels

    @property
    def ready(self) -> bool:
        """All points that the memory limit allows are resident; frames are answered before that too."""
        return self._resident.ready

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until all points that the memory limit allows are resident.

        Raises:
            BackendError: one of them cannot be built.
        """
        ready = self._resident.wait(timeout_s)
        self._resident.raise_failure()
        return ready

    @property
    def readings(self) -> Readings:
        """The latest of the sensors."""
        return self._sensors.latest

    def latency_ms(self, point: str) -> float:
        """The query table: expected run time of a point on a quiet device, milliseconds."""
        return next(p.latency_ms for p in self._policy.ladder if p.name == point)

    @property
    def query_table_source(self) -> str:
        """Where the query table comes from, in words."""
        return "first runs on this device" if self._query_table is None else self._query_table.source

    @property
    def pinned(self) -> str | None:
        """The point that is forced, or None."""
        return self._policy.pinned

    def pin(self, point: str) -> None:
        """Use one point for every frame until `unpin`; builds it first if needed.

        Raises:
            BundleError: there is no such point.
        """
        found = next((p for p in self.points if p.name == point), None)
        if found is None:
            raise BundleError(f"no operating point {point!r}; choose one of {', '.join(p.name for p in self.points)}")
        self._resident.add(found)
        self._policy.pinned = point

    @property
    def resident(self) -> frozenset[str]:
        """Names of the points that can run at once."""
        return self._resident.names

    def unpin(self) -> None:
        """Adapt again."""
        self._policy.pinned = None

    def on_switch(self, callback: OnSwitch) -> None:
        """Call `callback(old, new)` after each frame whose point differs from the frame before."""
        self._callbacks.append(callback)

    def on_result(self, callback: OnResult) -> None:
        """Call `callback(result, readings)` after each answered frame."""
        self._listeners.append(callback)

    def infer(self, frame: Frame | npt.NDArray[np.uint8], *, live: bool = False, dropped: int = 0) -> Result:
        """Answer one picture; a bundle of clips answers the clip that ends with it.

        Args:
            frame: a Frame, or pixels (H, W, 3) uint8 RGB. Of one video after the other with `forget` between them.
            live: count the frame's age against the deadline.
            dropped: frames lost before it, for the record.
        Raises:
            FrameError, BackendError: this frame cannot be answered.
        """
        if not isinstance(frame, Frame):
            frame = Frame(frame, self._frames, self._clock())
        self._resident.set_limit(self.budget.max_memory_bytes or self._resident_limit)
        if self._resident.ready and self._measured_points < len(self._resident.measured_ms):
            self._measured_points = len(self._resident.measured_ms)
            self._policy.replace_ladder(self._ladder())
        self._resident.raise_failure()
        readings = self._sensors.latest
        result = self._process_resident(frame, readings, live, dropped)
        self._frames += 1
        for listener in self._listeners:
            listener(result, readings)
        last, self._last = self._last, result.decision
        if result.decision.switched and last is not None:
            for callback in self._callbacks:
                callback(last, result.decision)
        return result

    def forget(self) -> None:
        """Another video begins: what `infer` saw before says nothing of its frames. `stream` does it by itself."""
        self._pipeline.forget()

    def stream(self, source: FrameSource) -> Iterator[Result]:
        """Answer the frames of a source, lazily, until it ends.

        Raises:
            StreamBroken: the source failed; frames before that were answered.
        """
        self._sink_ms = 0.0
        self.forget()
        for frame in source.frames():
            result = self.infer(frame, live=source.live, dropped=source.dropped)
            given_s = self._clock()
            yield result
            self._sink_ms = (self._clock() - given_s) * 1000.0

    def close(self) -> None:
        """Stop the background threads and release the engine."""
        try:
            self._sensors.close()
            self._resident.close()
            self._backend.close()
        finally:
            if self._recorder is not None:
                self._recorder.end(self._frames)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ladder(self) -> tuple[LadderPoint, ...]:
        """The query table: the profile's, else measured where the point is resident, else scaled from the bundle's."""
        table = self._query_table or QueryTable("", self._resident.measured_ms)
        ratios = [table.latency_ms[p.name] / _guess_ms(p) for p in self.points if p.name in table.latency_ms]
        ratio = sorted(ratios)[len(ratios) // 2]
        return tuple(
            LadderPoint(
                p.name, p.accuracy["select"], table.latency_ms.get(p.name, _guess_ms(p) * ratio),
                table.p99_ms.get(p.name), table.memory_bytes.get(p.name), table.energy_j.get(p.name), table.threads,
            )
            for p in self.points
        )  # fmt: skip

    def _make_policy(self, policy: str | Policy | PolicyMaker, limits: DeviceLimits | None) -> Policy:
        ladder = self._ladder()
        if not isinstance(policy, str):
            return policy(ladder) if callable(policy) else policy
        options: dict[str, Any] = {"limits": limits} if policy == "ours" else {}
        return make_policy(policy, ladder, **options)

    def _process_resident(self, frame: Frame, readings: Readings, live: bool, dropped: int) -> Result:
        """Answer one frame while the resident points stay, then say what it used and what it would have liked."""
        resident, result = self._resident, None
        resident.begin_frame()
        try:
            result = self._process(frame, readings, live, dropped)
            return result
        finally:
            wanted = None
            if result is not None and self._policy.pinned is None and len(resident.names) < len(resident.holdable):
                if isinstance(self._policy, Controller):
                    wanted = self._policy.wish(resident.holdable)
                else:
                    wanted = wanted_point(self._policy.ladder, resident.holdable, self.budget, result)
            resident.end_frame(None if result is None else result.decision.point, wanted)

    def _process(self, frame: Frame, readings: Readings, live: bool, dropped: int) -> Result:
        """Answer one frame, and record it."""
        pipeline, recorder = self._pipeline, self._recorder
        pipeline.choice = None
        try:
            result = pipeline.process(frame, self.budget, readings, live=live, dropped=dropped, sink_ms=self._sink_ms)
        except Exception:
            if recorder is not None and pipeline.choice is not None:
                recorder.failed(frame.index, pipeline.choice)
            raise
        if recorder is not None and pipeline.choice is not None:
            recorder.frame(result, pipeline.choice, pipeline.observed_ms)
        return result


def _guess_ms(point: OperatingPoint) -> float:
    return point.latency_ms or point.madds * 1e-7
