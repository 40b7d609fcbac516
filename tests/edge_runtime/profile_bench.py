"""A profiler on a fake engine, whose clock only moves when told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeClock, FakeEngine, tiny_bundle

from edge_runtime.bundle import Bundle
from edge_runtime.device_profile import load_profile
from edge_runtime.profiling import loading
from edge_runtime.profiling.profiler import Profiler
from edge_runtime.profiling.result import ProfileResult
from edge_runtime.profiling.settings import MODES, ProfileSettings
from edge_runtime.readings import Readings

PI = load_profile("raspberry-pi-5")


QUICK = replace(MODES["quick"], rounds=4, block_runs=5)


class FakeSensors:
    """Gives what a function says for the time; counts readings."""

    def __init__(self, script: Callable[[float, int], Readings] = lambda now_s, count: Readings()) -> None:
        self._script, self.count = script, 0

    def read(self, now_s: float) -> Readings:
        self.count += 1
        return self._script(now_s, self.count)


class Bench:
    """A bundle, a fake engine and a clock, and the profiler on them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine | None = None) -> None:
        self.bundle = tiny_bundle(folder)
        self.engine = engine or FakeEngine()
        self.clock: FakeClock = self.engine.clock
        self.opened: list[Any] = []
        monkeypatch.setattr(loading, "open_backend", self._open)

    def _open(self, name: str, bundle: Bundle, options: Any) -> FakeEngine:
        self.opened.append(options)
        return self.engine

    def profiler(
        self, settings: ProfileSettings = QUICK, sensors: FakeSensors | None = None, profile: Any = PI, **options: Any
    ) -> Profiler:
        return Profiler(
            self.bundle, settings, profile, sensors or FakeSensors(), clock=self.clock,
            sleep=lambda s: self.clock.wait_ms(1000.0 * s), **options,
        )  # fmt: skip

    def run(self, *arguments: Any, **options: Any) -> ProfileResult:
        return self.profiler(*arguments, **options).run()
