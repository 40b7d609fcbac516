"""A small transparent picture in one colour, ready to be painted many times."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]
"""RGB, 0-255."""


@dataclass(frozen=True)
class Layer:
    """Colour times coverage, and what the coverage leaves of the picture below; both (h, w, 3) uint8."""

    ink: npt.NDArray[np.uint8]
    left_over: npt.NDArray[np.uint8]

    @staticmethod
    def from_mask(mask: npt.NDArray[np.uint8], colour: Colour, opacity: float = 1.0) -> Layer:
        """Make a layer from coverage (h, w) uint8, 255 for full; `opacity` 0-1 thins it."""
        coverage = mask[..., None].astype(np.float32) * (min(1.0, max(0.0, opacity)) / 255.0)
        ink = np.round(coverage * np.array(colour, np.float32)).astype(np.uint8)
        left_over = np.repeat(np.floor((1.0 - coverage) * 255.0).astype(np.uint8), 3, axis=2)
        return Layer(ink, left_over)

    def paint(self, picture: npt.NDArray[np.uint8], left: int, top: int) -> None:
        """Paint into (H, W, 3) uint8 RGB with the upper left corner at (left, top); what lies outside is cut."""
        rows, columns = picture.shape[:2]
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(rows, top + self.ink.shape[0]), min(columns, left + self.ink.shape[1])
        if y0 >= y1 or x0 >= x1:
            return
        inside = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        region = picture[y0:y1, x0:x1]
        below = cv2.multiply(region, self.left_over[inside], scale=1.0 / 255.0)
        region[:] = cv2.add(below, self.ink[inside])
