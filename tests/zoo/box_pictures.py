"""Pictures for the tests of detectors: each class is one plain colour, so that a tiny network learns them at once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS_RGB = {"blue": (30, 40, 230), "green": (30, 200, 40), "red": (230, 40, 30)}


def write_colours(root: Path, train_per_class: int = 20, test_per_class: int = 6, frame_px: int = 0) -> Path:
    """`train/<class>/*.png` and `test/<class>/*.png`, 32 pixels wide, in a white frame; each has a shade of its own."""
    draw = np.random.default_rng(0)
    for part, count in (("train", train_per_class), ("test", test_per_class)):
        for name, colour in COLOURS_RGB.items():
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                shade = np.clip(np.array(colour) + draw.integers(-20, 21, 3), 0, 255)
                picture = np.full((32, 32, 3), 255, np.uint8)
                picture[frame_px : 32 - frame_px, frame_px : 32 - frame_px] = shade[::-1]
                cv2.imwrite(str(root / part / name / f"{index:03d}.png"), picture)
    return root
