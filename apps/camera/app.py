"""The camera application: a source, the runtime, and what looks at its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from apps.camera.busy_children import BusyChildren
from apps.camera.hud_state import HudState, HudTracker, LadderPoint, grid_points, point_text
from apps.camera.overlay import draw_overlay
from apps.camera.paced_source import PacedSource
from apps.camera.scenario import OverriddenSensors, Scenario, ScenarioPlayer, Sensors
from apps.camera.summary import RunStatistics, Summary
from apps.camera.video_writer import VideoSaver
from apps.camera.window import KEYS_HELP, Action, Window, display_missing
from edge_runtime.budget import Budget
from edge_runtime.errors import SinkError, StreamBroken
from edge_runtime.readings import Readings
from edge_runtime.result import Result
from edge_runtime.sources import Source, open_source

DEADLINE_STEP = 1.1
"""What one press of an arrow does to the deadline."""
PAUSE_POLL_S = 0.03
STILLS_FPS = 1.0
"""Rate of a video saved from still pictures."""
DEFAULT_FPS = 30.0
"""Rate of a saved video whose source does not state its own."""


@dataclass(frozen=True)
class CameraOptions:
    """What the command line asks for."""

    source: str
    budget: Budget
    save: Path | None = None
    show: str = "auto"
    """"auto", "yes" or "no"."""
    scenario: Scenario | None = None
    pin: str | None = None
    max_frames: int | None = None
    realtime: bool | None = None
    """None: files play at their own speed when somebody watches or a scenario runs."""
    loop: bool = False


class CameraRuntime(Protocol):
    """The part of `edge_runtime.runtime.Runtime` that this application uses; tests bring their own."""

    budget: Budget
    points: tuple[LadderPoint, ...]

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def pinned(self) -> str | None: ...
    @property
    def readings(self) -> Readings: ...
    def pin(self, point: str) -> None: ...
    def unpin(self) -> None: ...
    def stream(self, source: Source) -> Iterator[Result]: ...
    def close(self) -> None: ...


LoadRuntime = Callable[[Sensors | None], CameraRuntime]
"""Makes the runtime; gets the sensors to use, or None for the device's own."""


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    summary: Summary
    point_names: dict[str, str]
    """What to call each point."""
    broken: StreamBroken | None = None
    """Why the source stopped, if it failed."""


def run_camera(
    options: CameraOptions,
    load_runtime: LoadRuntime,
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    open_window: Callable[[str], Window] = Window,
) -> Outcome:
    """Run until the source ends, the user quits, or `max_frames`.

    Args:
        options: what is asked for.
        load_runtime: called after the source is open and the display is known.
        tell: gets single sentences for the user.
        clock: seconds.
        open_window: makes the window.
    Returns:
        the numbers of the run; also after Ctrl-C and a broken stream.
    Raises:
        EdgeRuntimeError: the run cannot start, or a frame cannot be answered.
    """
    with ExitStack() as stack:
        source = stack.enter_context(open_source(options.source, clock=clock, loop=options.loop))
        saver = None
        if options.save is not None:
            fps = source.fps or (STILLS_FPS if _stills(source) else DEFAULT_FPS)
            saver = stack.enter_context(VideoSaver(options.save, fps, tell))
        window = None
        if _wants_window(options.show, tell):
            window = stack.enter_context(open_window(f"edge-runtime: {source.name}"))
            tell(f"keys: {KEYS_HELP}")
        sensors = _scripted_sensors() if options.scenario is not None else None
        runtime = load_runtime(sensors)
        stack.callback(runtime.close)
        if options.pin is not None:
            runtime.pin(options.pin)
        busy = stack.enter_context(BusyChildren())
        player = None
        if options.scenario is not None and sensors is not None:
            player = ScenarioPlayer(
                options.scenario, runtime.budget, lambda budget: setattr(runtime, "budget", budget), sensors, busy
            )
        session = _Session(options, source, runtime, player, window, saver, clock)
        return session.run()


def _stills(source: Source) -> bool:
    return not source.live and source.fps is None


def _wants_window(show: str, tell: Callable[[str], None]) -> bool:
    """Whether to open a window.

    Raises:
        SinkError: one is demanded and cannot be had.
    """
    if show == "no":
        return False
    missing = display_missing()
    if missing is None:
        return True
    if show == "yes":
        raise SinkError(
            f"no window can be shown: {missing}; run with --show no, or with --save FILE to see the picture"
        )
    tell(f"running without a window: {missing}")
    return False


