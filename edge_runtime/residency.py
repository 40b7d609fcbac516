"""Keep operating points resident: built, warmed and measured in the background, never in the frame path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from edge_runtime.backends import Backend, Runner
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.manifest import OperatingPoint

WARM_RUNS = 2
MEASURED_RUNS = 5


class ResidentSet:
    """The runners of a bundle's points.

    The cheapest point is ready when the constructor returns; a background thread builds the others, cheapest first.

    Args:
        backend: builds runners.
        points: all points that may become resident.
        on_ready: called from the background thread when all are built.
        clock: seconds, for the first measurements.
    Raises:
        EdgeRuntimeError: the cheapest point cannot be built.
    """

    def __init__(
        self,
        backend: Backend,
        points: Sequence[OperatingPoint],
        on_ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend, self._clock, self._on_ready = backend, clock, on_ready
        self._points = sorted(points, key=lambda p: p.madds)
        self._runners: dict[str, Runner] = {}
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
        return frozenset(self._runners)

    @property
    def ready(self) -> bool:
        """All points are resident."""
        return len(self._runners) == len(self._points)

    @property
    def measured_ms(self) -> dict[str, float]:
        """Point -> median run time of the first warm runs, milliseconds."""
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
            for _ in range(WARM_RUNS):
                runner.run()
            samples = []
            for _ in range(MEASURED_RUNS):
                started = self._clock()
                runner.run()
                samples.append((self._clock() - started) * 1000.0)
            self._measured_ms[point.name] = max(1e-3, sorted(samples)[MEASURED_RUNS // 2])
            self._runners[point.name] = runner

    def close(self) -> None:
        """Stop building and release every runner."""
        self._stop.set()
        self._thread.join()
        for runner in self._runners.values():
            runner.close()
        self._runners = {}

    def _build_rest(self) -> None:
        try:
            for point in self._points[1:]:
                if self._stop.is_set():
                    return
                self.add(point)
            self._on_ready()
        except EdgeRuntimeError as error:
            self._failure = error
