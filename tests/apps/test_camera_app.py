"""The application's loop, with a runtime, a clock and a window that are made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_fakes import FakeClock, FakeRuntime, FakeWindow
from click.testing import CliRunner

import apps.camera.app as app
from apps.camera.__main__ import main
from apps.camera.app import CameraOptions, run_camera
from apps.camera.paced_source import STILL_S, PacedSource
from apps.camera.scenario import Phase, Scenario
from apps.camera.window import Action
from edge_runtime.budget import Budget
from edge_runtime.errors import SinkError, SourceError, StreamBroken
from edge_runtime.frame import Frame
from edge_runtime.pattern_source import PatternSource
from edge_runtime.runtime import Runtime
from edge_runtime.sources import open_source

BUDGET = Budget(20.0)


class Run:
    """Runs the application on a pattern, with everything made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: dict[int, list[Action]] | None = None, **options: object):
        self.clock = FakeClock()
        self.window = None if keys is None else FakeWindow(self.clock, keys)
        self.told: list[str] = []
        self.runtime: FakeRuntime | None = None
        monkeypatch.setattr(app.time, "sleep", self.clock.sleep)
        monkeypatch.setattr(app, "display_missing", lambda: "no display here" if self.window is None else None)
        wanted = {"source": "pattern:30", "budget": BUDGET, **options}
        self.outcome = run_camera(
            CameraOptions(**wanted), self._load, self.told.append, clock=self.clock, open_window=lambda _: self.window
        )

    def _load(self, sensors: object) -> FakeRuntime:
        self.runtime = FakeRuntime(BUDGET, sensors)
        return self.runtime


def test_a_headless_run_goes_to_the_end_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert run.outcome.summary.frames == 30
    assert run.outcome.broken is None
    assert run.told == ["running without a window: no display here"]
    assert run.runtime is not None
    assert run.runtime.closed
    assert run.clock.now_s == 100.0  # nobody watches: no waiting
    assert run.outcome.point_names["w100_r64"] == "1.00 × 64"


def test_show_yes_without_a_display_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkError, match="no window can be shown: no display here; run with --show no"):
        Run(monkeypatch, show="yes")


def test_show_no_does_not_even_look_for_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run(monkeypatch, show="no").told == []


def test_with_a_window_a_file_plays_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, keys={})
    assert run.window is not None
    assert len(run.window.pictures) == 30
    assert run.clock.now_s == pytest.approx(100 + 29 / 30)
    assert run.window.closed


def test_no_realtime_wins_over_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run(monkeypatch, keys={}, realtime=False).clock.now_s == 100.0


def test_max_frames_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run(monkeypatch, source="pattern", max_frames=7).outcome.summary.frames == 7


def test_pin_holds_the_named_point(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, pin="w50_r32")
    assert [point.name for point in run.outcome.summary.points] == ["w50_r32"]


def test_q_quits(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, keys={5: [Action.QUIT]}, source="pattern")
    assert run.outcome.summary.frames == 5


