"""A source at its own speed: files wait for their time, the scenario follows the frames, pauses shift everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from edge_runtime.frame import Frame
from edge_runtime.sources import Source

STILL_S = 1.0
"""How long a still picture is shown."""


class PacedSource:
    """Wraps a source; is one itself. Drops nothing: a consumer that is slow makes the film late, not shorter."""

    def __init__(
        self,
        inner: Source,
        *,
        realtime: bool,
        on_frame: Callable[[float], None] = lambda at_s: None,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wrap a source.

        Args:
            inner: closed by its owner, not here.
            realtime: files play at their own speed; live sources have theirs anyway.
            on_frame: told the run's time before each frame is given out.
            max_frames: end after so many.
            clock: seconds; also stamps frames of files when they are given out.
            wait: sleeps so many seconds; may return early.
        """
        self._inner, self._realtime, self._on_frame = inner, realtime, on_frame
        self._max_frames, self._clock, self._wait = max_frames, clock, wait
        self._start_s: float | None = None
        self._late_since_s = 0.0
        self._stopped = False
        self._dropped_before = 0
        self.at_s = 0.0
        """The run's time of the newest frame: media time for files, else seconds since the first frame, less pauses."""

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def live(self) -> bool:
        return self._inner.live

    @property
    def size_hw(self) -> tuple[int, int]:
        return self._inner.size_hw

    @property
    def fps(self) -> float | None:
        return self._inner.fps

    @property
    def dropped(self) -> int:
        """Since the first frame was asked for: what a camera sent while the network was loading is not lost work."""
        return self._inner.dropped - self._dropped_before

    def frames(self) -> Iterator[Frame]:
        """The inner source's frames, each when its time has come."""
        self._dropped_before = self._inner.dropped
        for count, frame in enumerate(self._inner.frames(), 1):
            if self._start_s is None:
                self._start_s = self._clock()
            if frame.media_s is not None:
                self.at_s = frame.media_s
            elif self.live or not self._realtime:
                self.at_s = self._clock() - self._start_s
            else:
                self.at_s = frame.index * STILL_S
            if not self.live:
                if self._realtime:
                    self._wait_until_due()
                frame = replace(frame, captured_s=self._clock())
            if self._stopped:
                return
            self._on_frame(self.at_s)
            yield frame
            if self._stopped or count == self._max_frames:
                return

    def shift(self, seconds: float) -> None:
        """Everything after now is later by a pause of so many seconds."""
        if self._start_s is not None:
            self._start_s += seconds

    def stop(self) -> None:
        """End the iteration at the next frame."""
        self._stopped = True

    def close(self) -> None:
        """End; the inner source stays its owner's."""
        self._stopped = True

    def __enter__(self) -> PacedSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_until_due(self) -> None:
        assert self._start_s is not None
        while not self._stopped and (left_s := self._start_s + self.at_s - self._clock()) > 0:
            self._wait(left_s)
