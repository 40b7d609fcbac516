"""Saving: even time, and a disk or file that fails without stopping anything."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.camera.video_writer import LONGEST_FILL_S, RESERVE_BYTES, STALLED_FRAMES, VideoSaver
from edge_runtime.errors import SinkError
from edge_runtime.sources import open_source


def picture(level: int, size_hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size_hw, 3), level, np.uint8)


class FakeWriter:
    """Remembers the level of each picture, and lets its file grow unless it is told not to."""

    def __init__(self, path: str, code: int, fps: float, size: tuple[int, int]) -> None:
        self.path, self.fps, self.size = Path(path), fps, size
        self.levels: list[int] = []
        self.released = False
        self.grows, self.opened = True, True

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.opened

    def write(self, frame: np.ndarray) -> None:
        assert frame.shape[:2] == self.size[::-1]
        self.levels.append(int(frame[0, 0, 0]))
        if self.grows:
            with self.path.open("ab") as file:
                file.write(b"x")

    def release(self) -> None:
        self.released = True


class Rig:
    """A saver with a fake writer, a disk whose room can be set, and the sentences that were told."""

    def __init__(self, path: Path, fps: float = 10.0) -> None:
        self.told: list[str] = []
        self.free = 10 * RESERVE_BYTES
        self.writer: FakeWriter | None = None
        self.saver = VideoSaver(path, fps, self.told.append, make_writer=self._make, free_bytes=lambda _: self.free)

    def _make(self, *arguments: object) -> FakeWriter:
        self.writer = FakeWriter(*arguments)  # type: ignore[arg-type]
        return self.writer


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_saved_video_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new folder" / f"out{suffix}"
    told: list[str] = []
    with VideoSaver(path, 25.0, told.append) as saver:
        for index in range(20):
            saver.write(picture(10 * index), index / 25)
    assert told == []
    with open_source(str(path)) as source:
        levels = [int(frame.pixels[20, 20, 0]) for frame in source.frames()]
        assert source.fps == pytest.approx(25)
    assert levels == pytest.approx([10 * index for index in range(20)], abs=5)


def test_colours_survive_saving(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 220
    with VideoSaver(tmp_path / "out.avi", 25.0, pytest.fail) as saver:
        saver.write(red)
    with open_source(str(tmp_path / "out.avi")) as source:
        pixel = [int(value) for value in next(iter(source.frames())).pixels[20, 20]]
    assert pixel == pytest.approx([220, 0, 0], abs=8)


def test_late_pictures_repeat_the_one_before_and_early_ones_are_left_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    for level, at_s in ((1, 5.0), (2, 5.1), (3, 5.13), (4, 5.5), (5, 5.6)):
        rig.saver.write(picture(level), at_s)
    assert rig.writer is not None
    assert rig.writer.levels == [1, 2, 2, 2, 2, 4, 5]


def test_a_very_long_gap_is_cut(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    rig.saver.write(picture(1), 0.0)
    rig.saver.write(picture(2), 1000.0)
    rig.saver.write(picture(3), 1000.1)
    assert rig.writer is not None
    assert rig.writer.levels == [1] * (1 + int(LONGEST_FILL_S * 10)) + [2, 3]


def test_pictures_without_time_follow_each_other(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    for level in (1, 2, 3):
        rig.saver.write(picture(level))
    assert rig.writer is not None
    assert rig.writer.levels == [1, 2, 3]


def test_a_picture_of_another_size_is_fitted(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    rig.saver.write(picture(1))
    rig.saver.write(picture(2, (96, 128)))
    assert rig.writer is not None
    assert rig.writer.levels == [1, 2]


def test_a_disk_that_fills_up_ends_saving_and_is_told_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    for index in range(100):
        if index == 40:
            rig.free = RESERVE_BYTES - 1
        rig.saver.write(picture(index), index / 10)
    rig.saver.close()
    assert len(rig.told) == 1
    assert "stopped after 45 frames: less than 16 MB are free" in rig.told[0]
    assert "the run goes on" in rig.told[0]
    assert rig.writer is not None
    assert rig.writer.released
    assert len(rig.writer.levels) == 45


def test_a_file_that_stops_growing_is_noticed(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "out.mp4")
    rig.saver.write(picture(0))
    assert rig.writer is not None
    rig.writer.grows = False
    for _ in range(STALLED_FRAMES + 50):
        rig.saver.write(picture(1))
    assert len(rig.told) == 1
    assert "has not grown" in rig.told[0]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), cv2.error("boom")])
def test_a_writer_that_raises_ends_saving_once(tmp_path: Path, failure: Exception) -> None:
    rig = Rig(tmp_path / "out.mp4")
    rig.saver.write(picture(0))

    def fail(_: object) -> None:
        raise failure

    assert rig.writer is not None
    rig.writer.write = fail  # type: ignore[method-assign]
    rig.saver.write(picture(1))
    rig.saver.write(picture(2))
    rig.saver.close()
    assert len(rig.told) == 1
    assert "stopped after 1 frames" in rig.told[0]


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rig = Rig(tmp_path / "file" / "out.mp4")
    rig.saver.write(picture(0))
    rig.saver.write(picture(1))
    rig.saver.close()
    assert len(rig.told) == 1
    assert "file" in rig.told[0]
    assert rig.writer is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_real_full_device_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "out.avi"
    path.symlink_to("/dev/full")
    told: list[str] = []
    with VideoSaver(path, 10.0, told.append) as saver:
        for index in range(20):
            saver.write(picture(index))
    assert len(told) == 1
    assert "out.avi" in told[0]


def test_an_unknown_suffix_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot save a video as '\.txt'; expected one of \.mp4"):
        VideoSaver(tmp_path / "out.txt", 10.0, pytest.fail)
