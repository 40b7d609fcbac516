"""The runtime as an application sees it: frames in, answers out, pins, callbacks, telemetry, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_values, write_bundle
from fake_engine import FakeClock, FakeEngine, our_threads, tiny_bundle

import edge_runtime.runtime as runtime_module
from edge_runtime import Budget, Bundle, Decision, Frame, Runtime
from edge_runtime.backends.null import NullBackend
from edge_runtime.errors import BackendError, BundleError, FrameError, ProfileError, SinkError, StreamBroken
from edge_runtime.readings import UNKNOWN
from edge_runtime.sensor_loop import NoSensors
from edge_runtime.telemetry import TelemetryFile

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
Maker = Callable[..., Runtime]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert our_threads() == set()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    """Makes runtimes on a fake engine and clock, and closes them."""
    made: list[Runtime] = []

    def maker(engine: FakeEngine | None = None, **options: Any) -> Runtime:
        engine = engine or FakeEngine()
        bundle = tiny_bundle(tmp_path / str(len(made)))
        options = {"budget": Budget(100.0), "sensors": NoSensors(), "clock": engine.clock, **options}
        made.append(Runtime(bundle, engine, bundle.manifest.points, **options))
        return made[-1]

    yield maker
    for runtime in made:
        runtime.close()


class ListSource:
    """Frames from a list; then the end, or an error."""

    name, dropped = "list", 3

    def __init__(self, clock: FakeClock, count: int, *, live: bool = False, error: Exception | None = None) -> None:
        self.clock, self.count, self.live, self.error = clock, count, live, error

    def frames(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield Frame(PIXELS, index, self.clock() - 0.05)
        if self.error is not None:
            raise self.error


def test_pictures_are_answered_and_numbered(make: Maker) -> None:
    runtime = make()
    assert runtime.wait_ready(30)
    results = [runtime.infer(PIXELS) for _ in range(3)]
    assert [r.frame.index for r in results] == [0, 1, 2]
    assert {r.answer.label for r in results} == {"cup"}
    assert runtime.labels == ("cup", "dog", "tree")
    assert results[-1].decision.point == "w1.00-r032"


def test_frames_are_answered_before_all_points_are_resident(make: Maker) -> None:
    engine = FakeEngine(held=True)
    runtime = make(engine)
    assert not runtime.ready
    assert {runtime.infer(PIXELS).decision.point for _ in range(5)} == {"w0.25-r016"}
    engine.release.set()
    assert runtime.wait_ready(30)
    runtime.infer(PIXELS)
    engine.clock.wait_ms(600)  # the dwell time
    assert runtime.infer(PIXELS).decision.point == "w1.00-r032"


def test_the_query_table_is_the_devices_own_once_all_is_measured(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make(FakeEngine(held=True))
    before = {p.name: runtime.latency_ms(p.name) for p in runtime.points}
    guesses = {p.name: p.latency_ms for p in runtime.points}
    ratio = before["w0.25-r016"] / guesses["w0.25-r016"]
    assert before == pytest.approx({n: g * ratio for n, g in guesses.items()})  # the bundle's figures, scaled
    runtime._backend.release.set()  # type: ignore[attr-defined]
    assert runtime.wait_ready(30)
    runtime.infer(PIXELS)
    assert {p.name: runtime.latency_ms(p.name) for p in runtime.points} == runtime._resident.measured_ms


def test_a_point_that_cannot_be_built_is_told_once_and_the_run_can_go_on(make: Maker) -> None:
    runtime = make(FakeEngine(errors={"w0.50-r016": BackendError("w0.50-r016: refused")}))
    with pytest.raises(BackendError, match="refused"):
        runtime.wait_ready(30)
    assert runtime.infer(PIXELS).decision.point == "w1.00-r032"  # built after the one that failed


def test_a_background_failure_reaches_the_frame_loop(make: Maker) -> None:
    runtime = make(FakeEngine(errors={"w0.50-r016": BackendError("w0.50-r016: refused")}))
    runtime._resident.wait(30)
    with pytest.raises(BackendError, match="refused"):
        runtime.infer(PIXELS)
    runtime.infer(PIXELS)


def test_an_engine_that_fails_on_a_frame_is_told_and_the_next_frame_may_work(make: Maker) -> None:
    engine = FakeEngine()
    runtime = make(engine)
    runtime.wait_ready(30)
    engine.run_error = BackendError("device lost")
    with pytest.raises(BackendError, match="device lost"):
        runtime.infer(PIXELS)
    engine.run_error = None
    assert runtime.infer(PIXELS).answer.label == "cup"


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), "u1")]
)
def test_what_is_no_picture_is_refused(make: Maker, bad: np.ndarray) -> None:
    with pytest.raises(FrameError, match=r"frame 0: pixels are .*expected uint8 \(H, W, 3\) RGB"):
        make().infer(bad)


def test_a_pinned_point_is_built_if_needed_and_held(make: Maker) -> None:
    engine = FakeEngine(held=True)
    runtime = make(engine, budget=Budget(0.1))
    engine.release.set()  # so that pin gets its turn
    runtime.pin("w1.00-r016")
    assert runtime.pinned == "w1.00-r016"
    assert {runtime.infer(PIXELS).decision.point for _ in range(5)} == {"w1.00-r016"}
    runtime.unpin()
    assert runtime.pinned is None
    assert runtime.infer(PIXELS).decision.point == "w0.25-r016"


def test_pinning_a_point_that_is_not_there_names_those_that_are(make: Maker) -> None:
    with pytest.raises(BundleError, match=r"no operating point 'w9'; choose one of w0\.25-r016, w0\.25-r032"):
        make().pin("w9")


def test_callbacks_get_the_old_and_the_new_decision_of_each_switch(make: Maker) -> None:
    runtime = make()
    runtime.wait_ready(30)
    seen: list[tuple[Decision, Decision]] = []
    runtime.on_switch(lambda old, new: seen.append((old, new)))
    first = runtime.infer(PIXELS)
    assert seen == []
    runtime.infer(PIXELS)
    runtime.budget = Budget(0.9)
    second = runtime.infer(PIXELS)
    runtime.infer(PIXELS)
    assert [(old.point, new) for old, new in seen] == [(first.decision.point, second.decision)]


def test_a_callback_that_fails_does_not_confuse_the_next_switch(make: Maker) -> None:
    runtime = make()
    runtime.wait_ready(30)
    pairs: list[tuple[str, str]] = []

    def callback(old: Decision, new: Decision) -> None:
        pairs.append((old.point, new.point))
        if len(pairs) == 1:
            raise KeyError("mine")

    runtime.on_switch(callback)
    for point in ("w0.25-r016", "w0.50-r016", "w1.00-r016"):
        runtime.pin(point)
        try:
            runtime.infer(PIXELS)
        except KeyError:
            continue
    assert pairs == [("w0.25-r016", "w0.50-r016"), ("w0.50-r016", "w1.00-r016")]


@pytest.mark.parametrize(("live", "latency_ms"), [(False, 4.0), (True, 54.0)])
def test_a_stream_counts_age_only_where_frames_wait(make: Maker, live: bool, latency_ms: float) -> None:
    runtime = make()
    runtime.wait_ready(30)
    runtime.pin("w1.00-r032")
    results = list(runtime.stream(ListSource(runtime._clock, 2, live=live)))  # type: ignore[arg-type]
    assert [r.frame.index for r in results] == [0, 1]
    assert results[1].latency_ms == pytest.approx(latency_ms)
    assert results[1].dropped == 3


def test_a_stream_that_breaks_gives_its_frames_first(make: Maker) -> None:
    runtime = make()
    source = ListSource(runtime._clock, 2, error=StreamBroken("camera is gone"))  # type: ignore[arg-type]
    seen = []
    with pytest.raises(StreamBroken, match="camera is gone"):
        seen.extend(r.frame.index for r in runtime.stream(source))
    stream = runtime.stream(source)
    assert [next(stream).frame.index, next(stream).frame.index] == [0, 1]


def test_closing_releases_everything_and_may_be_repeated(tmp_path: Path) -> None:
    engine, bundle = FakeEngine(), tiny_bundle(tmp_path)
    with Runtime(bundle, engine, bundle.manifest.points, budget=Budget(), sensors=NoSensors()) as runtime:
        assert our_threads() >= {"edge-runtime-sensors"}
        runtime.wait_ready(30)
    assert our_threads() == set()
    assert engine.closed
    assert all(r.closed for r in engine.runners.values())
    runtime.close()


def test_telemetry_has_a_start_a_line_per_frame_and_an_end(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "t.jsonl"
    runtime = make(telemetry=TelemetryFile(path))
    runtime.wait_ready(30)
    runtime.infer(PIXELS)
    runtime.pin("w0.25-r016")
    runtime.infer(PIXELS)
    runtime.close()
    start, *lines, end = (json.loads(line) for line in path.read_text().splitlines())
    frames = [line for line in lines if line["event"] == "frame"]
    assert (start["event"], start["schema_version"], start["bundle"], start["backend"]) == ("start", 3, "tiny", "fake")
    assert start["policy"] == "ours"
    assert [p["name"] for p in start["points"]] == [p.name for p in runtime.points]
    assert [line["event"] for line in lines] == ["table", "budget", "readings", "resident", "frame", "pin", "frame"]
    assert [(f["event"], f["index"], f["point"]) for f in frames] == [
        ("frame", 0, "w1.00-r032"), ("frame", 1, "w0.25-r016")
    ]  # fmt: skip
    assert end == {"event": "end", "frames": 2, "switches": 1}


# Runtime.load


def test_load_opens_a_folder_with_the_null_backend(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    with Runtime.load(root, budget=Budget(1000.0)) as runtime:
        runtime.wait_ready(30)
        assert runtime.infer(PIXELS).answer.label in runtime.labels
        assert runtime.readings != UNKNOWN  # this machine's own sensors


def test_without_adaptation_the_most_accurate_point_is_used_from_the_first_frame(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle"))
    with Runtime.load(bundle, budget=Budget(0.01), adapt=False, sensors=NoSensors()) as runtime:
        assert {runtime.infer(PIXELS).decision.point for _ in range(3)} == {"w1.00-r032"}


def test_an_unwritable_telemetry_path_is_refused_before_anything_starts(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    with pytest.raises(SinkError, match="telemetry cannot be written: Is a directory; choose another path"):
        Runtime.load(root, telemetry=tmp_path, sensors=NoSensors())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backend": "onnxruntime"}, BundleError), ({"backend": "magic"}, BundleError),
        ({"precision": "int8", "backend": "onnxruntime"}, BundleError), ({"profile": "toaster"}, ProfileError),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_met_is_refused(tmp_path: Path, options: dict[str, str], error: type) -> None:
    with pytest.raises(error):
        Runtime.load(write_bundle(tmp_path / "a.bundle"), sensors=NoSensors(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["w0.25-r016", "w1.00-r032"])
def test_a_load_that_fails_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    engine = FakeEngine(errors={broken: BackendError("refused")})
    files: list[TelemetryFile] = []

    class Recorded(TelemetryFile):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            files.append(self)

    monkeypatch.setattr(runtime_module, "open_backend", lambda *args: engine)
    monkeypatch.setattr(runtime_module, "TelemetryFile", Recorded)
    with pytest.raises(BackendError, match="refused"):
        Runtime.load(
            write_bundle(tmp_path / "a.bundle"), adapt=False, sensors=NoSensors(), telemetry=tmp_path / "t.jsonl"
        )
    assert engine.closed
    assert all(r.closed for r in engine.runners.values())
    assert files[0]._stream is None


def test_a_bundle_with_one_point_is_ready_at_once(tmp_path: Path) -> None:
    values = manifest_values(points=manifest_values()["points"][:1])
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle", values))
    for _ in range(20):  # the background thread ends before the constructor does, now and then
        engine = NullBackend(bundle, wait=lambda point: None)
        with Runtime(bundle, engine, bundle.manifest.points, budget=Budget(), sensors=NoSensors()) as runtime:
            assert runtime.wait_ready(30)
            runtime.infer(PIXELS)
