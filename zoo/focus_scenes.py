"""Cluttered scenes: a labelled picture somewhere on a canvas of textures and pieces of other pictures.

Made while training from a seed, so that looking matters: the picture covers a small share of the canvas, at a random
size and place, and nothing else on the canvas says what it shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from zoo.augment import augmented_batch
from zoo.pictures import PictureSource, resize_rgb

EVALUATION = 1 << 30  # stands in for the epoch in the seed of scenes that do not change


@dataclass(frozen=True)
class SceneSpec:
    """How a scene is made; sides in pixels."""

    canvas: int = 128
    objects: tuple[int, int] = (36, 64)
    """Smallest and largest side of the labelled picture."""
    distractors: tuple[int, int] = (6, 12)
    """Fewest and most pieces of other pictures; a piece is too small to be recognised."""
    pieces: tuple[int, int] = (8, 22)
    """Smallest and largest side of a piece."""


def training_scenes(
    source: PictureSource, names: Sequence[str], rows: Sequence[int], pool: Sequence[str], spec: SceneSpec,
    augmentation: str, seed: int, epoch: int,
) -> np.ndarray:  # fmt: skip
    """New scenes of these pictures.

    Args:
        names: the labelled pictures.
        rows: the position of each in its split; with seed and epoch it fixes every draw.
        pool: names of pictures that pieces are cut from.
        augmentation: of the labelled picture, one of zoo.augment.AUGMENTATIONS.
    Returns:
        (pictures, canvas, canvas, 3) uint8 RGB.
    """
    made = []
    for name, row in zip(names, rows, strict=True):
        draw = np.random.default_rng((seed, epoch, int(row), 2))
        side = int(draw.integers(spec.objects[0], spec.objects[1] + 1))
        picture = augmented_batch(source, [name], [row], side, augmentation, seed, epoch)[0]
        made.append(draw_scene(picture, source, pool, spec, draw)[0])
    return np.stack(made)


def evaluation_scenes(
    source: PictureSource, names: Sequence[str], pool: Sequence[str], spec: SceneSpec, seed: int, variant: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A scene of each picture for evaluation; variant 0 is the one that results are reported on.

    Args:
        variant: 0 or more; every variant has other sizes, places, textures and pieces.
    Returns:
        scenes (pictures, canvas, canvas, 3) uint8 RGB, and where the picture lies: (pictures, 3) int64 top, left, side.
    """
    more = (variant,) if variant else ()
    scenes, boxes = [], []
    for name in names:
        draw = np.random.default_rng((seed, EVALUATION, zlib.crc32(name.encode()), *more))
        side = int(draw.integers(spec.objects[0], spec.objects[1] + 1))
        picture = augmented_batch(source, [name], [0], side, "none", seed, 0)[0]
        scene, box = draw_scene(picture, source, pool, spec, draw)
        scenes.append(scene)
        boxes.append(box)
    return np.stack(scenes), np.array(boxes, np.int64)


def draw_scene(
    picture: np.ndarray, source: PictureSource, pool: Sequence[str], spec: SceneSpec, draw: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Put one picture (side, side, 3) on a canvas of texture and pieces; nothing covers it.

    Returns:
        the canvas (canvas, canvas, 3) uint8 RGB, and top, left and side of the picture.
    """
    canvas = draw_ground(source, pool, spec, draw)
    top, left = _paste(canvas, picture, draw)
    return canvas, (top, left, picture.shape[0])


def draw_ground(source: PictureSource, pool: Sequence[str], spec: SceneSpec, draw: np.random.Generator) -> np.ndarray:
    """What lies under the labelled picture: (canvas, canvas, 3) uint8 RGB of texture and pieces of other pictures."""
    canvas = draw_texture(spec.canvas, draw)
    for _ in range(int(draw.integers(spec.distractors[0], spec.distractors[1] + 1))):
        other = source.picture(pool[int(draw.integers(len(pool)))])
        side = int(draw.integers(spec.pieces[0], spec.pieces[1] + 1))
        _paste(canvas, _piece(other, side, draw), draw)
    return canvas


def draw_texture(side: int, draw: np.random.Generator) -> np.ndarray:
    """(side, side, 3) uint8: smooth noise at one of several scales, or stripes in any direction, with grain."""
    if draw.random() < 0.6:
        cells = int(draw.choice([3, 6, 12, 32]))
        coarse = draw.integers(0, 256, (cells, cells, 3), np.uint8)
        ground = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    else:
        angle, period = draw.uniform(0, np.pi), draw.uniform(4, 24)
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
        wave = 0.5 + 0.5 * np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * (2 * np.pi / period))
        first, second = draw.integers(0, 256, (2, 3)).astype(np.float32)
        ground = wave[..., None] * first + (1.0 - wave[..., None]) * second
    grain = draw.integers(-12, 13, ground.shape)
    return np.clip(ground + grain, 0, 255).astype(np.uint8)


def _piece(picture: np.ndarray, side: int, draw: np.random.Generator) -> np.ndarray:
    """A square of a picture's own pixels, at most `side` wide."""
    height, width = picture.shape[:2]
    cut = min(side, height, width)
    top, left = int(draw.integers(0, height - cut + 1)), int(draw.integers(0, width - cut + 1))
    return resize_rgb(picture[top : top + cut, left : left + cut], (side, side))


def _paste(canvas: np.ndarray, picture: np.ndarray, draw: np.random.Generator) -> tuple[int, int]:
    rows, columns = picture.shape[:2]
    top = int(draw.integers(0, canvas.shape[0] - rows + 1))
    left = int(draw.integers(0, canvas.shape[1] - columns + 1))
    canvas[top : top + rows, left : left + columns] = picture
    return top, left
