"""Training augmentation whose every draw depends on (seed, epoch, picture) alone.

So a resumed run sees the same pictures, and so do two processes that share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from zoo.clip_source import ClipSource
from zoo.pictures import PictureSource, at_size, centre_square, resize_rgb
from zoo.slim_net import Size
from zoo.strangers import Strangers

AUGMENTATIONS = ("none", "light", "basic", "strong", "camera", "mixed")
MIXED = ("light", "camera")  # each picture by one of these, evenly
# 0.25: MutualNet's for mobile nets; light: for a few epochs
MIN_CROP_SHARE = {"light": 0.5, "basic": 0.25, "strong": 0.15, "camera": 0.35}
JITTER = {"light": 0.2, "basic": 0.4, "strong": 0.5, "camera": 0.5}
GREY = np.array([0.299, 0.587, 0.114], np.float32)


def augmented_batch(
    source: PictureSource | ClipSource | Strangers,
    names: Sequence[str],
    indices: Sequence[int],
    size: Size,
    kind: str,
    seed: int,
    epoch: int,
) -> np.ndarray:
    """Crop, flip and colour one batch; clips are cropped and coloured alike in all frames, and never flipped.

    Args:
        names: which pictures.
        indices: the position of each picture in its split; with seed and epoch it fixes every draw.
        size: side of the result in pixels, or (frames, height, width) of clips.
        kind: one of AUGMENTATIONS; "none" is what evaluation sees.
    Returns:
        (pictures, side, side, 3) uint8 RGB, or (clips, frames, height, width, 3).
    """
    found = []
    for name, index in zip(names, indices, strict=True):
        draw = np.random.default_rng((seed, epoch, int(index)))
        if isinstance(source, ClipSource):
            found.append(_augment_clip(source, name, size, kind, draw))
        else:
            found.append(_augment(source.picture(name), size, kind, draw))
    return np.stack(found)


def shrink_batch(batch: np.ndarray, size: Size) -> np.ndarray:
    """The same crops at a smaller size, by the deployment resize; clips with fewer frames of the same time, too."""
    if batch.shape[1:-1] == ((size, size) if isinstance(size, int) else size):
        return batch
    return np.stack([at_size(picture, size) for picture in batch])


def _augment_clip(source: ClipSource, name: str, size: Size, kind: str, draw: np.random.Generator) -> np.ndarray:
    """A flip would turn "left" into "right"; turning and blurring, which a camera does over time, are left out too."""
    if kind == "none":
        return at_size(centre_square(source.picture(name)), size)
    if kind == "mixed":
        kind = MIXED[int(draw.integers(len(MIXED)))]
    clip = source.drawn(name, draw)
    clip = _random_crop(clip, MIN_CROP_SHARE[kind], draw) if source.cropped else centre_square(clip)
    return _jitter(at_size(clip, size), JITTER[kind], draw)


def _augment(picture: np.ndarray, resolution: int, kind: str, draw: np.random.Generator) -> np.ndarray:
    if kind == "none":
        return resize_rgb(centre_square(picture), (resolution, resolution))
    if kind == "mixed":
        kind = MIXED[int(draw.integers(len(MIXED)))]
    if kind in ("strong", "camera"):
        picture = _soften(picture, draw)
    crop = _random_crop(picture, MIN_CROP_SHARE[kind], draw)
    crop = resize_rgb(crop, (resolution, resolution))
    if draw.random() < 0.5:
        crop = crop[:, ::-1]
    crop = _jitter(crop, JITTER[kind], draw)
    return _erase(crop, draw) if kind == "strong" else crop


def _random_crop(picture: np.ndarray, min_share: float, draw: np.random.Generator) -> np.ndarray:
    """A crop of random area and aspect ratio, one for all frames of a clip; the centre square when none fits."""
    height, width = picture.shape[-3:-1]
    for _ in range(10):
        area = height * width * draw.uniform(min_share, 1.0)
        aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        rows, columns = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = draw.integers(0, height - rows + 1), draw.integers(0, width - columns + 1)
            return picture[..., top : top + rows, left : left + columns, :]
    return centre_square(picture)


def _jitter(crop: np.ndarray, strength: float, draw: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each by a factor of 1 +- strength."""
    brightness, contrast, saturation = 1.0 + draw.uniform(-strength, strength, 3).astype(np.float32)
    pixels = crop.astype(np.float32) * brightness
    grey = pixels @ GREY
    pixels = grey[..., None] * (1.0 - saturation) + pixels * saturation
    pixels = (pixels - grey.mean()) * contrast + grey.mean()
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _soften(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """What a camera adds and a photo archive lacks: rotation, blur, low detail."""
    height, width = picture.shape[:2]
    if draw.random() < 0.5:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), draw.uniform(-15, 15), 1.0)
        picture = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    if draw.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), draw.uniform(0.3, 1.2))
    if draw.random() < 0.3:
        share = draw.uniform(0.4, 0.9)
        small = resize_rgb(picture, (max(8, int(height * share)), max(8, int(width * share))))
        picture = resize_rgb(small, (height, width))
    return picture


def _erase(crop: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Random erasing: one rectangle of noise in a quarter of the pictures."""
    if draw.random() >= 0.25:
        return crop
    side = crop.shape[0]
    rows, columns = draw.integers(side // 8, side // 2, 2)
    top, left = draw.integers(0, side - rows + 1), draw.integers(0, side - columns + 1)
    crop = crop.copy()
    crop[top : top + rows, left : left + columns] = draw.integers(0, 256, (rows, columns, 3), np.uint8)
    return crop
