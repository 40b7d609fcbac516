"""The overlay's shapes: frosted panels, pills, bars, dots and the sparkline, all anti-aliased."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from apps.camera.hud_layer import Colour, Layer

SUBPIXEL_BITS = 4
"""Fixed-point bits with which OpenCV takes coordinates: a sixteenth of a pixel."""
SUPERSAMPLE = 8


def draw_panel(
    picture: npt.NDArray[np.uint8],
    left: int,
    top: int,
    width: int,
    height: int,
    radius: int,
    colour: Colour,
    opacity: float,
) -> None:
    """Frosted glass with round corners: what lies behind is blurred and darkened, so that text stays legible."""
    rows, columns = picture.shape[:2]
    width, height = min(width, columns - left), min(height, rows - top)
    if width < 2 or height < 2:
        return
    region = picture[top : top + height, left : left + width]
    coarse = cv2.resize(region, (max(1, width // 12), max(1, height // 12)), interpolation=cv2.INTER_AREA)
    frosted = cv2.resize(cv2.blur(coarse, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    glass = cv2.LUT(frosted, _tint(colour, opacity))
    mask = rounded_mask(width, height, radius)
    corner = min(radius + 1, height // 2, width // 2)
    if corner:  # outside the corners the mask is full
        for ys in (slice(0, corner), slice(height - corner, height)):
            for xs in (slice(0, corner), slice(width - corner, width)):
                weight = mask[ys, xs, None].astype(np.float32) / 255.0
                glass[ys, xs] = region[ys, xs] * (1.0 - weight) + glass[ys, xs] * weight
    region[:] = glass


def draw_rounded(
    picture: npt.NDArray[np.uint8],
    left: float,
    top: float,
    width: float,
    height: float,
    radius: float,
    colour: Colour,
    opacity: float = 1.0,
) -> None:
    """A filled rectangle with round corners."""
    layer = _rounded_layer(max(1, round(width)), max(1, round(height)), round(radius), colour, opacity)
    layer.paint(picture, round(left), round(top))


def draw_ring(
    picture: npt.NDArray[np.uint8],
    left: float,
    top: float,
    width: float,
    height: float,
    radius: float,
    thickness: float,
    colour: Colour,
) -> None:
    """The outline of a rectangle with round corners."""
    layer = _ring_layer(round(width), round(height), round(radius), max(1, round(thickness)), colour)
    layer.paint(picture, round(left), round(top))


def draw_dot(picture: npt.NDArray[np.uint8], x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled circle with its centre at a fraction of a pixel."""
    one = 1 << SUBPIXEL_BITS
    centre = (round(x * one), round(y * one))
    cv2.circle(picture, centre, max(1, round(radius * one)), colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_line(
    picture: npt.NDArray[np.uint8], points: Sequence[tuple[float, float]], thickness: int, colour: Colour
) -> None:
    """A line through points (x, y)."""
    if len(points) > 1:
        path = np.round(np.array(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(picture, [path.reshape(-1, 1, 2)], False, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_dashes(
    picture: npt.NDArray[np.uint8],
    start: tuple[float, float],
    end: tuple[float, float],
    dash_px: float,
    thickness: int,
    colour: Colour,
) -> None:
    """A dashed straight line."""
    begin, step = np.array(start, float), np.array(end, float) - np.array(start, float)
    length = float(np.hypot(*step))
    if length < 1e-6:
        return
    starts = np.arange(0.0, length, 2 * dash_px)[:, None]
    stops = np.minimum(length, starts + dash_px)
    pairs = np.stack([begin + step * starts / length, begin + step * stops / length], axis=1)
    dashes = list(np.round(pairs * (1 << SUBPIXEL_BITS)).astype(np.int32).reshape(-1, 2, 1, 2))
    cv2.polylines(picture, dashes, False, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_area(
    picture: npt.NDArray[np.uint8], points: Sequence[tuple[float, float]], floor: float, tint: Colour
) -> None:
    """The area between a line and a floor below it, at a fifth of the tint's strength."""
    if len(points) < 2:
        return
    outline = [*points, (points[-1][0], floor), (points[0][0], floor)]
    x0, x1 = int(points[0][0]), int(points[-1][0]) + 2
    y0, y1 = int(min(y for _, y in points)), int(floor) + 1
    x0, y0 = max(0, x0), max(0, y0)
    region = picture[y0:y1, x0:x1]
    if not region.size:
        return
    mask = np.zeros(region.shape[:2], np.uint8)
    path = np.round((np.array(outline) - (x0, y0)) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [path.reshape(-1, 1, 2)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    Layer.from_mask(mask, tint, 0.2).paint(picture, x0, y0)


@lru_cache(maxsize=256)
def rounded_mask(width: int, height: int, radius: int) -> npt.NDArray[np.uint8]:
    """Coverage (height, width) uint8 of a rectangle with round corners."""
    width, height = max(1, width), max(1, height)
    radius = max(0, min(radius, width // 2, height // 2))
    mask = np.full((height, width), 255, np.uint8)
    if radius:
        steps = (np.arange(radius * SUPERSAMPLE) + 0.5) / SUPERSAMPLE
        inside = (radius - steps[:, None]) ** 2 + (radius - steps[None, :]) ** 2 <= radius**2
        corner = inside.reshape(radius, SUPERSAMPLE, radius, SUPERSAMPLE).mean(axis=(1, 3))
        quarter = np.round(corner * 255).astype(np.uint8)
        mask[:radius, :radius], mask[:radius, width - radius :] = quarter, quarter[:, ::-1]
        mask[height - radius :, :radius], mask[height - radius :, width - radius :] = quarter[::-1], quarter[::-1, ::-1]
    return mask


@lru_cache(maxsize=512)
def _rounded_layer(width: int, height: int, radius: int, colour: Colour, opacity: float) -> Layer:
    return Layer.from_mask(rounded_mask(width, height, radius), colour, opacity)


@lru_cache(maxsize=64)
def _ring_layer(width: int, height: int, radius: int, thickness: int, colour: Colour) -> Layer:
    mask = rounded_mask(width, height, radius).copy()
    inner_width, inner_height = width - 2 * thickness, height - 2 * thickness
    if inner_width > 0 and inner_height > 0:
        hole = rounded_mask(inner_width, inner_height, max(0, radius - thickness))
        mask[thickness : height - thickness, thickness : width - thickness] -= hole
    return Layer.from_mask(mask, colour)


@lru_cache(maxsize=32)
def _tint(colour: Colour, opacity: float) -> npt.NDArray[np.uint8]:
    """Table (1, 256, 3) that mixes a colour over a pixel."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    return np.round(levels * (1 - opacity) + np.array(colour, np.float32) * opacity).astype(np.uint8)[None]
