"""Points become resident in the background: cheapest first, failures reach the loop once, nothing is left open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_engine import FakeEngine, our_threads, tiny_bundle

from edge_runtime.errors import BackendError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.residency import MEASURED_RUNS, WARM_RUNS, ResidentSet

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
def test_a_failure_in_the_background_reaches_the_loop_once(
    points: tuple[OperatingPoint, ...], error: Exception
) -> None:
    resident = ResidentSet(FakeEngine(errors={"w0.50-r016": error}), points)
    assert not resident.wait(30)
    assert resident.names == {CHEAPEST, "w0.25-r032"}
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
    resident._stop.set()  # what close does first; then the build in progress ends
    engine.release.set()
    resident.close()
    assert len(engine.runners) <= 2
    assert all(r.closed for r in engine.runners.values())
    assert resident.names == frozenset()
    resident.close()
