"""Live sources: the newest frame is kept, the rest counted, and a stream's failure is no end."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from edge_runtime.errors import SourceError, StreamBroken
from edge_runtime.opencv_capture import OpenedCapture
from edge_runtime.threaded_source import ThreadedSource


class FakeCapture:
    """Gives frames of level 0, 1, 2 ...; `go` lets one through each time it is released. At the end it says False."""

    def __init__(self, frames: int, *, paced: bool = False, error: Exception | None = None):
        self.left, self.error = frames, error
        self.go = threading.Semaphore(0) if paced else None
        self.given, self.released = 0, False
        self.asks = 0
        self.hang: threading.Event | None = None

    def grab(self) -> bool:
        self.asks += 1
        if self.go is not None:
            self.go.acquire()
        if self.given < self.left:
            self.given += 1
            return True
        if self.hang is not None:
            self.hang.wait(5)
        if self.error is not None:
            raise self.error
        return False

    def wait_until_asked(self, times: int) -> None:
        """Until `grab` has been entered so often: all frames before are then where they belong."""
        limit_s = time.monotonic() + 5
        while self.asks < times:
            assert time.monotonic() < limit_s
            time.sleep(0.001)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 6, 3), (self.given - 1) % 256, np.uint8)

    def get(self, property_id: int) -> float:
        return 100.0 * (self.given - 1) if property_id == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        self.released = True


def threaded(capture: FakeCapture, *, live: bool = True, duration_s: float | None = None, timeout_s: float = 2.0):
    opened = OpenedCapture(capture, live=live, fps=10.0, duration_s=duration_s)
    return ThreadedSource("fake", lambda: opened, timeout_s=timeout_s)


def test_a_live_source_keeps_the_newest_frame_and_counts_the_others() -> None:
    capture = FakeCapture(100, paced=True)
    assert capture.go is not None
    capture.go.release()
    ticks = iter(range(1000))
    opened = OpenedCapture(capture, live=True)
    with ThreadedSource("fake", lambda: opened, clock=lambda: float(next(ticks)), timeout_s=5) as source:
        frames = source.frames()
        first = next(frames)
        capture.go.release(5)  # five more arrive while the first is being processed
        capture.wait_until_asked(7)
        newest = next(frames)
        assert (first.index, newest.index, source.dropped) == (0, 5, 4)
        assert (first.captured_s, newest.captured_s) == (0.0, 5.0)
        assert int(newest.pixels[0, 0, 0]) == 5
        assert newest.media_s is None
        assert source.live
        capture.go.release(50)
    assert capture.released


def test_a_recording_from_a_network_loses_nothing() -> None:
    capture = FakeCapture(30)
    with threaded(capture, live=False, duration_s=3.0) as source:
        frames = []
        for frame in source.frames():
            time.sleep(0.001)
            frames.append(frame.index)
    assert frames == list(range(30))
    assert source.dropped == 0


def test_a_stream_that_dies_is_broken_and_says_after_how_many_frames() -> None:
    capture = FakeCapture(3)
    with threaded(capture, live=False) as source, pytest.raises(StreamBroken, match=r"stopped after 3 frames; check"):
        list(source.frames())
    assert capture.released


def test_a_stream_that_reaches_its_stated_length_has_ended() -> None:
    with threaded(FakeCapture(30), duration_s=3.0, live=False) as source:
        assert len(list(source.frames())) == 30
    with threaded(FakeCapture(30), duration_s=30.0, live=False) as source, pytest.raises(StreamBroken):
        list(source.frames())


def test_a_readers_exception_reaches_the_loop_unchanged() -> None:
    failure = RuntimeError("driver fell over")
    with threaded(FakeCapture(2, error=failure), live=False) as source, pytest.raises(RuntimeError) as caught:
        list(source.frames())
    assert caught.value is failure


def test_an_error_of_opencv_becomes_a_broken_stream() -> None:
    with threaded(FakeCapture(2, error=cv2.error("bad")), live=False) as source, pytest.raises(StreamBroken):
        list(source.frames())


def test_a_silent_stream_is_broken_after_the_limit() -> None:
    capture = FakeCapture(1)
    capture.hang = threading.Event()
    with threaded(capture, timeout_s=0.05) as source:
        frames = source.frames()
        next(frames)
        with pytest.raises(StreamBroken, match=r"no frame came for 0\.05 s after 1 frames"):
            next(frames)
        capture.hang.set()


def test_opening_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hang() -> OpenedCapture:
        release.wait(5)
        raise SourceError("too late")

    begin_s = time.monotonic()
    with pytest.raises(SourceError, match="without a picture"):
        ThreadedSource("fake", hang, timeout_s=0.05)
    assert time.monotonic() - begin_s < 3
    release.set()


def test_a_camera_without_a_single_picture_is_an_error_at_opening() -> None:
    with pytest.raises(SourceError, match="ended before its first picture"):
        threaded(FakeCapture(0))


def test_closing_joins_the_reader() -> None:
    capture = FakeCapture(10**9)
    source = threaded(capture)
    name = "reader of fake"
    assert any(thread.name == name for thread in threading.enumerate())
    source.close()
    assert not any(thread.name == name for thread in threading.enumerate())
    assert capture.released
    assert list(source.frames()) == []
    source.close()
