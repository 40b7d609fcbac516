"""The video of make demo-moves: the camera does what the file beside it says, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.demo import make_moves
from edge_runtime.errors import SinkError

ROOT = Path(make_moves.__file__).parent
LENGTH = make_moves.FRAMES_PER_MOVE


def textured(seed: int) -> np.ndarray:
    """(480, 640, 3) uint8 with detail everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(make_moves.moving_frames([textured(0), textured(1)]))


def content_motion(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """How the picture moves: pixels to the right, pixels down, and growth."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (before, after)]
    corners = cv2.goodFeaturesToTrack(grey[0], 200, 0.01, 8)
    found, state, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], corners, None)
    kept = state.ravel() == 1
    turn, _ = cv2.estimateAffinePartial2D(corners[kept], found[kept])
    middle = np.array([320.0, 240.0, 1.0])
    right, down = turn @ middle - middle[:2]
    return float(right), float(down), float(np.hypot(turn[0, 0], turn[1, 0]))


@pytest.mark.parametrize("number", range(len(make_moves.ORDER)))
def test_the_picture_moves_against_the_camera(frames: list[np.ndarray], number: int) -> None:
    move = make_moves.ORDER[number]
    right, down, growth = content_motion(frames[number * LENGTH + 20], frames[number * LENGTH + 24])
    directions = {"pan right": (-1, 0), "pan left": (1, 0), "tilt up": (0, 1), "tilt down": (0, -1)}
    if move in directions:
        along = right * directions[move][0] + down * directions[move][1]
        across = abs(right * directions[move][1]) + abs(down * directions[move][0])
        assert along > 25
        assert across < along / 3
        assert growth == pytest.approx(1.0, abs=0.03)
        return
    assert max(abs(right), abs(down)) < 12  # a hand
    if move == "still":
        assert growth == pytest.approx(1.0, abs=0.02)
    else:
        assert growth > 1.03 if move == "zoom in" else growth < 0.97


def test_the_file_beside_the_video_says_what_every_frame_shows(tmp_path: Path) -> None:
    out = tmp_path / "moves.mp4"
    said = make_moves.make_moves(ROOT / "demo.mp4", ROOT / "segments.json", out)
    truth = json.loads((tmp_path / "moves.json").read_text(encoding="utf-8"))
    assert [part["move"] for part in truth["moves"]] == list(make_moves.ORDER)
    assert [part["first_frame"] for part in truth["moves"]] == [at * LENGTH for at in range(len(make_moves.ORDER))]
    capture = cv2.VideoCapture(str(out))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == truth["moves"][-1]["last_frame"] + 1
    assert "8 moves of 60 frames" in said


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_moves, "FRAMES_PER_MOVE", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError):
        make_moves.make_moves(ROOT / "demo.mp4", ROOT / "segments.json", tmp_path / "file" / "moves.mp4")
    assert make_moves.main(["--out", str(tmp_path / "file" / "moves.mp4")]) != 0
    said = capsys.readouterr().err
    assert said.startswith("make_moves: ")
    assert said.count("\n") == 1
