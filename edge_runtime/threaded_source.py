"""A source read by its own thread: cameras and network streams, whose reads may block.

A live stream keeps one frame, the newest, and counts those it replaces; a recording read from a network keeps every
frame. The end of a stream and its failure are told apart so: a stream that states its length and comes to it has ended;
anything else that stops it, a closed connection or a silence longer than the limit, is a broken stream, since a camera
has no end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edge_runtime.errors import EdgeRuntimeError, SourceError, StreamBroken
from edge_runtime.frame import Frame
from edge_runtime.opencv_capture import OpenedCapture, to_rgb

NEAR_END_S = 1.0
"""A stream that stops this close to its stated length, or past it, has ended: headers are rounded and the last group
of pictures may be cut."""
JOIN_GRACE_S = 2.0
"""How much longer than the read limit `close` waits for the reader."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Slot:
    """One picture as OpenCV gave it, waiting to be fetched."""

    picture: Any
    index: int
    captured_s: float
    media_s: float | None
    decode_ms: float


class ThreadedSource:
    """Frames from a capture that a thread reads.

    Opening happens in the thread too, because a name lookup can block longer than any limit that OpenCV knows.
    """

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], OpenedCapture],
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = 10.0,
    ) -> None:
        """Start reading and wait for the first frame.

        Args:
            name: for messages; without credentials.
            open_capture: opens the stream; called in the reading thread.
            clock: stamps `captured_s`.
            timeout_s: longest wait for the first frame, and later for the next one.
        Raises:
            SourceError: the stream does not open, or gives no frame in time.
        """
        self.name = name
        self.live = True
        self.fps: float | None = None
        self.size_hw: tuple[int, int] = (0, 0)
        self.dropped = 0
        self._clock = clock
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._slot: _Slot | None = None
        self._failure: BaseException | None = None
        self._ended = False
        self._closing = False
        self._delivered = 0
        self._thread = threading.Thread(target=self._run, args=(open_capture,), name=f"reader of {name}", daemon=True)
        self._thread.start()
        try:
            self._wait_for_first()
        except BaseException:
            self.close(wait_s=0.5)  # it may hang in a call that cannot be interrupted
            raise

    def frames(self) -> Iterator[Frame]:
        """Frames until the ordinary end or `close`.

        Raises:
            StreamBroken: the stream failed after it had worked; says how many frames came before.
        """
        while (slot := self._take()) is not None:
            taken_s = time.perf_counter()
            pixels = to_rgb(slot.picture)
            decode_ms = slot.decode_ms + (time.perf_counter() - taken_s) * 1000.0
            frame = Frame(pixels, slot.index, slot.captured_s, slot.media_s, decode_ms)
            self.size_hw = (frame.pixels.shape[0], frame.pixels.shape[1])
            self._delivered += 1
            yield frame

    def close(self, wait_s: float | None = None) -> None:
        """Stop reading and wait until the reader is gone; at most the read limit and a little more."""
        with self._changed:
            self._closing = True
            self._slot = None
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(self._timeout_s + JOIN_GRACE_S if wait_s is None else wait_s)
            if self._thread.is_alive():
                _log.warning("%s: its reader is stuck in a call that does not return; left behind", self.name)

    def __enter__(self) -> ThreadedSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for_first(self) -> None:
        with self._changed:
            self._changed.wait_for(self._has_news, self._timeout_s)
            if self._failure is not None:
                raise self._failure
            if self._ended or self._slot is None:
                wanted = "it ended before its first" if self._ended else f"{self._timeout_s:g} s passed without a"
                raise SourceError(f"{self.name}: {wanted} picture; check that the camera or server sends video")
            height, width = self._slot.picture.shape[:2]
            self.size_hw = (height, width)

    def _has_news(self) -> bool:
        return self._slot is not None or self._failure is not None or self._ended or self._closing

    def _take(self) -> _Slot | None:
        """The waiting picture, or the next one; None at the ordinary end."""
        with self._changed:
            self._changed.wait_for(self._has_news, self._timeout_s)
            if self._slot is not None:
                slot, self._slot = self._slot, None
                self._changed.notify_all()
                return slot
            if self._closing:
                return None
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
        raise self._broken(f"no frame came for {self._timeout_s:g} s")

    def _run(self, open_capture: Callable[[], OpenedCapture]) -> None:
        """The reading thread: whatever happens here reaches the consumer."""
        try:
            opened = open_capture()
            try:
                self._read(opened)
            finally:
                opened.capture.release()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _read(self, opened: OpenedCapture) -> None:
        import cv2

        self.live, self.fps = opened.live, opened.fps
        index, media_s = 0, 0.0
        while not self._closing:
            try:
                good = opened.capture.grab()
                captured_s = self._clock()
                grabbed_s = time.perf_counter()
                good, picture = opened.capture.retrieve() if good else (False, None)
                decode_ms = (time.perf_counter() - grabbed_s) * 1000.0
            except cv2.error as error:
                raise self._broken(f"OpenCV cannot decode it ({error.err or error})", index) from error
            if not good or picture is None:
                return self._stop(opened, index, media_s)
            position_s = float(opened.capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
            media_s = max(media_s, position_s)
            self._put(_Slot(picture, index, captured_s, None if opened.live else media_s, decode_ms))
            index += 1
        return None

    def _stop(self, opened: OpenedCapture, frames: int, media_s: float) -> None:
        """No frame came: the ordinary end, or a failure."""
        if not self._closing:
            at_end = opened.duration_s is not None and media_s >= opened.duration_s - NEAR_END_S
            if frames and not at_end:
                raise self._broken("the stream stopped", frames)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, slot: _Slot) -> None:
        with self._changed:
            if not self.live:
                self._changed.wait_for(lambda: self._slot is None or self._closing)
            if self._closing:
                return
            if self._slot is not None:
                self.dropped += 1
            self._slot = slot
            self._changed.notify_all()

    def _broken(self, what: str, frames: int | None = None) -> EdgeRuntimeError:
        count = self._delivered + self.dropped if frames is None else frames
        return StreamBroken(
            f"{self.name}: {what} after {count} frames; check the camera, its cable or network, then start again"
        )
