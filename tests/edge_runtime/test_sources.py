"""Sources: what each text opens, what each bad input says, and how a stream's end and its failure differ."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import SourceError, StreamBroken
from edge_runtime.file_source import VideoFileSource
from edge_runtime.opencv_capture import OpenedCapture, masked
from edge_runtime.pattern_source import CYCLE_FRAMES, pattern_picture
from edge_runtime.sources import default_demo_clip, open_source
from edge_runtime.threaded_source import ThreadedSource


def write_video(path: Path, frames: int, fps: float = 25.0, codec: str = "MJPG") -> Path:
    """A video whose frame n is grey of level 10 * n with a red left half, 64 x 48."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        picture = np.full((48, 64, 3), 10 * index, np.uint8)
        picture[:, :32] = (0, 0, 200)  # BGR: red
        writer.write(picture)
    writer.release()
    return path


def write_picture(path: Path, level: int, size_hw: tuple[int, int] = (20, 30)) -> Path:
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), level, np.uint8))
    return path


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


# -- files


def test_a_video_file_gives_every_frame_in_order_as_rgb_with_media_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 12)
    with open_source(str(path)) as source:
        frames = list(source.frames())
    assert (source.name, source.live, source.size_hw, source.fps, source.dropped) == (
        "clip.avi",
        False,
        (48, 64),
        25,
        0,
    )
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.media_s for frame in frames] == pytest.approx([index / 25 for index in range(12)])
    levels = [int(frame.pixels[24, 56, 0]) for frame in frames]
    assert levels == pytest.approx([10 * index for index in range(12)], abs=4)  # JPEG
    red, green, blue = (int(value) for value in frames[5].pixels[24, 10])
    assert (red, green, blue) == pytest.approx((200, 0, 0), abs=6)


def test_an_mpeg4_file_is_read_too(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "clip.mp4", 9, codec="mp4v"))) as source:
        assert sum(1 for _ in source.frames()) == 9


def test_a_header_that_lies_about_the_frame_count_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 10)
    data = bytearray(path.read_bytes())
    total_frames = data.index(b"avih") + 8 + 16
    stream_length = data.index(b"strh") + 8 + 32
    for place in (total_frames, stream_length):
        assert int.from_bytes(data[place : place + 4], "little") == 10
        data[place : place + 4] = (444).to_bytes(4, "little")
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 444
    with open_source(str(path)) as source:
        assert [frame.index for frame in source.frames()] == list(range(10))


def test_a_truncated_video_gives_the_frames_that_are_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", 25, codec="mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_source(str(path)) as source:
        assert 5 <= sum(1 for _ in source.frames()) < 25


def test_a_loop_goes_on_with_numbers_and_media_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 3)
    with open_source(str(path), loop=True) as source:
        frames = [frame for frame, _ in zip(source.frames(), range(8), strict=False)]
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.media_s for frame in frames] == pytest.approx([index / 25 for index in range(8)])
    assert [round(int(frame.pixels[24, 56, 0]) / 10) for frame in frames[:6]] == [0, 1, 2, 0, 1, 2]


def test_a_closed_file_gives_no_more_frames(tmp_path: Path) -> None:
    source = VideoFileSource(write_video(tmp_path / "clip.avi", 5))
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


def test_a_folder_gives_its_pictures_in_the_order_of_people(tmp_path: Path) -> None:
    for number, level in ((10, 100), (9, 90), (1, 10)):
        write_picture(tmp_path / f"photo {number}.png", level, (20 + number, 30))
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_source(str(tmp_path)) as source:
        frames = list(source.frames())
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [10, 90, 100]
    assert [frame.pixels.shape[0] for frame in frames] == [21, 29, 30]
    assert (source.fps, source.live, source.size_hw) == (None, False, (21, 30))


def test_a_glob_and_a_single_picture_open(tmp_path: Path) -> None:
    write_picture(tmp_path / "a1.png", 1)
    write_picture(tmp_path / "b1.png", 2)
    with open_source(str(tmp_path / "a*.png")) as source:
        assert len(list(source.frames())) == 1
    with open_source(str(tmp_path / "b1.png")) as source:
        assert [int(frame.pixels[0, 0, 0]) for frame in source.frames()] == [2]


def test_a_broken_picture_among_good_ones_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", 1)
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0broken")
    with open_source(str(tmp_path)) as source, pytest.raises(StreamBroken, match=r"after 1 pictures: .*2\.png"):
        list(source.frames())


