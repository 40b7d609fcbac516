"""The profile's measurements: on a clock that only moves when told, so that each number can be foretold."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_values, write_bundle
from fake_engine import FakeEngine, FakeRunner, tiny_bundle
from profile_bench import PI, QUICK, Bench, FakeSensors

from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, BundleError
from edge_runtime.profile_schema import HardwareFact
from edge_runtime.profiling import loading
from edge_runtime.profiling.blocks import BlockMeter, Entry
from edge_runtime.profiling.profiler import Profiler
from edge_runtime.profiling.result_records import Load, Memory
from edge_runtime.readings import Readings


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


def test_a_block_has_its_own_yardsticks_and_the_run_does_not_hold_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowMemory:
        def __iadd__(self, other: float) -> SlowMemory:
            bench.clock.wait_ms(2.0)
            return self

    meter = BlockMeter(
        bench.bundle.spec, FakeSensors(), 50.0, bench.clock, lambda s: bench.clock.wait_ms(1000.0 * s)
    )  # fmt: skip
    monkeypatch.setattr(meter, "_elsewhere", SlowMemory())
    monkeypatch.setattr(np, "matmul", lambda a, b, out: bench.clock.wait_ms(5.0))
    point = bench.bundle.manifest.points[0]
    entry = Entry(point, "onnxruntime", "fp32", 1, bench.engine.load(point), Load(), Memory())
    meter.measure(entry, 3)
    (block,) = entry.blocks
    assert (block.arithmetic_ms, block.memory_ms) == (pytest.approx(5.0), pytest.approx(2.0))
    assert block.samples_ms == pytest.approx([point.latency_ms] * 3, rel=1e-4)


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


def test_the_null_backend_runs_any_bundle(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle", manifest_values()))
    settings = replace(QUICK, rounds=3, block_runs=4, period_ms=0.0, points=("w0.25-r016",))
    result = Profiler(bundle, settings, PI, FakeSensors()).run()
    assert result.points[0].operators.source == "the null backend has no operators"
    assert result.environment.python == sys.version.split()[0]
