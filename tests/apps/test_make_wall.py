"""The wall of make demo-focus: each shot of the clip, small, in the middle square, drifting, and the same each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.demo import make_wall
from edge_runtime.errors import SinkError, SourceError

HEIGHT, WIDTH = 96, 128
LEFT = (WIDTH - HEIGHT) // 2
WHITE = 255


def shots(count: int = 6) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """White frames of one shot, black ones of another: what is white on the wall is the square."""
    frames = [np.full((HEIGHT, WIDTH, 3), WHITE, np.uint8)] * count + [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * count
    return frames, [(0, count - 1), (count, 2 * count - 1)]


def box(frame: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is white."""
    rows, columns = np.nonzero((frame == WHITE).all(2))
    return rows.min(), columns.min(), rows.max() - rows.min() + 1, columns.max() - columns.min() + 1


def test_a_shot_is_a_small_square_in_the_middle_that_drifts() -> None:
    frames, parts = shots()
    made = list(make_wall.wall_frames(frames, parts))
    assert len(made) == len(frames)
    boxes = [box(frame) for frame in made[:6]]
    low, high = make_wall.SQUARE_SHARE
    for top, left, rows, columns in boxes:
        assert rows == columns
        assert low * HEIGHT - 1 <= rows <= high * HEIGHT + 1
        assert top >= round(HEIGHT * make_wall.ROWS[0])
        assert top + rows <= round(HEIGHT * make_wall.ROWS[1])
        assert left >= LEFT
        assert left + columns <= LEFT + HEIGHT
    assert len(set(boxes)) > 1
    assert len({b[2] for b in boxes}) == 1


def test_no_square_lies_under_the_panels_of_the_camera_app() -> None:
    (white, *_, black), parts = shots()[0], [(at, at) for at in range(12)]  # 12 walls, 12 places
    made = []
    for at in range(12):  # pieces of the other shots are black
        frames = [black] * 12
        frames[at] = white
        made.append(list(make_wall.wall_frames(frames, parts))[at])
    tops = [box(frame)[0] for frame in made]
    bottoms = [box(frame)[0] + box(frame)[2] for frame in made]
    assert min(tops) >= round(HEIGHT * make_wall.ROWS[0])
    assert max(bottoms) <= round(HEIGHT * make_wall.ROWS[1])


def test_the_wall_stays_while_the_square_moves_and_is_the_same_each_time() -> None:
    frames, parts = shots()
    made, again = (list(make_wall.wall_frames(frames, parts)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    beside = (made[0] != WHITE).any(2) & (made[1] != WHITE).any(2)
    assert beside.mean() > 0.5
    assert np.array_equal(made[0][beside], made[1][beside])


def test_the_clip_of_the_checkout_becomes_a_video(tmp_path: Path) -> None:
    out = tmp_path / "new" / "wall.mp4"
    assert make_wall.main(["--out", str(out)]) == 0
    video = cv2.VideoCapture(str(out))
    truth = json.loads((make_wall.HERE / "segments.json").read_text(encoding="utf-8"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == truth["frames"]
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == truth["width"]


def test_a_clip_that_is_too_short_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "demo.mp4"
    broken.write_bytes((make_wall.HERE / "demo.mp4").read_bytes()[:5000])
    with pytest.raises(SourceError, match="of 495 frames could be read"):
        make_wall.make_wall(broken, make_wall.HERE / "segments.json", tmp_path / "wall.mp4")


def test_a_full_disk_leaves_no_half_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SinkError, match="make room"):
        make_wall.make_wall(make_wall.HERE / "demo.mp4", make_wall.HERE / "segments.json", tmp_path / "wall.mp4")
    assert not (tmp_path / "wall.mp4").exists()


def test_a_suffix_that_is_no_video_gives_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert make_wall.main(["--out", str(tmp_path / "wall.txt")]) == SinkError.exit_code
    assert capsys.readouterr().err.startswith("make_wall: ")
