"""Keep operating points resident: built, warmed and measured in the background, never in the frame path.

The frame thread says when a frame begins and which point it used; the background thread holds what residency_plan.py
asks for. A point is never built in a frame, and never released while a frame that may use it is under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from edge_runtime.backends import Backend, MemoryAware, Runner
from edge_runtime.early_exit import EarlyExitRunner
from edge_runtime.errors import BackendError, EdgeRuntimeError
from edge_runtime.freed_memory import give_back, own_pages
from edge_runtime.manifest import OperatingPoint
from edge_runtime.residency_plan import default_limit_bytes, holdable, plan_residents

WARM_RUNS = 2
MEASURED_RUNS = 9
OTHER_DATA_BYTES = 4 << 20  # what decoding and drawing a frame of 640x480 touch
PREFER_FRAMES = 5
"""A wish counts after so many frames in a row: one that comes and goes is not worth a build of 50 ms and more."""


class ResidentSet:
    """The runners of a bundle's points.

    The cheapest point is ready when the constructor returns; a background thread builds the others as they fit.

    Args:
        backend: builds runners; a MemoryAware one says what a point takes.
        points: all points that may become resident.
        clock: seconds, for the first measurements.
        limit_bytes: for all resident points together; "default" is residency_plan's, "all" holds every point.
        allowed_bytes: what the device allows; the default never exceeds it.
    Raises:
        EdgeRuntimeError: the cheapest point cannot be built.
    """

    def __init__(
        self,
        backend: Backend,
        points: Sequence[OperatingPoint],
        clock: Callable[[], float] = time.perf_counter,
        limit_bytes: int | str = "default",
        allowed_bytes: int | None = None,
    ) -> None:
        self._backend, self._clock, self._allowed_bytes = backend, clock, allowed_bytes
        self._points = {p.name: p for p in sorted(points, key=lambda p: p.madds)}
        self._ladder = tuple(self._points)
        self._sizes = _sizes_of(backend, self._points)
        self._limit_bytes = self._resolved(limit_bytes)
        self._holdable = holdable(self._ladder, self._sizes, self._limit_bytes)
        self._runners: dict[str, Runner] = {}
        self._names: frozenset[str] = frozenset()
        self._recent: list[str] = []  # resident points, the last used first
        self._failed: frozenset[str] = frozenset()
        self._current = self._ladder[0]
        self._wanted: str | None = None
        self._hint: tuple[str | None, int] = (None, 0)  # what the last frames wanted, and how many in a row
        self._measured_ms: dict[str, float] = {}
        self._failure: EdgeRuntimeError | None = None
        self._in_frame = self._releasing = self._stopping = self._idle = False
        self._changed = threading.Condition()  # guards the fields above; held for moments only
        self._building = threading.Lock()  # whoever builds or releases
        self._make(self._ladder[0])
        self._thread = threading.Thread(target=self._work, name="edge-runtime-residency", daemon=True)
        self._thread.start()

    @property
    def names(self) -> frozenset[str]:
        """Points that can run at once."""
        return self._names

    @property
    def holdable(self) -> frozenset[str]:
        """Points that can become resident within the limit."""
        return self._holdable

    @property
    def ready(self) -> bool:
        """Everything that the limit allows is resident, and nothing failed."""
        return self._idle and not self._failed

    @property
    def measured_ms(self) -> dict[str, float]:
        """Point -> run time on the quiet device, milliseconds, from the first warm runs; of released points too."""
        return dict(self._measured_ms)

    @property
    def limit_bytes(self) -> int | None:
        """For all resident points together; None when every point may be resident."""
        return self._limit_bytes

    def set_limit(self, limit_bytes: int | str) -> None:
        """Take another limit ("default", "all" or bytes); points are released or built in the background."""
        found = self._resolved(limit_bytes)
        if found != self._limit_bytes:
            with self._changed:
                self._limit_bytes = found
                self._holdable = holdable(self._ladder, self._sizes, found) - self._failed
                self._wake()

    def begin_frame(self) -> None:
        """A frame is under way: what is resident stays so until `end_frame`."""
        with self._changed:
            self._in_frame = True

    def end_frame(self, point: str | None = None, wanted: str | None = None) -> None:
        """The frame is over.

        Args:
            point: the one that it used; None when it failed before.
            wanted: the one that the controller would use if it were resident. It is built next once it is wanted in
                PREFER_FRAMES frames in a row.
        """
        with self._changed:
            self._in_frame = False
            self._hint = (wanted, self._hint[1] + 1 if wanted == self._hint[0] else 1)
            steady = wanted if self._hint[1] >= PREFER_FRAMES else self._wanted
            if point is not None and point != self._current:
                self._current = point
                self._touch(point)
                self._wake()
            if steady != self._wanted:
                self._wanted = steady
                self._wake()
            if self._releasing:
                self._changed.notify_all()

    def prefer(self, name: str | None) -> None:
        """What the controller wants, at once; None is nothing in particular."""
        with self._changed:
            self._wanted, self._hint = name, (name, PREFER_FRAMES)
            self._wake()

    def runner(self, name: str) -> Runner:
        """The runner of a resident point."""
        return self._runners[name]

    def raise_failure(self) -> None:
        """Raise what went wrong in the background, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything that the limit allows is resident; False when the time ran out or a point failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle, timeout_s)
            return self.ready

    def add(self, point: OperatingPoint) -> None:
        """Make a point resident now and the one in use; for callers outside the frame path."""
        with self._changed:
            self._current = point.name
            self._wake()
        with self._building:
            self._release_all_but(self._plan())
            if point.name not in self._runners:
                self._make(point.name)

    def close(self) -> None:
        """Stop building and release every runner."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        runners, self._runners, self._names = self._runners, {}, frozenset()
        for runner in runners.values():
            runner.close()

    def _resolved(self, limit_bytes: int | str) -> int | None:
        if isinstance(limit_bytes, int):
            return limit_bytes
        return None if limit_bytes == "all" else default_limit_bytes(self._sizes, self._allowed_bytes)

    def _touch(self, name: str) -> None:
        self._recent = [name, *(n for n in self._recent if n != name)]

    def _wake(self) -> None:
        self._idle = False
        self._changed.notify_all()

    def _plan(self) -> tuple[str, ...]:
        with self._changed:
            wanted = None if self._wanted in self._failed else self._wanted
            plan = plan_residents(
                self._ladder, self._sizes, self._limit_bytes, self._current, wanted, tuple(self._recent)
            )
        return tuple(name for name in plan if name not in self._failed)

    def _work(self) -> None:
        """The background thread: one step after the other until nothing is left to do, then wait for a change."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or not self._idle)
                if self._stopping:
                    return
            with self._building:
                self._step()

    def _step(self) -> None:
        """Release what has no place any more, then build the most urgent missing point; or settle."""
        plan = self._plan()
        self._release_all_but(plan)
        missing = next((name for name in plan if name not in self._runners), None)
        if missing is None:
            if isinstance(self._backend, MemoryAware):
                with own_pages():
                    self._backend.settle()
            with self._changed:
                self._idle = plan == self._plan()
                self._changed.notify_all()
            return
        try:
            if not self._stopping:
                self._make(missing)
        except Exception as error:  # whatever it is, the loop must hear of it
            with self._changed:
                self._failed |= {missing}
                self._holdable -= self._failed
                self._failure = _as_ours(missing, error)

    def _release_all_but(self, kept: Collection[str]) -> None:
        """Take points out of `names`, wait for the frame under way, which may use them, and close them."""
        with self._changed:
            gone = [name for name in self._runners if name not in kept]
            if not gone:
                return
            self._names = frozenset(name for name in self._runners if name in kept)
            self._releasing = True
            self._changed.wait_for(lambda: self._stopping or not self._in_frame)
            self._releasing = False
            closing = [self._runners.pop(name) for name in gone]
            self._recent = [name for name in self._recent if name in self._runners]
        with own_pages():
            for runner in closing:
                runner.close()
            closing.clear()
        give_back()

    def _make(self, name: str) -> None:
        with own_pages():
            runner = self._backend.load(self._points[name])
            try:
                measured_ms = self._warm(runner)
            except BaseException:
                runner.close()
                raise
        with self._changed:
            self._measured_ms[name] = measured_ms
            self._runners[name] = runner
            self._recent.append(name)
            self._names = frozenset(self._runners)

    def _warm(self, runner: Runner) -> float:
        """Run a few times; milliseconds of the second fastest warm run: other programs can only add to it.

        Between two runs other data passes through the caches, as it does between two frames: a small network that
        runs back to back is up to four times as fast as one that runs 30 times a second.
        """
        elsewhere = np.zeros(OTHER_DATA_BYTES // 4, np.float32)
        for _ in range(WARM_RUNS):
            runner.run()
        samples = []
        for _ in range(MEASURED_RUNS):
            elsewhere += 1.0
            started_s = self._clock()
            runner.run()
            samples.append((self._clock() - started_s) * 1000.0)
        if isinstance(runner, EarlyExitRunner):  # how often the blank picture is looked at says nothing
            return max(1e-3, runner.expected_ms)
        return max(1e-3, sorted(samples)[1])


def _sizes_of(backend: Backend, points: Mapping[str, OperatingPoint]) -> dict[str, int]:
    """Point -> bytes, as far as the backend knows."""
    if not isinstance(backend, MemoryAware):
        return {}
    with own_pages():  # it may read the weights
        found = {name: backend.memory_bytes(point) for name, point in points.items()}
    return {name: size for name, size in found.items() if size is not None}


def _as_ours(name: str, error: Exception) -> EdgeRuntimeError:
    if isinstance(error, EdgeRuntimeError):
        return error
    failure = BackendError(f"{name}: cannot be made resident: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
