"""Small labelled pictures for training tests: a coloured disc, square or stripes on a plain ground."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("disc", "square", "stripes")


def draw_shape(kind: str, draw: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB; position, size and brightness vary, the shape and its hue say the class."""
    height, width = size_hw
    picture = np.full((height, width, 3), draw.integers(0, 60), np.uint8)
    colour = np.roll([220, 60, 60], CLASSES.index(kind)).astype(int) + draw.integers(-30, 31, 3)
    colour = tuple(int(c) for c in np.clip(colour, 0, 255))
    radius = int(min(size_hw) * draw.uniform(0.25, 0.4))
    x, y = int(draw.integers(radius, width - radius + 1)), int(draw.integers(radius, height - radius + 1))
    if kind == "disc":
        cv2.circle(picture, (x, y), radius, colour, -1)
    elif kind == "square":
        cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
    else:
        picture[y % 4 :: 4] = colour
    return picture


def write_tree(root: Path, train_per_class: int = 16, test_per_class: int = 4, seed: int = 0) -> Path:
    """`train/<class>/*.png` and `test/<class>/*.png` under root, of several sizes; PNG keeps every pixel."""
    draw = np.random.default_rng(seed)
    for part, count in (("train", train_per_class), ("test", test_per_class)):
        for kind in CLASSES:
            folder = root / part / kind
            folder.mkdir(parents=True)
            for index in range(count):
                picture = draw_shape(kind, draw, [(24, 24), (20, 28), (32, 24)][index % 3])
                cv2.imwrite(str(folder / f"{index:03d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return root


def zip_tree(root: Path, path: Path, top: str = "") -> Path:
    """A zip of the tree, under a top folder if one is named."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            name = f"{top}{file.relative_to(root).as_posix()}"
            archive.writestr(name, file.read_bytes())  # write() would tidy "./"
    return path