def test_the_pattern_moves_comes_back_and_ends_when_told() -> None:
    with open_source("pattern:30") as source:
        frames = list(source.frames())
    assert len(frames) == 30
    assert frames[0].pixels.shape == (480, 640, 3)
    assert not np.array_equal(frames[0].pixels, frames[1].pixels)
    assert np.array_equal(pattern_picture(3, (50, 70)), pattern_picture(3 + CYCLE_FRAMES, (50, 70)))
    assert frames[29].media_s == pytest.approx(29 / 30)


def test_demo_opens_the_clip_or_the_pattern_and_is_finite() -> None:
    with open_source("demo") as source:
        assert source.name == ("demo" if default_demo_clip() is None else "demo.mp4")
        assert source.fps == pytest.approx(30)
        assert next(iter(source.frames())).index == 0


# -- bad inputs, one sentence each


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("97", "no camera at /dev/video97"),
        ("/dev/video98", "no camera at /dev/video98"),
        ("nowhere/clip.mp4", "no such file or folder"),
        ("/dev/null", "neither a file nor a folder"),
        ("*.nothing", "no picture matches"),
        ("a\0b", "cannot be read"),
        ("pattern:0", "pattern:300"),
        ("pattern:x", "pattern:300"),
        ("ftp://host/clip.mp4", "ftp:// cannot be read"),
        ("file:///etc/passwd", "file:// cannot be read"),
        ("rtsp:///stream", "names no host"),
        ("rtsp://host:port/stream", "not a valid address"),
        ("rtsp://no-such-host.invalid/stream", "no host is known"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device names are Linux's")
def test_a_source_that_cannot_be_opened_says_why(text: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text, timeout_s=2)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, StreamBroken)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"hello, this is a letter\n" * 50, "it is text"),
        ("list.m3u8", b"#EXTM3U\nhttp://elsewhere/secret\n", "it is text"),
        ("noise.mp4", bytes(range(256)) * 40, "not a video"),
        ("broken.jpg", b"\xff\xd8\xff\xe0\0\0\0", "not a picture"),
        ("empty.png", b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_video_says_so(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / name))
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no pictures in this folder; expected .*\.jpg"):
        open_source(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 2)
    path.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(path))


def test_nothing_but_our_sentence_is_printed(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtsp://user:secret@127.0.0.1:{closed.getsockname()[1]}/x"
        script = (
            "import sys; from edge_runtime.sources import open_source; from edge_runtime.errors import SourceError\n"
            "for text in sys.argv[1:]:\n"
            "    try: open_source(text, timeout_s=2)\n"
            "    except SourceError as error: print(error)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "noise.mp4"), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:pw@cam:554/live?token=1", "rtsp://***@cam:554/live?***"),
        ("rtsp://me:p/w@cam/live", "rtsp://***@cam/live"),
        ("http://cam?key=1", "http://cam?***"),
        ("rtsp://cam/user=admin&password=x&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        ("http://cam:80/stream", "http://cam:80/stream"),
    ],
)
def test_credentials_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


# -- live sources, with a fake capture


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


# -- a real stream over HTTP


class MjpegHandler(http.server.BaseHTTPRequestHandler):
    """Sends a few JPEG pictures as multipart, then closes the connection, as a camera that loses power."""

    pictures = 12

    def do_GET(self) -> None:
        if not self.path.startswith("/live"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for index in range(self.pictures):
            _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 20 * index, np.uint8))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mjpeg_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MjpegHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_http_camera_is_live_and_its_end_is_a_broken_stream(mjpeg_port: int) -> None:
    with open_source(f"http://me:secret@127.0.0.1:{mjpeg_port}/live?key=1", timeout_s=5) as source:
        assert source.live
        assert source.size_hw == (48, 64)
        assert "secret" not in source.name
        indices: list[int] = []
        with pytest.raises(StreamBroken, match=r"the stream stopped after 1[0-2] frames") as caught:
            indices.extend(frame.index for frame in source.frames())
    assert "secret" not in str(caught.value)
    assert indices == sorted(set(indices))
    assert len(indices) + source.dropped in (10, 11, 12)


def test_a_wrong_path_on_a_server_that_answers_says_so(mjpeg_port: int) -> None:
    with pytest.raises(SourceError, match="the server answers but gives no video there"):
        open_source(f"http://127.0.0.1:{mjpeg_port}/wrong", timeout_s=5)


def test_importing_sources_loads_no_opencv() -> None:
    script = "import sys, edge_runtime.sources; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
