"""The profile's measurements: on a clock that only moves when told, so that each number can be foretold."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_values, write_bundle
from fake_engine import FakeClock, FakeEngine, FakeRunner, tiny_bundle
from profile_results import blocks_of

from edge_runtime.bundle import Bundle
from edge_runtime.device_profile import load_profile
from edge_runtime.errors import BackendError, BundleError, ResultError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.profile_schema import HardwareFact
from edge_runtime.profiling import loading
from edge_runtime.profiling.profiler import Profiler
from edge_runtime.profiling.result import Block, ProfileResult, SustainedSample
from edge_runtime.profiling.sample_statistics import bootstrap_draws, summarise
from edge_runtime.profiling.settings import MODES, ProfileSettings, make_plan, parse_duration, parse_threads
from edge_runtime.profiling.stability import judge_all, judge_blocks, judge_sustained
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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_each_point_gets_its_own_time_and_what_follows_from_it(bench: Bench) -> None:
    result = bench.run()
    table = {point.name: point for point in bench.bundle.manifest.points}
    assert len(result.points) == len(table) == 6
    for point in result.points:
        expected_ms = table[point.name].latency_ms
        assert point.latency.p50_ms.value == pytest.approx(expected_ms, rel=1e-4)
        assert point.latency.p50_ms.low <= point.latency.p50_ms.value <= point.latency.p50_ms.high
        assert point.throughput_fps == pytest.approx(1000.0 / expected_ms, rel=1e-3)
        assert point.latency.count == 4 * 5
        assert point.accuracy == table[point.name].accuracy
    assert result.verdict.reason == "stable"
    assert result.complete


def test_blocks_of_all_points_alternate_in_an_order_that_the_seed_decides(bench: Bench) -> None:
    def order(seed: int) -> list[str]:
        result = bench.run(replace(QUICK, seed=seed))
        return [name for _, name in sorted((b.started_s, p.name) for p in result.points for b in p.latency.blocks)]

    first = order(1)
    assert first == order(1)
    assert first != order(2)
    rounds = [first[i : i + 6] for i in range(0, 24, 6)]
    assert all(len(set(names)) == 6 for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_a_run_starts_one_period_after_the_one_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []
    plain = FakeRunner.run

    def run(self: FakeRunner) -> Any:
        starts.append(bench.clock())
        return plain(self)

    monkeypatch.setattr(FakeRunner, "run", run)
    bench.run(replace(QUICK, rounds=1, block_runs=5, period_ms=50.0, points=("w1.00-r032",)))
    last_block = starts[-5:]
    assert np.diff(last_block) == pytest.approx([0.050] * 4)


def test_back_to_back_runs_do_not_wait(bench: Bench) -> None:
    began_s = bench.clock()
    bench.run(replace(QUICK, period_ms=0.0, energy_s=0.0))
    assert bench.clock() - began_s < 6 * 4.0 * (4 * 7 + 60) / 1000.0 + 0.2


def test_warm_up_goes_on_until_the_time_settles(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = FakeRunner.run

    def run(self: FakeRunner) -> Any:
        bench.clock.wait_ms(max(0.0, 20.0 - self.runs))  # a cold machine gets faster for 20 runs
        return plain(self)

    monkeypatch.setattr(FakeRunner, "run", run)
    result = bench.run(replace(QUICK, points=("w1.00-r032",)))
    assert result.points[0].latency.max_ms == pytest.approx(4.0, rel=1e-3)


def test_foreign_load_is_measured_and_named_with_its_share(bench: Bench) -> None:
    result = bench.run(sensors=FakeSensors(lambda now_s, count: Readings(foreign_load=0.48)))
    assert result.verdict.reason == "unstable: foreign load 48 %"
    assert not result.verdict.stable
    assert {point.verdict.reason for point in result.points} == {"unstable: foreign load 48 %"}
    assert result.points[0].latency.blocks[0].foreign_load == 0.48


def test_a_hot_device_cools_down_before_the_next_block(bench: Bench) -> None:
    began_s = bench.clock()

    def heat(now_s: float, count: int) -> Readings:
        return Readings(temperature_c=80.0 if now_s - began_s < 2.0 else 60.0)

    result = bench.run(sensors=FakeSensors(heat))
    assert result.method.waited_to_cool_s > 0.5
    assert min(block.started_s for point in result.points for block in point.latency.blocks) >= 2.0
    assert {block.temperature_c for point in result.points for block in point.latency.blocks} == {60.0}
    assert result.environment.temperature_start_c == 80.0
    assert result.environment.temperature_end_c == 60.0


def test_a_device_that_never_cools_is_measured_all_the_same_and_that_is_said(bench: Bench) -> None:
    result = bench.run(sensors=FakeSensors(lambda now_s, count: Readings(temperature_c=80.0)))
    assert "the device stayed hot: 5 s of waiting did not cool it" in result.notes
    assert result.method.waited_to_cool_s == 5.0
    assert result.complete


def test_a_throttled_device_is_not_called_stable(bench: Bench) -> None:
    script = lambda now_s, count: Readings(throttled=True, temperature_c=70.0)  # noqa: E731
    result = bench.run(sensors=FakeSensors(script))
    assert result.points[0].verdict.reason == "unstable: the device throttles (70 to 70 degrees)"


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


def test_a_point_that_the_engine_refuses_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(errors={"w0.50-r016": BackendError("no kernel for it")})
    result = Bench(tmp_path, monkeypatch, engine).run()
    assert "w0.50-r016" not in {point.name for point in result.points}
    assert len(result.points) == 5
    assert "w0.50-r016 left out: no kernel for it" in result.notes


def test_an_engine_that_refuses_everything_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [point.name for point in tiny_bundle(tmp_path / "names").manifest.points]
    engine = FakeEngine(errors={name: BackendError(f"{name}: no kernel") for name in names})
    with pytest.raises(BackendError, match="no kernel"):
        Bench(tmp_path, monkeypatch, engine).run()


def test_a_device_short_of_memory_measures_the_points_that_fit(bench: Bench) -> None:
    def memory(now_s: float, count: int) -> Readings:
        free = 10 << 20 if len(bench.engine.runners) >= 3 else 1 << 30
        return Readings(memory_available_bytes=free, memory_limit_bytes=1 << 30)

    result = bench.run(sensors=FakeSensors(memory))
    assert len(result.points) == 3
    assert any(note.endswith("and larger points left out: too little memory is free") for note in result.notes)


def test_only_the_points_that_are_asked_for_are_measured(bench: Bench) -> None:
    result = bench.run(replace(QUICK, points=("w1.00-r016", "w0.25-r032")))
    assert [point.name for point in result.points] == ["w0.25-r032", "w1.00-r016"]
    with pytest.raises(BundleError, match="no operating point 'w9'"):
        bench.run(replace(QUICK, points=("w9",)))


def test_a_thread_sweep_measures_every_point_at_every_count(bench: Bench) -> None:
    result = bench.run(replace(QUICK, threads=(1, 2), rounds=3))
    assert len(result.points) == 12
    assert {(p.name, p.threads) for p in result.points} == {
        (p.name, threads) for p in bench.bundle.manifest.points for threads in (1, 2)
    }
    assert [options.threads for options in bench.opened] == [1, 2]
    assert result.method.thread_pool == "one per point"
    assert not any(options.global_thread_pool for options in bench.opened)


def test_executorch_is_measured_one_number_of_threads_after_the_other() -> None:
    groups = [("executorch", 1), ("onnxruntime", 1), ("executorch", 2), ("onnxruntime", 2)]
    assert loading.stages_of(groups) == [
        [("onnxruntime", 1), ("onnxruntime", 2)],
        [("executorch", 1)],
        [("executorch", 2)],
    ]


def test_progress_never_goes_back_and_ends_near_what_was_foretold(bench: Bench) -> None:
    told: list[tuple[float, float]] = []
    bench.run(replace(QUICK, sustained_s=3.0), progress=lambda text, done_s, total_s: told.append((done_s, total_s)))
    done = [done_s for done_s, _ in told]
    assert done == sorted(done)
    assert told[-1][0] == pytest.approx(told[-1][1], rel=0.1)


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


def test_energy_is_power_times_time_where_a_sensor_knows_the_power(bench: Bench) -> None:
    readings = Readings(power_w=5.0, sources={"power_w": "/sys/class/hwmon/hwmon0/power1_input"})
    result = bench.run(replace(QUICK, energy_s=0.5), FakeSensors(lambda now_s, count: readings))
    energy = {point.name: point.energy for point in result.points}["w1.00-r032"]
    assert (energy.kind, energy.power_w) == ("measured", 5.0)
    assert energy.energy_mj == pytest.approx(5.0 * 4.0, rel=0.02)
    assert energy.source == "/sys/class/hwmon/hwmon0/power1_input"
    assert result.idle_power_w == 5.0


def test_unknown_power_is_not_zero(bench: Bench) -> None:
    energy = bench.run().points[0].energy
    assert (energy.kind, energy.energy_mj) == ("unknown", None)
    assert energy.source.startswith("not measurable here: no power sensor answers")


def test_a_battery_meter_is_too_slow_for_a_short_look(bench: Bench) -> None:
    readings = Readings(power_w=5.0, sources={"power_w": "/sys/class/power_supply/BAT0"})
    energy = bench.run(sensors=FakeSensors(lambda now_s, count: readings)).points[0].energy
    assert energy.kind == "unknown"
    assert "the battery's meter is too slow" in energy.source


def test_an_estimate_from_the_profiles_figures_is_labelled(bench: Bench) -> None:
    fact = HardwareFact("processor power", 4.0, "W", "data sheet, page 3")
    result = bench.run(profile=replace(PI, hardware=(fact,)))
    energy = {point.name: point.energy for point in result.points}["w1.00-r032"]
    assert energy.kind == "estimate"
    assert energy.energy_mj == pytest.approx(16.0, rel=1e-3)
    assert energy.source.startswith("estimate: processor power 4 W (data sheet, page 3) x mean latency")


VERDICTS: dict[str, tuple[list[float], dict[str, Any], str]] = {
    "equal blocks": ([1.0] * 9, {}, "stable"),
    "a little noise": ([1.0, 1.03, 0.98, 1.02, 1.0, 0.97], {}, "stable"),
    "one late block": ([1.0, 1.0, 1.0, 3.0, 1.0, 1.0], {}, "stable"),
    "two blocks": ([1.0, 1.0], {}, "unstable: only 12 runs in 2 blocks"),
    "slower and slower": ([1.0, 1.0, 1.1, 1.2, 1.3, 1.3], {}, "unstable: drifted by +30 % from the first blocks"),
    "faster and faster": ([1.3, 1.3, 1.2, 1.1, 1.0, 1.0], {}, "unstable: drifted by -23 % from the first blocks"),
    "scattered": ([1.0, 2.0, 1.5, 1.0, 2.0, 1.5, 1.0, 2.0, 1.5], {}, "unstable: half of the blocks differ by more"),
    "throttled": ([1.0] * 6, {"throttled": True}, "unstable: the device throttles"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_names_its_reason(name: str) -> None:
    levels, options, reason = VERDICTS[name]
    blocks = [Block(float(i), (level,) * 6) for i, level in enumerate(levels)]
    verdict = judge_blocks(blocks, **options)
    assert verdict.reason.startswith(reason)
    assert verdict.stable == (reason == "stable")


def test_the_whole_verdict_counts_the_unstable_points() -> None:
    good, bad = judge_blocks(blocks_of(1.0)), judge_blocks(blocks_of(1.0, rounds=2))
    assert judge_all([good, bad, good], blocks_of(1.0)).reason == (
        "unstable: 1 of 3 points, first: only 12 runs in 2 blocks"
    )
    assert judge_all([good, good], blocks_of(1.0)).stable


def test_a_sustained_run_beside_foreign_load_says_so() -> None:
    samples = [SustainedSample(float(i), 100, 1.0, 1.1, foreign_load=0.3) for i in range(10)]
    assert judge_sustained(samples, 10.0, 10.0).reason == "unstable: foreign load 30 %"


def test_intervals_hold_the_true_median_about_as_often_as_they_say() -> None:
    generator, held = np.random.default_rng(3), 0
    for seed in range(60):
        blocks = blocks_of(1.0, rounds=12, runs=8, noise=0.05, generator=generator)
        estimate = summarise(blocks, seed).p50_ms
        held += estimate.low <= 1.0 <= estimate.high
    assert 50 <= held <= 60  # 95 % of 60 is 57


def test_noise_of_blocks_widens_the_interval_beyond_that_of_single_runs() -> None:
    blocks = blocks_of(1.0, rounds=10, runs=20, noise=0.1)
    together = [[sample for block in blocks for sample in block.samples_ms]]
    by_block = bootstrap_draws([block.samples_ms for block in blocks], 0)[:, 1].std()
    by_run = bootstrap_draws(together, 0)[:, 1].std()
    assert by_block > 1.5 * by_run


def test_percentiles_are_runs_that_happened() -> None:
    samples = [float(n) for n in range(1, 101)]
    random.Random(0).shuffle(samples)
    latency = summarise([Block(0.0, tuple(samples))], 0)
    assert latency.p50_ms.value == statistics.median(samples)
    assert (latency.p90_ms.value, latency.p95_ms.value, latency.p99_ms.value) == (91.0, 96.0, 100.0)
    assert (latency.min_ms, latency.max_ms, latency.mean_ms.value) == (1.0, 100.0, 50.5)


def test_quick_fits_forty_points_into_its_time_and_keeps_a_minimum() -> None:
    quick = MODES["quick"]
    small = make_plan(quick, [1.0] * 20)
    assert (small.rounds, small.block_runs) == (12, 4)
    assert small.seconds < quick.measure_s
    many = make_plan(quick, [1.0] * 40)
    assert many.seconds <= quick.measure_s
    assert many.rounds < 12
    assert many.block_runs == 4
    slow = make_plan(quick, [5000.0] * 40)
    assert (slow.rounds, slow.block_runs) == (3, 4)


@pytest.mark.parametrize(
    ("text", "cores", "counts", "note"),
    [
        (None, 4, (), ""),
        ("2", 4, (2,), ""),
        ("4,1,2,2", 4, (1, 2, 4), ""),
        ("1,2,4", 2, (1, 2), "4 threads left out: this process may use 2 cores"),
        ("sweep", 1, (1,), ""),
        ("sweep", 6, (1, 2, 4, 6), ""),
    ],
)
def test_threads_as_people_write_them(text: str | None, cores: int, counts: tuple[int, ...], note: str) -> None:
    assert parse_threads(text, cores) == (counts, note)


@pytest.mark.parametrize("text", ["", "0", "x", "1,", "-1", "1.5", "99999999999999999999", "8"])
def test_threads_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ResultError, match="--threads"):
        parse_threads(text, 4)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("0.5h", 1800.0)])
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0", "nan", "infh", "-5m", "25h", "10 parsecs"])
def test_durations_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ResultError, match="expected a time from 1s to 24h"):
        parse_duration(text)


def test_the_null_backend_runs_any_bundle(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle", manifest_values()))
    settings = replace(QUICK, rounds=3, block_runs=4, period_ms=0.0, points=("w0.25-r016",))
    result = Profiler(bundle, settings, PI, FakeSensors()).run()
    assert result.points[0].operators.source == "the null backend has no operators"
    assert result.environment.python == sys.version.split()[0]