def _scripted_sensors() -> OverriddenSensors:
    from edge_runtime.sensors import DeviceSensors

    return OverriddenSensors(DeviceSensors(count_children=False))  # our busy children play other programs


class _Session:
    """One run: the loop with its keys."""

    def __init__(
        self,
        options: CameraOptions,
        source: Source,
        runtime: CameraRuntime,
        player: ScenarioPlayer | None,
        window: Window | None,
        saver: VideoSaver | None,
        clock: Callable[[], float],
    ) -> None:
        self._runtime, self._player, self._window, self._saver = runtime, player, window, saver
        self._clock = clock
        realtime = options.realtime
        if realtime is None:
            realtime = window is not None or player is not None
        self._source = PacedSource(
            source,
            realtime=realtime,
            on_frame=self._before_frame,
            max_frames=options.max_frames,
            clock=clock,
            wait=self._wait,
        )
        self._statistics = RunStatistics()
        self._tracker = HudTracker(runtime.points, runtime.labels)
        self._shown: tuple[npt.NDArray[np.uint8], HudState] | None = None
        self._paused = False

    def run(self) -> Outcome:
        broken = None
        try:
            for result in self._runtime.stream(self._source):
                self._take(result)
                self._obey()
        except StreamBroken as error:
            broken = error
        except KeyboardInterrupt:  # the usual way to end a camera without a window
            pass
        names = {point.name: point_text(point) for point in grid_points(self._runtime.points)}
        if len(set(names.values())) < len(names):  # points that differ in precision, for example
            names = {name: f"{text}  ({name})" for name, text in names.items()}
        return Outcome(self._statistics.summary(), names, broken)

    def _before_frame(self, at_s: float) -> None:
        if self._player is not None:
            self._player.advance(at_s)

    def _take(self, result: Result) -> None:
        """Count a result, and draw it where somebody sees it."""
        now_s = self._clock()
        self._statistics.add(result, now_s)
        if self._window is None and self._saver is None:
            return
        phase = self._player.phase.name if self._player is not None and self._player.phase is not None else ""
        pinned = self._runtime.pinned is not None
        state = self._tracker.state(result, now_s, self._runtime.readings, phase, pinned)
        picture = draw_overlay(result.frame.pixels, state)
        if self._saver is not None:
            self._saver.write(picture, None if _stills(self._source) else self._source.at_s)
        if self._window is not None:
            self._shown = (result.frame.pixels, state)
            self._window.show(picture)

    def _wait(self, seconds: float) -> None:
        """Sleep until a frame is due; the window stays alive."""
        if self._window is None:
            time.sleep(seconds)
        else:
            self._window.wait(seconds)
            self._obey()

    def _obey(self) -> None:
        """Do what the keys ask for; a pause is waited out here."""
        self._act()
        if not self._paused or self._window is None:
            return
        paused_s = self._clock()
        self._redraw()
        while self._paused:
            self._window.wait(PAUSE_POLL_S)
            if self._act():
                self._redraw()
        self._source.shift(self._clock() - paused_s)

    def _act(self) -> bool:
        """Apply the keys pressed so far; says whether there were any."""
        actions = [] if self._window is None else self._window.take_actions()
        for action in actions:
            if action is Action.QUIT:
                self._source.stop()
                self._paused = False
            elif action is Action.PAUSE:
                self._paused = not self._paused
            elif action is Action.PIN:
                self._toggle_pin()
            else:
                factor = DEADLINE_STEP if action is Action.LONGER else 1.0 / DEADLINE_STEP
                budget = self._runtime.budget
                self._runtime.budget = replace(budget, deadline_ms=budget.deadline_ms * factor)
        return bool(actions)

    def _toggle_pin(self) -> None:
        if self._runtime.pinned is not None:
            self._runtime.unpin()
        elif self._shown is not None:
            self._runtime.pin(self._shown[1].point)

    def _redraw(self) -> None:
        """Show the last picture again with what the keys changed."""
        if self._shown is None or self._window is None:
            return
        pixels, state = self._shown
        pinned, deadline_ms = self._runtime.pinned is not None, self._runtime.budget.deadline_ms
        self._window.show(
            draw_overlay(pixels, replace(state, paused=self._paused, pinned=pinned, deadline_ms=deadline_ms))
        )
