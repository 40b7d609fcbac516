"""Make a video in which looking matters: the demo clip, small and drifting, on a wall of textures and pieces.

    python -m apps.demo.make_wall --out out/wall.mp4

Every shot of the demo clip plays on a square that covers a small share of the wall, at a place that moves; everything
around it is a texture and small pieces of the other shots. It is what the network of `make demo-focus` was trained for.
The same command makes the same frames.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from apps.camera.video_writer import VideoSaver
from edge_runtime.errors import EdgeRuntimeError, SinkError, SourceError

HERE = Path(__file__).resolve().parent
SQUARE_SHARE = (0.30, 0.40)
"""Smallest and largest side of the square, of the wall's height."""
ROWS = (0.13, 0.70)
"""Where the square stays, of the wall's height: between what the camera app writes at the top and at the bottom."""
PIECES, PIECE_SHARE = (8, 13), (0.06, 0.16)
"""Fewest and most pieces of other shots, and their sides; too small to be recognised."""
DRIFT_PX = (1.5, 4.0)
"""Between two frames."""
CONTRAST = 60
"""Of the texture: its colours lie so far from grey at most."""


def main(argv: list[str] | None = None) -> int:
    """Parse the command, make the video, say so and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the video to write, for instance out/wall.mp4")
    arguments = parser.parse_args(argv)
    try:
        print(make_wall(HERE / "demo.mp4", HERE / "segments.json", arguments.out))
    except EdgeRuntimeError as error:
        print(f"make_wall: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_wall(clip: Path, segments: Path, out: Path) -> str:
    """Write the video and return one line about it.

    Raises:
        SourceError: the clip cannot be read.
        SinkError: the video cannot be written.
    """
    truth = json.loads(segments.read_text(encoding="utf-8"))
    frames = read_clip(clip, truth["frames"])
    write_video(
        out, truth["fps"], wall_frames(frames, [(s["first_frame"], s["last_frame"]) for s in truth["segments"]])
    )
    height, width = frames[0].shape[:2]
    return f"{out}: {len(frames)} frames, {width}x{height}, {out.stat().st_size / 1e6:.2f} MB"


def wall_frames(frames: list[np.ndarray], shots: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Frames of the wall, (H, W, 3) uint8, in the clip's channel order.

    Args:
        frames: of the clip, all (H, W, 3) uint8.
        shots: first and last frame of each.
    """
    for number, (first, last) in enumerate(shots):
        draw = np.random.default_rng(number)
        height, width = frames[first].shape[:2]
        others = [frames[(a + b) // 2] for at, (a, b) in enumerate(shots) if at != number]
        wall = _wall(height, width, others, draw)
        side = round(height * draw.uniform(*SQUARE_SHARE))
        left_edge = (width - height) // 2  # a network crops the middle square
        above, below = (round(height * share) for share in ROWS)
        corners = _drift(np.array([below - above - side, height - side]), last - first + 1, draw) + (above, 0)
        for frame, (top, left) in zip(frames[first : last + 1], corners, strict=True):
            made = wall.copy()
            square = cv2.resize(_middle(frame), (side, side), interpolation=cv2.INTER_AREA)
            made[top : top + side, left_edge + left : left_edge + left + side] = square
            yield made


def _drift(room: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Corners (count, 2) of something that goes straight on and turns back at the edges of 0 to room (2,)."""
    start, angle = draw.uniform(0.0, room), draw.uniform(0.0, 2.0 * np.pi)
    way = np.arange(count)[:, None] * draw.uniform(*DRIFT_PX) * np.array([np.sin(angle), np.cos(angle)])
    return np.rint(room - np.abs((start + way) % (2.0 * room) - room)).astype(int)


def _wall(height: int, width: int, others: list[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """A texture with pieces of other shots on it."""
    cells = int(draw.choice([3, 6, 12]))
    coarse = draw.integers(128 - CONTRAST, 128 + CONTRAST, (cells, cells, 3), np.uint8)
    wall = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(draw.integers(PIECES[0], PIECES[1] + 1))):
        side = round(height * draw.uniform(*PIECE_SHARE))
        other = others[int(draw.integers(len(others)))]
        top, left = (int(draw.integers(0, extent - side + 1)) for extent in other.shape[:2])
        piece = other[top : top + side, left : left + side]
        top, left = int(draw.integers(0, height - side + 1)), int(draw.integers(0, width - side + 1))
        wall[top : top + side, left : left + side] = piece
    return wall


def _middle(frame: np.ndarray) -> np.ndarray:
    """The middle square of a frame that is wider than high."""
    height, width = frame.shape[:2]
    left = (width - height) // 2
    return frame[:, left : left + height]


def write_video(out: Path, fps: float, frames_bgr: Iterable[np.ndarray]) -> None:
    """Write all frames, (H, W, 3) uint8 BGR each, or leave nothing behind.

    Raises:
        SinkError: the video cannot be written.
    """
    _remove(out)
    troubles: list[str] = []
    with VideoSaver(out, fps, troubles.append) as saver:
        for frame in frames_bgr:
            saver.write(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    if saver.failed:
        _remove(out)
        raise SinkError(troubles[0].partition("; the run")[0])


def _remove(path: Path) -> None:
    """Take a file away if it is there; what is wrong with its place, writing will tell."""
    with contextlib.suppress(OSError):
        path.unlink()


def read_clip(clip: Path, count: int) -> list[np.ndarray]:
    """All frames of the clip."""
    video = cv2.VideoCapture(str(clip))
    frames = []
    while len(frames) < count:
        found, frame = video.read()
        if not found:
            break
        frames.append(frame)
    video.release()
    if len(frames) < count:
        raise SourceError(
            f"{clip}: {len(frames)} of {count} frames could be read; get the file again from the checkout"
        )
    return frames


if __name__ == "__main__":
    sys.exit(main())
