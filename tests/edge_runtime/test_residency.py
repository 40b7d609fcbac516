"""Points become resident in the background, within a limit; frames never wait, failures reach the loop once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, FakeRunner, our_threads, tiny_bundle

from edge_runtime.errors import BackendError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.residency import MEASURED_RUNS, PREFER_FRAMES, WARM_RUNS, ResidentSet

CHEAPEST = "w0.25-r016"


@pytest.fixture
def points(tmp_path: Path) -> tuple[OperatingPoint, ...]:
    return tuple(reversed(tiny_bundle(tmp_path).manifest.points))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert our_threads() == set()


def test_the_cheapest_point_is_ready_at_once_and_runs_while_the_others_are_built(
    points: tuple[OperatingPoint, ...],
) -> None:
    engine = FakeEngine(held=True)
    resident = ResidentSet(engine, points)
    assert resident.names == {CHEAPEST}
    assert not resident.ready
    assert engine.building.wait(30)
    resident.runner(CHEAPEST).run()
    assert not resident.wait(0.0)
    engine.release.set()
    assert resident.wait(30)
    assert resident.ready
    assert resident.names == {p.name for p in points}
    assert list(engine.runners) == [p.name for p in sorted(points, key=lambda p: p.madds)]
    resident.close()


def test_points_are_built_outside_the_callers_thread_and_warmed_before_they_may_be_chosen(
    points: tuple[OperatingPoint, ...],
) -> None:
    engine = FakeEngine()
    resident = ResidentSet(engine, points)
    resident.wait(30)
    assert {t for n, t in engine.build_threads.items() if n != CHEAPEST} == {"edge-runtime-residency"}
    assert {r.runs for r in engine.runners.values()} == {WARM_RUNS + MEASURED_RUNS}
    resident.close()


def test_the_first_warm_runs_are_measured(points: tuple[OperatingPoint, ...]) -> None:
    engine = FakeEngine()
    resident = ResidentSet(engine, points[-1:], clock=engine.clock)
    assert resident.measured_ms == {CHEAPEST: pytest.approx(0.5)}
    resident.close()


def test_a_time_of_zero_is_never_measured(points: tuple[OperatingPoint, ...]) -> None:
    resident = ResidentSet(FakeEngine(), points, clock=lambda: 1.0)
    resident.wait(30)
    assert set(resident.measured_ms.values()) == {1e-3}
    resident.close()


@pytest.mark.parametrize("error", [BackendError("refused"), ValueError("surprise"), MemoryError()])
def test_a_failure_in_the_background_reaches_the_loop_once_and_the_other_points_are_built(
    points: tuple[OperatingPoint, ...], error: Exception
) -> None:
    resident = ResidentSet(FakeEngine(errors={"w0.50-r016": error}), points)
    assert not resident.wait(30)
    assert not resident.ready
    assert resident.names == {p.name for p in points} - {"w0.50-r016"}
    assert resident.holdable == resident.names
    with pytest.raises(BackendError, match=r"refused|w0\.50-r016: cannot be made resident"):
        resident.raise_failure()
    resident.raise_failure()  # told already
    resident.close()


def test_a_cheapest_point_that_fails_is_told_at_once(points: tuple[OperatingPoint, ...]) -> None:
    with pytest.raises(BackendError, match="refused"):
        ResidentSet(FakeEngine(errors={CHEAPEST: BackendError("refused")}), points)


def test_a_runner_that_fails_while_it_is_warmed_is_released(points: tuple[OperatingPoint, ...]) -> None:
    engine = FakeEngine()
    engine.run_error = BackendError("refused")
    with pytest.raises(BackendError, match="refused"):
        ResidentSet(engine, points)
    assert engine.runners[CHEAPEST].closed


def test_a_point_can_be_added_out_of_order_and_is_built_once(points: tuple[OperatingPoint, ...]) -> None:
    engine = FakeEngine()
    resident = ResidentSet(engine, points)
    resident.add(points[0])
    first = engine.runners[points[0].name]
    resident.add(points[0])
    resident.wait(30)
    assert resident.runner(points[0].name) is first
    assert resident.ready
    resident.close()


def test_closing_stops_the_building_and_releases_every_runner(points: tuple[OperatingPoint, ...]) -> None:
    engine = FakeEngine(held=True)
    resident = ResidentSet(engine, points)
    assert engine.building.wait(30)
    resident._stopping = True  # what close does first; then the build in progress ends
    engine.release.set()
    resident.close()
    assert len(engine.runners) <= 2
    assert all(r.closed for r in engine.runners.values())
    assert resident.names == frozenset()
    resident.close()


class SizedEngine(FakeEngine):
    """Knows what its points take: their cost in quarters of a millisecond, 2 to 16 bytes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.built: list[str] = []
        self.settled = 0

    def memory_bytes(self, point: OperatingPoint) -> int:
        return round((point.latency_ms or 0.0) * 4)

    def load(self, point: OperatingPoint) -> FakeRunner:
        runner = super().load(point)
        self.built.append(point.name)
        return runner

    def settle(self) -> None:
        self.settled += 1

    @property
    def open_bytes(self) -> int:
        sizes = {point: round(runner._point.latency_ms * 4) for point, runner in self.runners.items()}
        return sum(size for point, size in sizes.items() if not self.runners[point].closed)


