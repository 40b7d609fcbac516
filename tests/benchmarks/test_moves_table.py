"""The table of the camera's moves: which frames count, and for what."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.moves_table import line, photo_clips, video_shares

TRUTH = {
    "fps": 10,
    "moves": [
        {"first_frame": 0, "last_frame": 9, "move": "still"},
        {"first_frame": 10, "last_frame": 19, "move": "pan left"},
    ],
}


def test_frames_whose_clip_reaches_over_a_cut_are_left_out() -> None:
    answers = ["zoom in"] * 5 + ["still"] * 5 + ["still"] * 5 + ["pan left"] * 3 + ["unsure", "tilt up"]
    found = video_shares(answers, TRUTH, 0.5)
    assert found["frames"] == 10
    assert (found["right"], found["unsure"], found["wrong"]) == (0.8, 0.1, 0.1)
    assert found["by_move"] == {"still": 1.0, "pan left": 0.6}
    assert video_shares(answers, TRUTH, 0.4)["wrong"] == pytest.approx(3 / 12)


def test_each_photo_gives_one_clip_and_the_moves_take_turns(tmp_path: Path) -> None:
    for number in range(8):
        picture = np.random.default_rng(number).integers(0, 256, (140, 150, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    clips, labels = photo_clips(tmp_path, 3, 32)
    assert [clip.shape for clip in clips] == [(3, 32, 32, 3)] * 8
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    again, _ = photo_clips(tmp_path, 3, 32)
    assert all(np.array_equal(one, other) for one, other in zip(clips, again, strict=True))


def test_a_row_has_every_share() -> None:
    row = {
        "point": "w1.00-f08-r064-int8", "madds": 75_700_000, "latency_ms": 9.876, "select": 0.98, "test": 0.971,
        "photos": 0.9, "video": {"right": 0.85, "unsure": 0.1, "wrong": 0.05},
    }  # fmt: skip
    assert line(row) == "| w1.00-f08-r064-int8 | 75.7 | 9.88 | 98.0% | 97.1% | 90.0% | 85.0% | 10.0% | 5.0% |"
