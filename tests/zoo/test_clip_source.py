"""Files of video as clips: which frames, of what size, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from zoo.augment import augmented_batch, shrink_batch
from zoo.clip_source import VideoSource
from zoo.pictures import DataError, chosen_frames, evaluation_batch
from zoo.recipe import Recipe
from zoo.sources import open_source

FPS, STEP = 10, 8
"""Frame n of a video has a grey level of 8 n."""


def write_video(path: Path, frames: int, size_hw: tuple[int, int] = (64, 96), fps: float = FPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size_hw[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((*size_hw, 3), STEP * number, np.uint8))
    writer.release()


def levels(clip: np.ndarray) -> list[int]:
    """Which frames of the video a clip has."""
    return np.round(clip.mean((1, 2, 3)) / STEP).astype(int).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for label in ("one", "two"):
        for number in range(4):
            write_video(root / "train" / label / f"{number}.avi", 21)
        write_video(root / "test" / label / "0.avi", 5)
    (root / "train" / "one" / "notes.txt").write_text("no video")
    return root


def test_evaluation_sees_the_middle_and_training_any_part(folder: Path) -> None:
    source = VideoSource(folder, frames=4, clip_ms=800, side_px=32)  # every other frame
    name = source.splits(1, 1)["train"].names[0]
    assert levels(source.picture(name)) == [6, 8, 10, 12]  # 21 - 8 = 13 frames more than a clip
    drawn = [levels(source.drawn(name, np.random.default_rng(seed))) for seed in range(30)]
    assert all(np.diff(clip).tolist() == [2, 2, 2] for clip in drawn)
    starts = {clip[0] for clip in drawn}
    assert min(starts) <= 1
    assert max(starts) >= 11
    assert max(clip[-1] for clip in drawn) <= 20


def test_times_count_not_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "train" / "one" / "fast.avi", 31, fps=30)
    source = VideoSource(tmp_path, frames=3, clip_ms=300, side_px=32)
    assert np.diff(levels(source.picture(source.names[0]))).tolist() == [3, 3]


def test_a_short_file_repeats_its_last_frame(folder: Path) -> None:
    source = VideoSource(folder, frames=4, clip_ms=800, side_px=32)
    assert levels(source.picture("test/one/0.avi")) == [0, 2, 4, 4]


def test_splits_are_those_of_pictures_and_other_files_are_left_alone(folder: Path) -> None:
    source = VideoSource(folder, 4, 800, 32)
    assert source.classes == ["one", "two"]
    assert {part: len(split) for part, split in source.splits(2, 2).items()} == {
        "calib": 2, "select": 2, "train": 4, "test": 2,
    }  # fmt: skip


def test_frames_are_square_and_hardly_larger_than_needed(folder: Path) -> None:
    source = VideoSource(folder, 4, 800, side_px=32)
    assert source.picture(source.names[0]).shape == (4, 40, 40, 3)
    assert evaluation_batch(source, source.names[:2], (2, 24, 24)).shape == (2, 2, 24, 24, 3)


@pytest.mark.parametrize(("have", "wanted", "expected"), [
    (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]), (8, 4, [1, 3, 5, 7]), (8, 2, [3, 7]), (8, 3, [2, 5, 7]), (5, 1, [4]),
])  # fmt: skip
def test_fewer_frames_cover_the_same_time_and_end_with_the_newest(
    have: int, wanted: int, expected: list[int]
) -> None:  # fmt: skip
    assert chosen_frames(have, wanted) == expected


def test_augmentation_is_the_same_in_all_frames_and_flips_nothing(folder: Path) -> None:
    """A ramp from left to right stays one; two equal frames stay equal."""
    ramp = np.broadcast_to(np.linspace(0, 200, 96).astype(np.uint8)[None, :, None], (64, 96, 3))

    class Ramps(VideoSource):
        def drawn(self, name: str, draw: np.random.Generator) -> np.ndarray:
            return np.stack([ramp] * 4)

    source = Ramps(folder, 4, 800, 32)
    for epoch in range(20):
        clip = augmented_batch(source, source.names[:1], [0], (4, 32, 32), "basic", 0, epoch)[0]
        assert clip.shape == (4, 32, 32, 3)
        assert all(np.array_equal(clip[0], frame) for frame in clip[1:])
        across = clip[0].astype(float).mean((0, 2))
        assert across[-1] > across[0]
    batch = np.stack([np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((8, 16, 16, 3), np.uint8)])
    assert shrink_batch(batch, (8, 16, 16)) is batch
    assert shrink_batch(batch, (4, 8, 8))[0, :, 0, 0, 0].tolist() == [1, 3, 5, 7]


def test_what_is_no_folder_of_videos_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "videos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="an archive must be unpacked"):
        VideoSource(tmp_path / "videos.zip", 4, 800, 32)
    with pytest.raises(DataError, match="no videos found; expected train"):
        VideoSource(tmp_path, 4, 800, 32)
    broken = tmp_path / "train" / "one" / "broken.mp4"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"nothing of a video")
    with pytest.raises(DataError, match=r"broken.mp4 is not a readable video; remove or replace it"):
        VideoSource(tmp_path, 4, 800, 32).picture("train/one/broken.mp4")


def test_the_recipe_says_what_the_data_is(folder: Path, shapes_folder: Path) -> None:
    clips = {"model": "stm50_8f", "frames": (4, 2), "clip_ms": 800, "resolutions": (32, 24)}
    videos = open_source(Recipe(clips="videos", **clips), folder)
    assert videos.picture("test/one/0.avi").shape == (4, 40, 40, 3)
    moves = open_source(Recipe(clips="camera-moves", **clips), shapes_folder)
    assert moves.picture(moves.splits(3, 3)["test"].names[0]).shape == (4, 32, 32, 3)
    assert open_source(Recipe(), shapes_folder).classes == ["disc", "square", "stripes"]
