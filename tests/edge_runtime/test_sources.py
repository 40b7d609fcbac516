"""Sources: what each text opens, what each bad input says, and how a stream's end and its failure differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_files import write_picture, write_video

from edge_runtime.errors import StreamBroken
from edge_runtime.file_source import VideoFileSource
from edge_runtime.pattern_source import CYCLE_FRAMES, pattern_picture
from edge_runtime.sources import default_demo_clip, open_source

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


def test_importing_sources_loads_no_opencv() -> None:
    script = "import sys, edge_runtime.sources; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