# cheapest first, as madds say: 2, 4, 4, 8, 8 and 16 bytes
LADDER = ("w0.25-r016", "w0.25-r032", "w0.50-r016", "w0.50-r032", "w1.00-r016", "w1.00-r032")


def frame(resident: ResidentSet, point: str | None, wanted: str | None = None) -> None:
    resident.begin_frame()
    resident.end_frame(point, wanted)


def test_points_are_held_as_they_fit_one_and_a_half_of_the_largest(points: tuple[OperatingPoint, ...]) -> None:
    engine = SizedEngine()
    resident = ResidentSet(engine, points)
    assert resident.limit_bytes == 24
    assert resident.wait(30)
    assert resident.ready
    assert resident.names == set(LADDER[:4])  # 18 bytes; the next one would make it 26
    assert engine.open_bytes <= 24
    assert engine.settled == 1
    resident.close()


def test_all_points_can_be_held(points: tuple[OperatingPoint, ...]) -> None:
    resident = ResidentSet(SizedEngine(), points, limit_bytes="all")
    resident.wait(30)
    assert resident.names == set(LADDER)
    assert resident.limit_bytes is None
    resident.close()


def test_neighbours_of_the_point_in_use_are_built_and_the_farthest_is_released(
    points: tuple[OperatingPoint, ...],
) -> None:
    engine = SizedEngine()
    resident = ResidentSet(engine, points, limit_bytes=22)
    resident.wait(30)
    assert resident.names == set(LADDER[:4])
    frame(resident, "w0.50-r032")
    assert resident.wait(30)
    assert resident.names == {"w0.25-r016", "w0.50-r016", "w0.50-r032", "w1.00-r016"}
    assert engine.runners["w0.25-r032"].closed
    resident.close()


def test_a_released_point_keeps_its_measured_latency(points: tuple[OperatingPoint, ...]) -> None:
    resident = ResidentSet(SizedEngine(), points, limit_bytes="all")
    resident.wait(30)
    measured = resident.measured_ms
    resident.set_limit(4)
    resident.wait(30)
    assert resident.names == {CHEAPEST}
    assert resident.measured_ms == measured
    assert set(measured) == set(LADDER)
    resident.close()


def test_a_point_that_is_wanted_for_some_frames_is_built_next(points: tuple[OperatingPoint, ...]) -> None:
    engine = SizedEngine()
    resident = ResidentSet(engine, points)
    resident.wait(30)
    for _ in range(PREFER_FRAMES - 1):
        frame(resident, CHEAPEST, "w1.00-r032")
    frame(resident, CHEAPEST, None)  # the wish went away
    assert resident.wait(30)
    assert "w1.00-r032" not in resident.names
    for _ in range(PREFER_FRAMES):
        frame(resident, CHEAPEST, "w1.00-r032")
    assert resident.wait(30)
    assert resident.names == {"w0.25-r016", "w1.00-r032", "w0.25-r032"}
    assert engine.open_bytes <= 24
    resident.close()


def test_prefer_counts_at_once(points: tuple[OperatingPoint, ...]) -> None:
    resident = ResidentSet(SizedEngine(), points)
    resident.prefer("w1.00-r032")
    assert resident.wait(30)
    assert "w1.00-r032" in resident.names
    resident.close()


def test_a_point_is_not_released_while_a_frame_that_may_use_it_is_under_way(
    points: tuple[OperatingPoint, ...],
) -> None:
    engine = SizedEngine()
    resident = ResidentSet(engine, points)
    resident.wait(30)
    resident.begin_frame()
    chosen = next(n for n in resident.names if n != CHEAPEST)
    resident.set_limit(0)
    assert not resident.wait(0.05)  # the background waits for the frame, not the frame for the background
    resident.runner(chosen).run()
    resident.end_frame(CHEAPEST)
    assert resident.wait(30)
    assert engine.runners[chosen].closed
    assert resident.names == {CHEAPEST}
    resident.close()


def test_frames_go_on_while_a_point_is_built(points: tuple[OperatingPoint, ...]) -> None:
    engine = SizedEngine(held=True)
    resident = ResidentSet(engine, points)
    assert engine.building.wait(30)
    for _ in range(3):
        frame(resident, CHEAPEST)
        assert resident.names == {CHEAPEST}
    engine.release.set()
    assert resident.wait(30)
    resident.close()


def test_a_point_that_is_added_takes_the_place_of_others(points: tuple[OperatingPoint, ...]) -> None:
    engine = SizedEngine()
    resident = ResidentSet(engine, points)
    resident.wait(30)
    resident.add(points[0])
    assert points[0].name == "w1.00-r032"
    assert "w1.00-r032" in resident.names
    assert engine.open_bytes <= 24
    resident.wait(30)
    assert "w1.00-r032" in resident.names
    assert engine.open_bytes <= 24
    resident.close()


def test_many_frames_and_releases_at_once_never_meet_a_closed_runner(points: tuple[OperatingPoint, ...]) -> None:
    resident = ResidentSet(SizedEngine(), points)
    for turn in range(300):
        resident.begin_frame()
        name = sorted(resident.names)[turn % len(resident.names)]
        resident.runner(name).run()  # fails when it is closed
        resident.end_frame(name, LADDER[turn // 20 % len(LADDER)])
        if turn % 10 == 0:
            resident.set_limit((24, 10, 40)[turn // 10 % 3])
    resident.close()
