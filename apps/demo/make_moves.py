"""Make a video of a camera that moves in known ways, for the network of `make demo-moves`.

    python -m apps.demo.make_moves --out out/moves.mp4

Stills of the demo clip are filmed as photographs are: the camera stands still, pans, tilts and zooms, held by a hand.
Beside the video goes out/moves.json, which says what the camera does in each frame. The same command makes the same
frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from apps.demo.camera_motion import HEIGHT, WIDTH
from apps.demo.make_wall import read_clip, write_video
from edge_runtime.errors import EdgeRuntimeError, SinkError

HERE = Path(__file__).resolve().parent
FRAMES_PER_MOVE = 60
ORDER = ("still", "pan right", "tilt up", "zoom in", "pan left", "still", "zoom out", "tilt down")
NEAR, CLOSE, FAR = 0.50, 0.42, 0.92  # width of the view, of the still's: to pan over it, and the ends of a zoom
EDGE = 0.27  # where a pan begins and ends, of the still's width and height
SHAKE_HZ, SHAKE_PX = np.array([0.4, 0.9, 2.1, 4.3]), np.array([3.0, 2.0, 1.0, 0.4])
ROLL_DEG_PER_PX = 0.06


def main(argv: list[str] | None = None) -> int:
    """Parse the command, make the video, say so and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the video to write, for instance out/moves.mp4")
    arguments = parser.parse_args(argv)
    try:
        print(make_moves(HERE / "demo.mp4", HERE / "segments.json", arguments.out))
    except EdgeRuntimeError as error:
        print(f"make_moves: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_moves(clip: Path, segments: Path, out: Path) -> str:
    """Write the video and what is true of it, and return one line about them.

    Raises:
        SourceError: the clip cannot be read.
        SinkError: the video cannot be written.
    """
    truth = json.loads(segments.read_text(encoding="utf-8"))
    frames = read_clip(clip, truth["frames"])
    stills = [frames[(s["first_frame"] + s["last_frame"]) // 2] for s in truth["segments"]]
    write_video(out, truth["fps"], moving_frames(stills))
    moves = [
        {"first_frame": at * FRAMES_PER_MOVE, "last_frame": (at + 1) * FRAMES_PER_MOVE - 1, "move": move}
        for at, move in enumerate(ORDER)
    ]
    try:
        out.with_suffix(".json").write_text(json.dumps({"fps": truth["fps"], "moves": moves}, indent=1) + "\n")
    except OSError as error:
        raise SinkError(f"{out.with_suffix('.json')}: cannot be written: {error.strerror}") from error
    return f"{out}: {len(ORDER)} moves of {FRAMES_PER_MOVE} frames, {out.stat().st_size / 1e6:.2f} MB"


def moving_frames(stills: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames of the video, (480, 640, 3) uint8 BGR; each move has the next still.

    Args:
        stills: (H, W, 3) uint8 BGR, of the video's shape or larger.
    """
    for number, move in enumerate(ORDER):
        shake = _shake(np.random.default_rng(number))
        for index in range(FRAMES_PER_MOVE):
            x, y, width = view_of(move, index / (FRAMES_PER_MOVE - 1))
            yield _seen(stills[number % len(stills)], (x, y, width), shake[index])


def view_of(move: str, part: float) -> tuple[float, float, float]:
    """Centre and width of what the camera frames, of the still's width and height.

    Args:
        move: one of ORDER.
        part: of the move's time, 0-1.
    """
    along = EDGE + (1.0 - 2.0 * EDGE) * part
    centres = {"pan right": (along, 0.5), "pan left": (1.0 - along, 0.5), "tilt down": (0.5, along)}
    x, y = centres.get(move, (0.5, 1.0 - along if move == "tilt up" else 0.5))
    shares = {"zoom in": part, "zoom out": 1.0 - part}
    return x, y, NEAR if move not in shares else FAR * (CLOSE / FAR) ** shares[move]


def _shake(draw: np.random.Generator) -> np.ndarray:
    """Of a hand: pixels right and down and degrees for each frame, (FRAMES_PER_MOVE, 3)."""
    time_s = np.arange(FRAMES_PER_MOVE)[:, None, None] / 30.0
    waves = np.sin(2.0 * np.pi * (SHAKE_HZ[:, None] * time_s + draw.uniform(0.0, 1.0, (len(SHAKE_HZ), 3))))
    return (waves * SHAKE_PX[:, None]).sum(1) * (1.0, 1.0, ROLL_DEG_PER_PX)


def _seen(still: np.ndarray, view: tuple[float, float, float], shake: np.ndarray) -> np.ndarray:
    height, width = still.shape[:2]
    zoom, roll = view[2] * width / WIDTH, np.radians(shake[2])
    turn = zoom * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    centre = np.array([view[0] * width, view[1] * height]) - 0.5
    corner = centre - turn @ (np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) - shake[:2])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([turn, corner])
    return cv2.warpAffine(still, matrix, (WIDTH, HEIGHT), flags=how, borderMode=cv2.BORDER_REFLECT_101)


if __name__ == "__main__":
    sys.exit(main())
