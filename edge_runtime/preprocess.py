"""From a frame to the network's input: fit, resize, normalise, lay out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import FrameError

if TYPE_CHECKING:
    from edge_runtime.manifest import Preprocessing

FITS = ("crop", "squash")
"""crop: the largest centred rectangle of the input's shape; squash: the whole picture, stretched."""
RESIZES = ("area", "cubic")
"""area: area averaging when shrinking, bilinear otherwise; cubic: bicubic, after area averaging to twice the size where
the picture is larger than that."""


@dataclass(frozen=True)
class TensorSpec:
    """How the network wants its pictures."""

    mean: tuple[float, float, float]
    """Subtracted from each RGB channel, in 0-255 units."""
    std: tuple[float, float, float]
    """Divides each channel after the mean."""
    fit: str = "crop"
    crop_share: float = 1.0
    """With fit "crop": the share of the largest centred rectangle's sides that is kept."""
    resize: str = "area"
    """One of RESIZES."""

    @staticmethod
    def from_facts(facts: Preprocessing) -> TensorSpec:
        """As a manifest states them."""
        return TensorSpec(facts.mean, facts.std, facts.fit, facts.crop_share, facts.resize)

    @functools.cached_property
    def constants(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scale and offset so that input = pixel * scale + offset, each (3, 1, 1) float32."""
        scale = 1.0 / np.array(self.std, np.float64)
        offset = -np.array(self.mean, np.float64) * scale
        return scale.astype(np.float32).reshape(3, 1, 1), offset.astype(np.float32).reshape(3, 1, 1)


def crop_box(height: int, width: int, size_hw: tuple[int, int], share: float = 1.0) -> tuple[int, int, int, int]:
    """The centred rectangle with the input's aspect ratio: (top, left, rows, columns) in pixels."""
    rows, columns = height, width  # whole numbers: 56 * (61 / 56) is less than 61
    if height * size_hw[1] > width * size_hw[0]:
        rows = width * size_hw[0] // size_hw[1]
    else:
        columns = height * size_hw[1] // size_hw[0]
    rows, columns = max(1, int(rows * share)), max(1, int(columns * share))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def seen_part(height: int, width: int, size_hw: tuple[int, int], spec: TensorSpec) -> tuple[int, int, int, int]:
    """What of a frame reaches a network of this input size: (top, left, rows, columns) in pixels of the frame."""
    if spec.fit == "crop":
        return crop_box(height, width, size_hw, spec.crop_share)
    return 0, 0, height, width


def resize_rgb(picture: npt.NDArray[np.uint8], size_hw: tuple[int, int], how: str = "area") -> npt.NDArray[np.uint8]:
    """Change a picture's size; training calibrates with the same function and "area".

    Args:
        picture: (H, W, 3) uint8 RGB, or the frames of a clip (T, H, W, 3); not changed.
        size_hw: rows and columns of the result.
        how: one of RESIZES.
    Returns:
        (rows, columns, 3) or (T, rows, columns, 3) uint8; the picture itself when it has that size already.
    """
    import cv2

    height, width = picture.shape[-3:-1]
    if (height, width) == size_hw:
        return picture
    if picture.ndim == 4:
        return np.stack([resize_rgb(frame, size_hw, how) for frame in picture])
    if how == "cubic":
        kernel = cv2.INTER_CUBIC
        if height > 2 * size_hw[0] and width > 2 * size_hw[1]:  # bicubic alone would skip pixels
            picture = cv2.resize(picture, (2 * size_hw[1], 2 * size_hw[0]), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    else:
        shrinks = size_hw[0] <= height and size_hw[1] <= width
        kernel = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (size_hw[1], size_hw[0]), interpolation=kernel)  # type: ignore[return-value]


def chosen_frames(have: int, wanted: int) -> list[int]:
    """Which frames of a clip a point of fewer frames reads: evenly, over the same time, the newest among them.

    Args:
        have: frames of the clip.
        wanted: at most `have`.
    """
    return [have - 1 - (k * have) // wanted for k in reversed(range(wanted))]


def preprocess(
    pixels: npt.NDArray[np.uint8],
    spec: TensorSpec,
    size: tuple[int, ...],
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Make the network's input from a picture or a clip.

    Args:
        pixels: (H, W, 3) uint8 RGB, or a clip (T, H, W, 3); not changed.
        spec: fit and normalisation.
        size: of the operating point: (rows, columns), or (frames, rows, columns) with at most T frames.
        out: (1, 3, *size) float32 to write into; newly allocated when None.
    Returns:
        (1, 3, *size) float32, contiguous.
    Raises:
        FrameError: the picture is empty, or the clip has too few frames.
    """
    if out is None:
        out = np.empty((1, 3, *size), np.float32)
    if len(size) == 2:
        write_normalised(fitted(pixels, spec, (size[0], size[1])), spec, out[0])
        return out
    if pixels.ndim != 4 or len(pixels) < size[0]:
        raise FrameError(f"clip is {'x'.join(map(str, pixels.shape))}, expected {size[0]} frames (T, H, W, 3) or more")
    for slot, row in enumerate(chosen_frames(len(pixels), size[0])):
        write_normalised(fitted(pixels[row], spec, (size[1], size[2])), spec, out[0, :, slot])
    return out


def fitted(pixels: npt.NDArray[np.uint8], spec: TensorSpec, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A picture cut and resized for the network.

    Args:
        pixels: (H, W, 3) uint8 RGB; not changed.
        spec: fit and kernel.
        size_hw: rows and columns of the result.
    Returns:
        (rows, columns, 3) uint8; may be a view of the picture.
    Raises:
        FrameError: the picture is empty.
    """
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise FrameError(f"picture is {height}x{width}, expected at least one pixel")
    top, left, rows, columns = seen_part(height, width, size_hw, spec)
    return resize_rgb(pixels[top : top + rows, left : left + columns], size_hw, spec.resize)


def write_normalised(small: npt.NDArray[np.uint8], spec: TensorSpec, out: npt.NDArray[np.float32]) -> None:
    """Normalise a fitted picture (rows, columns, 3) uint8 into `out` (3, rows, columns) float32."""
    scale, offset = spec.constants
    np.multiply(small.transpose(2, 0, 1), scale, out=out)
    np.add(out, offset, out=out)
