"""The road of a frame: the order of its steps, whose time counts, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeClock, FakeEngine, tiny_bundle

from edge_runtime import pipeline as pipeline_module
from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, LadderPoint
from edge_runtime.frame import Frame
from edge_runtime.pipeline import Pipeline
from edge_runtime.preprocess import preprocess
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.residency import ResidentSet

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


class Road:
    """A pipeline over the tiny bundle with every point resident."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock)
        self.bundle = tiny_bundle(folder)
        points = self.bundle.manifest.points
        self.resident = ResidentSet(self.engine, points, clock=lambda: 0.0)
        assert self.resident.wait(30)
        self.controller = Controller([LadderPoint(p.name, p.accuracy["select"], p.latency_ms or 0) for p in points])
        self.pipeline = Pipeline(self.bundle, self.resident, self.controller, self.clock)


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    made = Road(tmp_path)
    yield made
    made.resident.close()


def test_the_chosen_points_runner_gets_the_picture_at_its_own_size(road: Road) -> None:
    result = road.pipeline.process(Frame(PIXELS), Budget(100.0), UNKNOWN)
    assert result.decision.point == "w1.00-r032"
    np.testing.assert_array_equal(
        road.engine.runners["w1.00-r032"].input, preprocess(PIXELS, road.bundle.spec, (32, 32))
    )
    small = road.pipeline.process(Frame(PIXELS), Budget(0.8), UNKNOWN)
    assert small.decision.point == "w0.25-r016"
    np.testing.assert_array_equal(
        road.engine.runners["w0.25-r016"].input, preprocess(PIXELS, road.bundle.spec, (16, 16))
    )


def test_a_files_frame_counts_from_the_start_of_processing(road: Road) -> None:
    result = road.pipeline.process(Frame(PIXELS, captured_s=road.clock() - 9.0), Budget(6.0), UNKNOWN)
    assert result.decision.point == "w1.00-r032"
    assert result.run_ms == pytest.approx(4.0)
    assert result.latency_ms == pytest.approx(4.0)
    assert result.on_time


def test_a_live_frames_age_counts(road: Road) -> None:
    frame = Frame(PIXELS, captured_s=road.clock() - 0.0035)
    result = road.pipeline.process(frame, Budget(5.5), UNKNOWN, live=True, dropped=7)
    assert result.decision.point == "w0.50-r016"  # 1 ms fits the 1.7 ms that are left, 2 ms would not
    assert result.latency_ms == pytest.approx(4.5)
    assert result.on_time
    assert result.dropped == 7


def test_a_frame_from_the_future_is_of_no_negative_age(road: Road) -> None:
    result = road.pipeline.process(Frame(PIXELS, captured_s=road.clock() + 5.0), Budget(9.0), UNKNOWN, live=True)
    assert result.latency_ms == pytest.approx(4.0)


def test_a_late_answer_says_so_and_the_controller_learns(road: Road) -> None:
    road.engine.slowdown = 3.0
    late, cautious, after = (road.pipeline.process(Frame(PIXELS), Budget(6.0), UNKNOWN) for _ in range(3))
    assert not late.on_time
    assert late.latency_ms == pytest.approx(12.0)
    assert late.deadline_ms == 6.0
    assert late.late_because == "compute"
    assert cautious.decision.switched
    assert cautious.decision.reason == "step down: a late frame may stay"
    assert cautious.on_time
    assert cautious.late_because is None
    assert after.decision.slowdown == pytest.approx(3.0)
    assert after.on_time


def test_a_late_frame_names_the_part_that_took_the_most(road: Road) -> None:
    old = Frame(PIXELS, captured_s=road.clock() - 0.5, decode_ms=10.0)
    assert road.pipeline.process(old, Budget(6.0), UNKNOWN, live=True).late_because == "source"
    old = Frame(PIXELS, captured_s=road.clock() - 0.5, decode_ms=490.0)
    assert road.pipeline.process(old, Budget(6.0), UNKNOWN, live=True).late_because == "decode"
    old = Frame(PIXELS, captured_s=road.clock() - 0.5)
    assert road.pipeline.process(old, Budget(6.0), UNKNOWN, live=True, sink_ms=499.0).late_because == "sink"
    road.engine.slowdown = 1000.0
    hot = Readings(throttled=True)
    assert road.pipeline.process(Frame(PIXELS), Budget(6.0), hot).late_because == "throttled"


def test_time_beside_the_engine_is_kept_apart_and_taken_from_the_deadline(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_preprocess(*args: object, **options: object) -> np.ndarray:
        road.clock.wait_ms(3.0)
        return preprocess(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline_module, "preprocess", slow_preprocess)
    results = [road.pipeline.process(Frame(PIXELS), Budget(6.0), UNKNOWN) for _ in range(60)]
    assert results[0].preprocess_ms == pytest.approx(3.0)
    assert results[0].run_ms == pytest.approx(4.0)
    assert results[0].latency_ms == pytest.approx(7.0)
    assert results[-1].decision.slowdown == pytest.approx(1.0, abs=0.01)  # not the engine's fault
    assert results[-1].on_time


def test_outputs_are_the_results_own(road: Road) -> None:
    first = road.pipeline.process(Frame(PIXELS), Budget(100.0), UNKNOWN)
    road.engine.answer = 2
    second = road.pipeline.process(Frame(PIXELS), Budget(100.0), UNKNOWN)
    assert first.answer.label == "cup"
    assert second.answer.label == "tree"
    np.testing.assert_array_equal(first.outputs[0], [[5.0, 0.0, 0.0]])
    np.testing.assert_array_equal(second.outputs[0], [[0.0, 0.0, 5.0]])
