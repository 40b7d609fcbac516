"""Videos and pictures, made on the fly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, frames: int, fps: float = 25.0, codec: str = "MJPG") -> Path:
    """A video whose frame n is grey of level 10 * n with a red left half, 64 x 48."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        picture = np.full((48, 64, 3), 10 * index, np.uint8)
        picture[:, :32] = (0, 0, 200)  # BGR: red
        writer.write(picture)
    writer.release()
    return path


def write_picture(path: Path, level: int, size_hw: tuple[int, int] = (20, 30)) -> Path:
    assert cv2.imwrite(str(path), np.full((*size_hw, 3), level, np.uint8))
    return path