def test_arrows_change_the_deadline_and_p_pins_and_unpins(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {2: [Action.LONGER], 4: [Action.SHORTER, Action.SHORTER], 6: [Action.PIN], 8: [Action.PIN]}
    run = Run(monkeypatch, keys=keys, source="pattern:10")
    assert run.runtime is not None
    deadlines = [deadline for _, deadline, _ in run.runtime.seen]
    assert deadlines[:5] == pytest.approx([20, 20, 22, 22, 20 / 1.1])
    assert [pinned for _, _, pinned in run.runtime.seen] == [None] * 6 + ["w100_r64"] * 2 + [None] * 2


def test_a_pause_stops_the_frames_and_shifts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    # The paused picture is one more; the key that ends the pause is pressed when it has been shown.
    run = Run(monkeypatch, keys={3: [Action.PAUSE]}, source="pattern:6", show="no")
    assert run.outcome.summary.frames == 6  # without a window there are no keys

    clock = FakeClock()
    window = FakeWindow(clock, {3: [Action.PAUSE], 4: [Action.PAUSE]})
    waits = window.wait
    window.wait = lambda seconds: waits(max(seconds, 2.0) if len(window.pictures) == 4 else seconds)  # type: ignore
    monkeypatch.setattr(app, "display_missing", lambda: None)
    runtime = FakeRuntime(BUDGET)
    options = CameraOptions("pattern:6", BUDGET)
    outcome = run_camera(options, lambda _: runtime, print, clock=clock, open_window=lambda _: window)
    assert outcome.summary.frames == 6
    assert clock.now_s == pytest.approx(100 + 5 / 30 + 2.0)
    assert (window.pictures[3] != window.pictures[2]).any()  # says "paused"


def test_a_scenario_changes_deadline_and_readings_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(
        (Phase("calm", 0.0), Phase("tight", 0.5, deadline_ms=2.0, temperature_c=77.0), Phase("calm again", 0.8))
    )
    run = Run(monkeypatch, scenario=scenario)
    assert run.runtime is not None
    deadlines = [deadline for _, deadline, _ in run.runtime.seen]
    assert deadlines == [20.0] * 15 + [2.0] * 9 + [20.0] * 6
    assert run.outcome.summary.switches == 2
    assert run.clock.now_s == pytest.approx(100 + 29 / 30)  # a scenario makes files play at their own speed
    assert run.runtime.sensors is not None
    assert "scenario" not in run.runtime.readings.sources.values()  # the last phase overrides nothing


def test_scenario_children_are_gone_after_the_run_even_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[app.BusyChildren] = []
    real = app.BusyChildren

    def remember() -> app.BusyChildren:
        busy.append(real())
        return busy[0]

    monkeypatch.setattr(app, "BusyChildren", remember)
    counts: list[int] = []

    def fail(index: int) -> None:
        counts.append(len(busy[0].pids))
        if index == 2:
            raise ZeroDivisionError

    options = CameraOptions("pattern", BUDGET, show="no", scenario=Scenario((Phase("busy", 0.0, cpu_load=2),)))
    with pytest.raises(ZeroDivisionError):
        run_camera(options, lambda sensors: FakeRuntime(BUDGET, sensors, fail), print)
    assert counts == [2, 2, 2]
    assert busy[0].pids == ()


def test_ctrl_c_ends_the_run_with_its_summary() -> None:
    def interrupt(index: int) -> None:
        if index == 4:
            raise KeyboardInterrupt

    options = CameraOptions("pattern", BUDGET, show="no")
    outcome = run_camera(options, lambda _: FakeRuntime(BUDGET, each=interrupt), print)
    assert outcome.summary.frames == 4


def test_a_stream_that_breaks_still_has_its_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(PatternSource):
        def frames(self):
            yield from (Frame(np.zeros((4, 4, 3), np.uint8), index) for index in range(3))
            raise StreamBroken("camera 0: the stream stopped after 3 frames; check it")

    monkeypatch.setattr(app, "open_source", lambda *_, **__: Breaking())
    run = Run(monkeypatch)
    assert run.outcome.summary.frames == 3
    assert "after 3 frames" in str(run.outcome.broken)
    assert run.runtime is not None
    assert run.runtime.closed


def test_the_saved_video_has_every_frame_with_the_overlay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Run(monkeypatch, save=tmp_path / "out.mp4", source="pattern:20")
    with open_source(str(tmp_path / "out.mp4")) as source:
        frames = [frame.pixels for frame in source.frames()]
    assert len(frames) == 20
    dashboard = frames[10][400:460, 20:600]
    assert dashboard.mean() < 90  # dark glass
    assert dashboard.max() > 220  # with bright letters


def test_a_full_disk_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = Run(monkeypatch, save=tmp_path / "file" / "out.mp4", show="no")
    assert run.outcome.summary.frames == 30
    assert len(run.told) == 1
    assert "the run goes on without it" in run.told[0]


def test_a_source_that_cannot_be_opened_loads_no_network() -> None:
    def never(sensors: object) -> FakeRuntime:
        raise AssertionError("the runtime was loaded")

    with pytest.raises(SourceError):
        run_camera(CameraOptions("nowhere.mp4", BUDGET), never, print)


class Stills:
    """Three pictures without times, as a folder gives them; or a camera's frames."""

    name, size_hw, fps, dropped = "stills", (4, 4), None, 0

    def __init__(self, live: bool) -> None:
        self.live = live

    def frames(self):
        for index in range(3):
            yield Frame(np.zeros((4, 4, 3), np.uint8), index, 7.0)


def test_pictures_are_shown_for_a_while_each() -> None:
    clock = FakeClock()
    source = PacedSource(Stills(live=False), realtime=True, clock=clock, wait=clock.sleep)
    times = [(source.at_s, frame.captured_s) for frame in source.frames()]
    assert times == [(index * STILL_S, 100.0 + index * STILL_S) for index in range(3)]


def test_a_camera_is_never_held_back_and_keeps_its_stamps() -> None:
    clock = FakeClock()
    source = PacedSource(Stills(live=True), realtime=True, clock=clock, wait=pytest.fail)
    assert [frame.captured_s for frame in source.frames()] == [7.0, 7.0, 7.0]


def test_a_slow_consumer_gets_every_frame_late() -> None:
    clock = FakeClock()
    source = PacedSource(PatternSource(frame_count=10), realtime=True, clock=clock, wait=clock.sleep)
    indices = []
    for frame in source.frames():
        indices.append(frame.index)
        clock.sleep(0.5)
    assert indices == list(range(10))
    assert clock.now_s == pytest.approx(105.0)


def test_frames_lost_before_the_run_began_do_not_count() -> None:
    inner = Stills(live=True)
    inner.dropped = 51
    source = PacedSource(inner, realtime=False)
    frames = source.frames()
    next(frames)
    assert source.dropped == 0
    inner.dropped = 54
    next(frames)
    assert source.dropped == 3


# -- the command


def test_help_names_every_option() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "apps.camera", "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    for option in (
        "--source", "--bundle", "--target-fps", "--max-latency-ms", "--min-accuracy", "--save", "--show", "--telemetry",
        "--scenario", "--pin", "--no-adapt", "--backend", "--threads", "--max-frames", "--no-realtime", "--loop",
        "--look-where-found", "--smooth", "--profile",
    ):  # fmt: skip
        assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--max-latency-ms", "0"], 2, "deadline is 0.0 ms, expected more than 0"),
        (["--target-fps", "0"], 2, "target is 0.0 frames per second, expected more than 0"),
        (["--min-accuracy", "60"], 2, "minimum accuracy is 60.0, expected 0 to 1"),
        (["--max-latency-ms", "5", "--target-fps", "30"], 2, "give one of them"),
        (["--source", "nowhere.mp4"], 5, "no such file or folder"),
        (["--source", "pattern", "--save", "out.gif", "--show", "no"], 8, "cannot save a video as '.gif'"),
        (["--scenario", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["--source", "pattern", "--bundle", "nowhere.bundle", "--show", "no"], 3, "nowhere.bundle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    words: list[str], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.camera.__main__.signal.signal", lambda *_: None)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code
    assert sentence in done.output
    assert len(done.output.strip().splitlines()) == (1 if "give one" not in sentence else 4)  # click adds its usage


CLIPS = ["--bundle", str(Path(__file__).resolve().parents[2] / "apps" / "demo" / "moves-7.bundle")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], 0.2), (["--smooth", "0"], 0.0), (CLIPS, 0.0), ([*CLIPS, "--smooth", "0.5"], 0.5)],
)
def test_answers_are_averaged_unless_it_is_switched_off(
    words: list[str], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def load(*_: object, **options: Any) -> None:  # no engine: the pool of the command would be this process's
        taken.append(options["smooth_s"])
        raise SinkError("enough")

    monkeypatch.setattr(Runtime, "load", staticmethod(load))
    monkeypatch.setattr("apps.camera.__main__.signal.signal", lambda *_: None)
    run = ["--source", "pattern", "--max-frames", "2", "--show", "no"]
    assert "error: enough" in CliRunner().invoke(main, [*run, *words]).output
    assert taken == [expected]
