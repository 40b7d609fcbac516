"""Pictures of none of the classes: half of them teach a network to be unsure, the other half measures whether it is."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from zoo.pictures import DataError, PictureSource, centre_square, resize_rgb


def through_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """What a JPEG file of a picture (H, W, 3) uint8 RGB gives back; quality 1-100, colours at half the resolution."""
    done, coded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


class Strangers:
    """A source of pictures without labels, cut in two by their order of names.

    Args:
        source: a folder or zip of pictures, of any structure.
        skipped: names with one of these texts in them are left out.
        side_px: training pictures are shrunk to this, so that sharpness does not tell strangers from known classes.
        jpeg_quality: shrunk pictures go through JPEG of this quality, so that its traces tell nothing; 0: none.
    Raises:
        DataError: fewer than two pictures are left.
    """

    def __init__(
        self, source: PictureSource, skipped: Sequence[str] = (), side_px: int | None = None, jpeg_quality: int = 0
    ) -> None:
        self.source, self.side_px, self.jpeg_quality = source, side_px, jpeg_quality
        names = [n for n in source.names if not any(text in n.rsplit("/", 1)[-1] for text in skipped)]
        if len(names) < 2:
            raise DataError(f"{source.root}: expected at least two pictures of none of the classes; add some")
        self.train_names, self.test_names = tuple(names[0::2]), tuple(names[1::2])

    def picture(self, name: str) -> np.ndarray:
        """Decode one picture, (H, W, 3) uint8 RGB, at most `side_px` wide and high."""
        rgb = self.source.picture(name)
        if self.side_px is None or min(rgb.shape[:2]) <= self.side_px:
            return rgb
        small = resize_rgb(centre_square(rgb), (self.side_px, self.side_px))
        return through_jpeg(small, self.jpeg_quality) if self.jpeg_quality else small

    def draw(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """Rows of `train_names` for one batch, (count,) int64."""
        return draw.choice(len(self.train_names), count, replace=count > len(self.train_names))
