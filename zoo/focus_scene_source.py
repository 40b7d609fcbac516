"""Cluttered scenes as a picture source, so that any network can be trained on them as on pictures: the baselines."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from zoo.augment import augmented_batch
from zoo.focus_scenes import EVALUATION, SceneSpec, draw_scene, evaluation_scenes
from zoo.pictures import PictureSource, Split

COPY = "#"  # between a picture's name and the number of its scene


class SceneSource(PictureSource):
    """Scenes in place of pictures: those of evaluation are the ones that `zoo.gfnet_views` shows.

    Each training picture has several scenes, named "train/dog/1.jpg#3"; held-out and test pictures have one.

    Args:
        root: the pictures, as PictureSource.
        spec: how scenes are made.
        copies: scenes for each training picture.
        seed: of every draw.
        augmentation: of the labelled picture in training scenes.
    """

    def __init__(
        self, root: str | Path, spec: SceneSpec, copies: int = 2, seed: int = 0,
        augmentation: str = "basic",
    ) -> None:  # fmt: skip
        super().__init__(root)
        self.spec, self.copies, self.seed, self.augmentation = spec, copies, seed, augmentation
        self._plain = PictureSource(root)
        self._pool: tuple[str, ...] = ()

    def splits(self, calib: int = 500, select: int = 500, seed: int = 0) -> dict[str, Split]:
        """As PictureSource; only the training split has several scenes of a picture, so nothing leaks."""
        found = super().splits(calib, select, seed)
        train = found["train"]
        self._pool = train.names
        names = tuple(f"{name}{COPY}{copy}" for copy in range(self.copies) for name in train.names)
        return {**found, "train": Split(names, np.tile(train.labels, self.copies))}

    def picture(self, name: str) -> np.ndarray:
        """One scene: (canvas, canvas, 3) uint8 RGB."""
        if not self._pool:
            self.splits()
        bare, _, copy = name.partition(COPY)
        if not copy:
            return evaluation_scenes(self._plain, [bare], self._pool, self.spec, self.seed)[0][0]
        row = zlib.crc32(name.encode())
        draw = np.random.default_rng((self.seed, EVALUATION + 1, row))
        side = int(draw.integers(self.spec.objects[0], self.spec.objects[1] + 1))
        picture = augmented_batch(self._plain, [bare], [row], side, self.augmentation, self.seed, int(copy))[0]
        return draw_scene(picture, self._plain, self._pool, self.spec, draw)[0]
