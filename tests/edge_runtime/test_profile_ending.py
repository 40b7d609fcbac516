"""A profile that ends before its plan: interrupted, out of time, or on a clock that goes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, FakeRunner
from profile_bench import PI, QUICK, Bench, FakeSensors

from edge_runtime.errors import ResultError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.profiling.settings import MODES
from edge_runtime.readings import Readings


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def _interrupting(after_runs: int) -> type[FakeEngine]:
    class Interrupting(FakeEngine):
        def load(self, point: OperatingPoint) -> FakeRunner:
            engine, runner = self, super().load(point)
            plain = runner.run

            def run() -> Any:
                engine.total = getattr(engine, "total", 0) + 1
                if engine.total == after_runs:
                    raise KeyboardInterrupt
                return plain()

            runner.run = run  # type: ignore[method-assign]
            return runner

    return Interrupting


def test_an_interrupted_profile_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, _interrupting(6 + 60 + 3 * 7 + 4)())
    profiler = bench.profiler()
    result = profiler.run()
    assert profiler.interrupted
    assert not result.complete
    assert [point.latency.count for point in result.points] == [5, 5, 5]  # no block that was begun
    assert result.notes[0].startswith("interrupted before these were measured: w")
    assert result.points[0].operators.source == "not measured: the profile was interrupted"
    assert all(runner.closed for runner in bench.engine.runners.values())
    assert bench.engine.closed


def test_an_interruption_before_the_first_block_keeps_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, _interrupting(2)())
    with pytest.raises(ResultError, match="interrupted before anything was measured; nothing is kept"):
        bench.run()
    assert all(runner.closed for runner in bench.engine.runners.values())


def test_an_interrupted_sustained_run_keeps_its_curve(bench: Bench) -> None:
    began: list[float] = []

    def heat(now_s: float, count: int) -> Readings:
        if began and now_s > began[0] + 30.0:
            began[0] = float("inf")  # once
            raise KeyboardInterrupt
        return Readings()

    def progress(text: str, done_s: float, total_s: float) -> None:
        if text.startswith("sustained") and not began:
            began.append(bench.clock())

    result = bench.run(replace(QUICK, sustained_s=60.0), FakeSensors(heat), progress=progress)
    curve = result.sustained[0]
    assert curve.point == "w1.00-r032"
    assert 25.0 < curve.samples[-1].at_s < 32.0
    assert curve.verdict.reason.startswith("unstable: ended after ")
    assert not result.complete


def test_a_sustained_run_that_slows_down_is_told_with_its_heat(bench: Bench) -> None:
    began_s = bench.clock()

    def heat(now_s: float, count: int) -> Readings:
        hot = now_s - began_s > 60.0
        bench.engine.slowdown = 1.5 if hot else 1.0
        return Readings(temperature_c=84.0 if hot else 60.0, core_frequency_mhz=(1000.0, 2000.0))

    settings = replace(QUICK, rounds=3, sustained_s=120.0)
    result = bench.run(settings, FakeSensors(heat), profile=replace(PI, thermal_bands=()))
    curve = result.sustained[0]
    assert curve.verdict.reason == "unstable: 50 % slower at the end than at the beginning (60 to 84 degrees)"
    assert curve.samples[0].frequency_mhz == 1500.0
    assert sum(sample.runs for sample in curve.samples) == pytest.approx(120.0 / 0.005, rel=0.3)


def test_a_clock_that_goes_backwards_ends_the_profile_with_a_sentence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FakeRunner.run

    def run(self: FakeRunner) -> Any:
        if self.runs == 20:
            bench.clock.wait_ms(-7000.0)
        return plain(self)

    monkeypatch.setattr(FakeRunner, "run", run)
    with pytest.raises(ResultError, match="the clock went backwards by 69"):
        bench.run()


def test_a_device_that_slows_down_after_the_warm_up_stops_in_time(bench: Bench) -> None:
    def slow(now_s: float, count: int) -> Readings:
        bench.engine.slowdown = 100.0 if count > 12 else 1.0
        return Readings()

    settings = replace(QUICK, rounds=40, block_runs=5, measure_s=10.0)
    began_s = bench.clock()
    result = bench.run(settings, FakeSensors(slow))
    assert result.method.rounds < 40
    assert any("the device was slower than in its warm-up" in note for note in result.notes)
    assert bench.clock() - began_s < 60.0


def test_quick_begins_no_round_after_its_minute_though_building_took_long(bench: Bench) -> None:
    result = bench.run(replace(QUICK, rounds=40, measure_s=600.0, blocks_end_s=1.0))
    assert result.method.rounds == 3
    assert MODES["quick"].blocks_end_s < 60.0
