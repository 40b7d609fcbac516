"""Traces come from their seed, small files keep them, and what is rebuilt from a measurement holds that measurement."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_worlds import POINTS, STILL, small_trace

from benchmarks.contention import LOADS, _bursts
from benchmarks.counterfactual import estimated_over_measured, rebuild
from benchmarks.frame_loop import FrameRow
from benchmarks.noise_model import fit_noise
from benchmarks.thermal_board import Ambient, Board, ThermalWorld
from benchmarks.traces import FOLDER, load_trace, save_trace
from benchmarks.traces_generated import KINDS, generate

NOISE = {"quiet": STILL, "loaded": STILL}


def row(index: int, point: str, run_ms: float, cpu_ms: float, interruptions: int = 0) -> FrameRow:
    return FrameRow(index, point, 0.1, True, 1.0, run_ms, cpu_ms, interruptions, run_ms + 1.1, True, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_trace_depends_on_its_seed_alone(kind: str) -> None:
    first, again, other = (generate(kind, seed, length_s=6.0, points=POINTS) for seed in (3, 3, 4))
    assert np.array_equal(first.latency_ms, again.latency_ms)
    assert first.budgets == again.budgets
    assert not np.array_equal(first.latency_ms, other.latency_ms)
    assert first.latency_ms.shape == (180, 3)
    assert np.all(first.latency_ms > 0)
    assert np.isfinite(first.latency_ms).all()


def test_without_noise_a_stationary_trace_is_the_quiet_table() -> None:
    trace = generate("stationary", 0, length_s=2.0, points=POINTS, noise=NOISE)
    assert np.median(trace.latency_ms, axis=0) == pytest.approx([4.0, 10.0, 20.0], rel=0.01)
    assert trace.budgets[0][1].deadline_ms == pytest.approx(1.1 * 20.0, rel=0.04)


def test_the_frequency_cap_slows_the_middle_third_by_its_factor() -> None:
    trace = generate("frequency cap", 0, length_s=3.0, points=POINTS, noise=NOISE)
    middle, calm = trace.latency_ms[35:55].mean(axis=0), trace.latency_ms[:25].mean(axis=0)
    assert middle / calm == pytest.approx(np.full(3, 1 / 0.6), rel=0.02)


def test_a_shorter_point_is_never_slower_than_a_longer_one_under_interruptions() -> None:
    trace = generate("step", 1, length_s=9.0, points=POINTS)
    ordered = np.diff(trace.latency_ms, axis=1) > 0
    assert ordered.mean() > 0.999  # a point's own jitter is 1 %, the points are far apart


def test_a_saved_trace_comes_back_to_half_precision(tmp_path: Path) -> None:
    trace = small_trace(marks=((1.0, "load on"),), facts={"seed": 1})
    trace = trace.with_deadline(30.0, lambda at_s: 0.5 if at_s > 1.0 else 1.0)
    save_trace(tmp_path / "a.npz", trace)
    back = load_trace(tmp_path / "a.npz")
    assert back.latency_ms == pytest.approx(trace.latency_ms, rel=1e-3)
    assert (back.points, back.marks, back.fps, back.facts) == (trace.points, trace.marks, trace.fps, trace.facts)
    assert back.budgets == trace.budgets


def test_committed_recordings_are_small_and_readable() -> None:
    paths = sorted(FOLDER.glob("*.npz"))
    assert paths
    for path in paths:
        assert path.stat().st_size < 200_000, path.name
        trace = load_trace(path)
        assert trace.latency_ms.shape == (trace.frames, len(trace.points))
        assert np.isfinite(trace.latency_ms).all()
        assert (trace.latency_ms > 0).all()


def test_a_rebuilt_frame_holds_what_was_measured_and_scales_the_rest() -> None:
    rows = [row(0, "middle", 12.0, 12.0), row(1, "large", 50.0, 20.0, 3), row(3, "small", 4.0, 4.0)]
    trace = rebuild(
        "t",
        30.0,
        4,
        POINTS,
        rows,
        slept_through={2: 70.0},
        phase_of=np.zeros(4, np.float32),
        seed=0,
        learn_effects=False,
    )
    assert trace.latency_ms[0] == pytest.approx([4.8, 12.0, 24.0])  # the frame was 20 % slow
    assert trace.latency_ms[1, 2] == pytest.approx(50.0)  # as measured
    # three interruptions of 10 ms each hit a shorter point as often or less
    assert set(np.round(trace.latency_ms[1, :2] - [4.0, 10.0])) <= {0.0, 10.0, 20.0, 30.0}
    assert trace.latency_ms[1, 0] <= trace.latency_ms[1, 1] <= 50.0
    assert trace.wake_ms[2] == pytest.approx(70.0)  # nobody could have answered it


def test_effects_are_learned_where_all_points_are_measured() -> None:
    # the large point suffers half as much again; small and middle not at all
    rows = [
        row(i, POINTS[i % 3].name, t := POINTS[i % 3].quiet_ms * (1.5 if i % 3 == 2 else 1.0), t) for i in range(30)
    ]
    trace = rebuild(
        "t", 30.0, 30, POINTS, rows, slept_through={}, phase_of=np.zeros(30, np.float32), seed=0, learn_effects=True
    )
    assert trace.latency_ms == pytest.approx(np.tile([4.0, 10.0, 30.0], (30, 1)))


def test_estimates_are_held_against_measurements() -> None:
    rows = [row(i, POINTS[i % 3].name, 1.5 * POINTS[i % 3].quiet_ms, 1.5 * POINTS[i % 3].quiet_ms) for i in range(30)]
    arguments = {"slept_through": {}, "phase_of": np.zeros(30, np.float32), "seed": 0, "learn_effects": False}
    trace = rebuild("t", 30.0, 30, POINTS, rows, **arguments)
    assert set(estimated_over_measured(trace, rows).values()) == {1.0}
    # a large point that suffers twice as much as the others is estimated too low from their frames
    rows = [replace(r, run_ms=2 * r.run_ms, cpu_ms=2 * r.cpu_ms) if r.point == "large" else r for r in rows]
    found = estimated_over_measured(rebuild("t", 30.0, 30, POINTS, rows, **arguments), rows)
    assert found["p50_worst_point"] < 0.8


def test_the_noise_model_finds_the_interruptions_that_were_there() -> None:
    rows = [row(i, "middle", 13.0 if i % 4 == 0 else 10.0, 10.0, int(i % 4 == 0)) for i in range(400)]
    noise = fit_noise([("stationary", rows, np.zeros(400, np.float32))], POINTS)["quiet"]
    assert noise["interruptions_per_ms"] == pytest.approx(100 / 4000)
    assert noise["off_core_ms"] == pytest.approx([3.0] * len(noise["off_core_ms"]))
    assert noise["cpu_ratio"] == pytest.approx(1.0)


def test_a_board_that_computes_all_the_time_throttles_and_recovers_when_idle() -> None:
    trace = small_trace(frames=30 * 300)
    world = ThermalWorld(trace, Board(time_constant_s=20.0), Ambient(25.0, 25.0))
    idle_c = world.temperature_c
    for second in range(100):
        world.spend(second, second + 1.0, 1000.0)
    assert world.temperature_c == pytest.approx(80.0, abs=3.0)
    assert world.speed < 1.0
    assert world.frame(3000, 100.0).latency_ms[2] == pytest.approx(20.0 / world.speed)
    world.frame(9000 - 1, 299.0)
    assert world.temperature_c == pytest.approx(idle_c, abs=0.1)
    assert world.speed == 1.0


def test_scripts_of_contention_switch_where_they_say() -> None:
    level = LOADS["step"].script(9.0, random.Random(0))
    assert [level(t) for t in (2.9, 3.1, 5.9, 6.1)] == [0.0, 1.0, 1.0, 0.0]
    saw = LOADS["sawtooth"].script(9.0, random.Random(0))
    assert [saw(t) for t in (0.0, 1.5, 2.9999)] == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)
    bursts = _bursts(60.0, random.Random(0))
    share = sum(bursts(i / 100) for i in range(6000)) / 6000
    assert share == pytest.approx(0.4 / 1.2, abs=0.12)
    assert bursts(0.0) == 0.0
