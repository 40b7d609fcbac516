"""The data of a recipe: pictures, files of video, or clips made from pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.camera_moves import CameraMoves
from zoo.clip_source import ClipSource, VideoSource
from zoo.pictures import PictureSource, Split
from zoo.recipe import Recipe

STREAM = 4  # of random numbers, beside those of zoo.train and zoo.point_tuning


def open_source(recipe: Recipe, path: str | Path) -> PictureSource | ClipSource:
    """Open what the recipe trains on.

    Args:
        recipe: its `clips` says what the path holds.
        path: a folder, or a zip of pictures.
    Raises:
        DataError: there is nothing of the kind.
    """
    if recipe.clips == "videos":
        return VideoSource(path, max(recipe.frames), recipe.clip_ms, max(recipe.resolutions))
    if recipe.clips == "camera-moves":
        return CameraMoves(path, max(recipe.frames), max(recipe.resolutions))
    return PictureSource(path)


def recipe_splits(recipe: Recipe, source: PictureSource | ClipSource) -> dict[str, Split]:
    """The splits of a recipe's data, "train" with as many of its pictures as the recipe takes.

    Raises:
        DataError: there are too few.
    """
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    train = splits["train"]
    if 0 < recipe.train_pictures < len(train):
        draw = np.random.default_rng((recipe.seed, STREAM))
        rows = np.sort(draw.permutation(len(train))[: recipe.train_pictures])
        splits["train"] = Split(tuple(train.names[row] for row in rows), train.labels[rows])
    return splits
