"""Sizes of a network's input: of a picture, or of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.slim_net import Size


def input_shape(size: Size, batch: int = 1) -> tuple[int, ...]:
    """The shape of what a network of this size reads: (batch, 3, [frames,] height, width)."""
    sides = (size, size) if isinstance(size, int) else size
    return (batch, 3, *sides)


def clip_size(frames: int, resolution: int) -> Size:
    """A clip of square frames."""
    return (frames, resolution, resolution)


def size_facts(size: Size) -> dict[str, int]:
    """What a row of a table says of a size: "resolution" in pixels, for clips "frames" before it."""
    if isinstance(size, int):
        return {"resolution": size}
    return {"frames": size[0], "resolution": size[-1]}


def size_of(row: Mapping[str, Any]) -> Size:
    """The size that `size_facts` wrote into a row."""
    return clip_size(row["frames"], row["resolution"]) if "frames" in row else int(row["resolution"])


def size_text(size: Size) -> str:
    """A size in words."""
    return f"{size} px" if isinstance(size, int) else f"{size[0]} frames of {size[-1]} px"
