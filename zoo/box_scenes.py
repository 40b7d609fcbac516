"""Cluttered scenes with boxes: one to three labelled pictures on a canvas of textures and pieces of other pictures.

The ground is that of zoo.focus_scenes. Labelled pictures lie over the pieces, in whatever is there, and cover each
other only a little. A scene depends on its seed, its number and its split alone; everything on it is from that split.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from zoo.augment import augmented_batch
from zoo.focus_scenes import EVALUATION, SceneSpec, draw_ground
from zoo.pictures import PictureSource, Split

TRIES = 20  # places that are drawn for a picture before it is left out
PURPOSE = 3  # in the seeds, so that these scenes draw other numbers than those of zoo.focus_scenes


@dataclass(frozen=True)
class BoxSceneSpec:
    """How a scene is made."""

    ground: SceneSpec = field(default_factory=lambda: SceneSpec(objects=(32, 72)))
    """Canvas and pieces; `objects` are the smallest and largest longer side of a labelled picture, pixels."""
    counts: tuple[int, int] = (1, 3)
    """Fewest and most labelled pictures; where the canvas is too full for all, the last ones are left out."""
    aspect: float = 4 / 3
    """Most that the longer side of a labelled picture is of the shorter one."""
    covered: float = 0.1
    """Largest share of a labelled picture that another one may lie over."""


@dataclass(frozen=True)
class BoxScene:
    """One scene and what is to be found in it."""

    pixels: np.ndarray
    """(canvas, canvas, 3) uint8 RGB."""
    boxes_yxyx: np.ndarray
    """(G, 4) float32 y0, x0, y1, x1 in pixels of the canvas, the ends just outside; G is 1 or more."""
    labels: np.ndarray
    """(G,) int64, index into the class names."""

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """(G, 4) float32 x0, y0, x1, y1: the order of zoo.efficientdet_boxes."""
        return self.boxes_yxyx[:, [1, 0, 3, 2]]


class BoxSceneSet:
    """The evaluation scenes of one split, one for each of its pictures, in place of a PictureSource.

    Scenes are kept once they are made; do not write into them.

    Args:
        source: the pictures.
        split: those that the scenes show, labelled and in pieces.
        spec: how scenes are made.
        seed: of every draw.
    """

    def __init__(self, source: PictureSource, split: Split, spec: BoxSceneSpec, seed: int) -> None:
        self.source, self.split, self.spec, self.seed = source, split, spec, seed
        self._rows = {name: row for row, name in enumerate(split.names)}
        self._made: dict[str, BoxScene] = {}

    def __len__(self) -> int:
        return len(self.split)

    def scene(self, name: str) -> BoxScene:
        """The scene of a picture of the split, which is its first labelled picture."""
        if name not in self._made:
            draw = np.random.default_rng((self.seed, EVALUATION, zlib.crc32(name.encode()), PURPOSE))
            self._made[name] = _draw_scene(
                self.source, self.split, self._rows[name], self.spec, "none", draw, (self.seed, 0)
            )
        return self._made[name]

    def picture(self, name: str) -> np.ndarray:
        """Its pixels, as a PictureSource gives them."""
        return self.scene(name).pixels


def training_scenes(
    source: PictureSource, split: Split, rows: Sequence[int], spec: BoxSceneSpec, augmentation: str, seed: int,
    epoch: int,
) -> list[BoxScene]:  # fmt: skip
    """New scenes, each with one of these pictures and others of the split.

    Args:
        rows: the position in the split of the first labelled picture of each; with seed and epoch it fixes every draw.
        augmentation: of the labelled pictures, one of zoo.augment.AUGMENTATIONS.
    """
    return [
        _draw_scene(
            source, split, int(row), spec, augmentation, np.random.default_rng((seed, epoch, int(row), PURPOSE)),
            (seed, epoch),
        )
        for row in rows
    ]  # fmt: skip


def _draw_scene(
    source: PictureSource, split: Split, row: int, spec: BoxSceneSpec, augmentation: str, draw: np.random.Generator,
    seed_epoch: tuple[int, int],
) -> BoxScene:  # fmt: skip
    """The picture of a row, and others of the split, on a new ground."""
    ground = spec.ground
    rows = [row, *draw.integers(len(split), size=int(draw.integers(spec.counts[0], spec.counts[1] + 1)) - 1)]
    canvas = draw_ground(source, split.names, ground, draw)
    boxes, labels = np.zeros((0, 4), np.float32), []
    for slot, chosen in enumerate(rows):
        side = int(draw.integers(ground.objects[0], ground.objects[1] + 1))
        key = row * spec.counts[1] + slot  # each picture of an epoch has draws of its own
        square = augmented_batch(source, [split.names[chosen]], [key], side, augmentation, *seed_epoch)[0]
        crop = _cut_to_aspect(square, float(draw.uniform(1.0, spec.aspect)), bool(draw.random() < 0.5))
        box = _free_place(crop.shape[:2], canvas.shape[0], boxes, spec.covered, draw)
        if box is None:
            continue
        top, left, bottom, right = box.astype(int)
        canvas[top:bottom, left:right] = crop
        boxes = np.concatenate((boxes, box[None]))
        labels.append(split.labels[chosen])
    return BoxScene(canvas, boxes, np.array(labels, np.int64))


def _cut_to_aspect(square: np.ndarray, aspect: float, upright: bool) -> np.ndarray:
    """The middle of a square picture, its longer side `aspect` times the shorter one."""
    side = square.shape[0]
    short = max(1, round(side / aspect))
    start = (side - short) // 2
    return square[:, start : start + short] if upright else square[start : start + short]


def _free_place(
    size_hw: tuple[int, int], canvas: int, boxes_yxyx: np.ndarray, covered: float, draw: np.random.Generator
) -> np.ndarray | None:
    """A box (4,) float32 that covers at most this share of each box and is covered by no more; None: none was found."""
    height, width = size_hw
    for _ in range(TRIES):
        top, left = int(draw.integers(0, canvas - height + 1)), int(draw.integers(0, canvas - width + 1))
        box = np.array([top, left, top + height, left + width], np.float32)
        low, high = np.maximum(boxes_yxyx[:, :2], box[:2]), np.minimum(boxes_yxyx[:, 2:], box[2:])
        both = np.clip(high - low, 0, None).prod(1)
        smaller = np.minimum((boxes_yxyx[:, 2:] - boxes_yxyx[:, :2]).prod(1), height * width)
        if np.all(both <= covered * smaller):
            return box
    return None
