"""Keep operating points resident: built, warmed and measured in the background, never in the frame path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from edge_runtime.backends import Backend, Runner
from edge_runtime.early_exit import EarlyExitRunner
from edge_runtime.errors import BackendError, EdgeRuntimeError
from edge_runtime.manifest import OperatingPoint

WARM_RUNS = 2
MEASURED_RUNS = 9
OTHER_DATA_BYTES = 4 << 20  # what decoding and drawing a frame of 640x480 touch


class ResidentSet:
    """The runners of a bundle's points.

    The cheapest point is ready when the constructor returns; a background thread builds the others, cheapest first.

    Args:
        backend: builds runners.
        points: all points that may become resident.
        clock: seconds, for the first measurements.
    Raises:
        EdgeRuntimeError: the cheapest point cannot be built.
    """

    def __init__(
        self,
        backend: Backend,
        points: Sequence[OperatingPoint],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend, self._clock = backend, clock
        self._points = sorted(points, key=lambda p: p.madds)
        self._runners: dict[str, Runner] = {}
        self._names: frozenset[str] = frozenset()
        self._elsewhere = np.zeros(OTHER_DATA_BYTES // 4, np.float32)
        self._measured_ms: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: EdgeRuntimeError | None = None
        self.add(self._points[0])
        self._thread = threading.Thread(target=self._build_rest, name="edge-runtime-residency", daemon=True)
        self._thread.start()

    @property
    def names(self) -> frozenset[str]:
        """Points that can run at once."""
        return self._names

    @property
    def ready(self) -> bool:
        """All points are resident."""
        return len(self._runners) == len(self._points)

    @property
    def measured_ms(self) -> dict[str, float]:
        """Point -> run time on the quiet device, milliseconds, from the first warm runs."""
        return dict(self._measured_ms)

    def runner(self, name: str) -> Runner:
        """The runner of a resident point."""
        return self._runners[name]

    def raise_failure(self) -> None:
        """Raise what stopped the background thread, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all points are resident; False when the time ran out or a point failed."""
        self._thread.join(timeout_s)
        return self.ready

    def add(self, point: OperatingPoint) -> None:
        """Make a point resident now; for callers outside the frame path."""
        with self._lock:
            if point.name in self._runners:
                return
            runner = self._backend.load(point)
            try:
                self._measured_ms[point.name] = self._warm(runner)
            except BaseException:
                runner.close()
                raise
            self._runners[point.name] = runner
            self._names = frozenset(self._runners)

    def close(self) -> None:
        """Stop building and release every runner."""
        self._stop.set()
        self._thread.join()
        runners, self._runners, self._names = self._runners, {}, frozenset()
        for runner in runners.values():
            runner.close()

    def _warm(self, runner: Runner) -> float:
        """Run a few times; milliseconds of the second fastest warm run: other programs can only add to it.

        Between two runs other data passes through the caches, as it does between two frames: a small network that
        runs back to back is up to four times as fast as one that runs 30 times a second.
        """
        for _ in range(WARM_RUNS):
            runner.run()
        samples = []
        for _ in range(MEASURED_RUNS):
            self._elsewhere += 1.0
            started_s = self._clock()
            runner.run()
            samples.append((self._clock() - started_s) * 1000.0)
        if isinstance(runner, EarlyExitRunner):  # how often the blank picture is looked at says nothing
            return max(1e-3, runner.expected_ms)
        return max(1e-3, sorted(samples)[1])

    def _build_rest(self) -> None:
        try:
            for point in self._points[1:]:
                if self._stop.is_set():
                    return
                self.add(point)
        except EdgeRuntimeError as error:
            self._failure = error
        except Exception as error:  # whatever it is, the loop must hear of it
            self._failure = BackendError(f"{point.name}: cannot be made resident: {type(error).__name__}: {error}")
            self._failure.__cause__ = error
