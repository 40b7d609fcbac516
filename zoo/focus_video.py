"""Made-up videos of cluttered scenes: one labelled picture drifts over a canvas that stays as it is."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from zoo.augment import augmented_batch
from zoo.focus_scenes import EVALUATION, SceneSpec, draw_ground
from zoo.pictures import PictureSource

VIDEO = EVALUATION + 2  # stands in for the epoch in the seed, as EVALUATION does
DRIFT = (0.5, 1.5)  # pixels a frame: in 30 frames at most a third of a canvas of 128


def drifting_scenes(
    source: PictureSource, name: str, pool: Sequence[str], spec: SceneSpec, seed: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """A video of one picture, which goes straight on and turns back at the canvas's edges.

    Size, place, direction, speed and everything on the canvas depend on seed and name alone. Nothing covers the
    picture.

    Args:
        name: the labelled picture; unaugmented, as in evaluation.
        pool: names of pictures that pieces are cut from.
        frames: 1 or more.
    Returns:
        scenes (frames, canvas, canvas, 3) uint8 RGB, and where the picture lies: (frames, 3) int64 top, left, side.
    """
    draw = np.random.default_rng((seed, VIDEO, zlib.crc32(name.encode())))
    side = int(draw.integers(spec.objects[0], spec.objects[1] + 1))
    picture = augmented_batch(source, [name], [0], side, "none", seed, 0)[0]
    ground = draw_ground(source, pool, spec, draw)
    room = spec.canvas - side
    start, angle, speed = draw.uniform(0.0, room, 2), draw.uniform(0.0, 2.0 * np.pi), draw.uniform(*DRIFT)
    way = np.arange(frames)[:, None] * speed * np.array([np.sin(angle), np.cos(angle)])
    corners = np.rint(_turned_back(start + way, room)).astype(np.int64)
    scenes = np.repeat(ground[None], frames, 0)
    for scene, (top, left) in zip(scenes, corners, strict=True):
        scene[top : top + side, left : left + side] = picture
    return scenes, np.concatenate([corners, np.full((frames, 1), side)], 1)


def _turned_back(positions: np.ndarray, room: float) -> np.ndarray:
    """Positions of something that bounces between 0 and room."""
    return room - np.abs(positions % (2.0 * max(room, 1e-9)) - room)
