"""The data of a recipe: pictures, files of video, or clips made from pictures."""

from __future__ import annotations

from pathlib import Path

from zoo.camera_moves import CameraMoves
from zoo.clip_source import ClipSource, VideoSource
from zoo.pictures import PictureSource
from zoo.recipe import Recipe


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
