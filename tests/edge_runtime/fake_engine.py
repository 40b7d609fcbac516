"""A clock that only moves when told, and an engine whose builds can be held back, fail, or take fake time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from bundles import LABELS, write_bundle

from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint


class FakeClock:
    """Seconds; call it to read, `wait_ms` to move it. Other threads than the test's have time of their own."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s
        self._elsewhere = threading.local()

    def __call__(self) -> float:
        return self.now_s + getattr(self._elsewhere, "offset_s", 0.0)

    def wait_ms(self, milliseconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            self.now_s += milliseconds / 1000.0
        else:
            self._elsewhere.offset_s = getattr(self._elsewhere, "offset_s", 0.0) + milliseconds / 1000.0


class FakeRunner:
    """Takes the point's tabled time on the fake clock, and answers with the class it is told."""

    def __init__(self, engine: FakeEngine, point: OperatingPoint) -> None:
        self.input = np.zeros((1, 3, *point.size_hw), np.float32)
        self.closed, self.runs = False, 0
        self._engine, self._point = engine, point
        self._logits = np.zeros((1, len(LABELS)), np.float32)

    def run(self) -> np.ndarray:
        assert not self.closed
        self.runs += 1
        if self._engine.run_error is not None:
            raise self._engine.run_error
        self._engine.clock.wait_ms((self._point.latency_ms or 1.0) * self._engine.slowdown)
        self._logits[:] = 0.0
        self._logits[0, self._engine.answer] = 5.0
        return self._logits

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """A backend for tests.

    Args:
        clock: moved by runs in the main thread.
        held: points after the first are only built when `release` is set.
        errors: point -> what building it raises.
    """

    name = "fake"

    def __init__(
        self, clock: FakeClock | None = None, *, held: bool = False, errors: dict[str, Exception] | None = None
    ) -> None:
        self.clock = clock or FakeClock()
        self.release, self.building = threading.Event(), threading.Event()
        self.errors = errors or {}
        self.runners: dict[str, FakeRunner] = {}
        self.build_threads: dict[str, str] = {}
        self.slowdown, self.answer, self.closed = 1.0, 0, False
        self.run_error: Exception | None = None
        if not held:
            self.release.set()

    def load(self, point: OperatingPoint) -> FakeRunner:
        if threading.current_thread() is not threading.main_thread():
            self.building.set()
            assert self.release.wait(30)
        if point.name in self.errors:
            raise self.errors[point.name]
        self.build_threads[point.name] = threading.current_thread().name
        self.runners[point.name] = FakeRunner(self, point)
        return self.runners[point.name]

    def close(self) -> None:
        self.closed = True


def tiny_bundle(folder: Path) -> Bundle:
    """The bundle of bundles.py, loaded: w0.25-r016 (0.5 ms) ... w1.00-r032 (4 ms)."""
    return Bundle.load(write_bundle(folder / "tiny.bundle"))


def our_threads() -> set[str]:
    """Names of the runtime's threads that are alive."""
    return {t.name for t in threading.enumerate() if t.name.startswith("edge-runtime")}
