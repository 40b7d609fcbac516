"""The overlay of a network that looks several times: where it looked, in which order, and why it stopped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from apps.camera.hud_layer import Colour
from apps.camera.hud_shapes import draw_dot, draw_line, draw_panel, draw_ring, draw_rounded
from apps.camera.hud_text import draw_text, text_width
from edge_runtime.look_trail import LookTrail

SHADOW: Colour = (10, 12, 18)
INK: Colour = (244, 246, 250)
QUIET: Colour = (158, 168, 184)
EARLIER: Colour = (104, 190, 255)
LAST: dict[str, Colour] = {
    "sure": (94, 214, 148),
    "out of time": (250, 190, 88),
    "too little to gain": (232, 214, 84),
    "out of looks": (232, 214, 84),
}
"""Colour of the look that gave the answer, by why it was the last."""
FAILED: Colour = (255, 104, 98)
WORDS = {
    "sure": "sure after",
    "out of time": "time up after",
    "too little to gain": "little to gain after",
    "out of looks": "took all",
    "a later look failed": "failed after",
}
BADGE = 19
"""Side of a number's square, in units."""


def draw_trail(
    picture: npt.NDArray[np.uint8], trail: LookTrail, scale: float, unit: float, band: tuple[float, float]
) -> None:
    """Draw the looks into a picture; each line has a dark edge, so that it shows on light and on dark ground.

    The look at the whole is a bracket at its corners, number 1; patches are rectangles, numbered on.

    Args:
        picture: (H, W, 3) uint8 RGB; changed.
        trail: where it looked, in pixels of the frame.
        scale: pixels of the picture for one of the frame.
        unit: pixels of the overlay's unit of length.
        band: rows from and to which numbers stay readable, between the panels.
    """
    _Painter(picture, unit, band).draw(trail, scale)


def last_colour(trail: LookTrail) -> Colour:
    """Colour of the look that gave the answer."""
    return LAST.get(trail.reason, FAILED)


def trail_text(trail: LookTrail) -> str:
    """Why and when it stopped: "sure after 2 of 3 looks"."""
    return f"{WORDS.get(trail.reason, trail.reason)} {trail.looks} of {trail.max_looks} looks"


def draw_trail_pill(
    picture: npt.NDArray[np.uint8], trail: LookTrail, left: int, top: int, unit: float,
    glass: Colour, opacity: float,
) -> int:  # fmt: skip
    """A dot for each look that the point allows, those taken filled, and why it stopped; returns its right end."""
    text, size, pitch = trail_text(trail), 12 * unit, 11 * unit
    dots = trail.max_looks * pitch
    width, height = round(12 * unit + dots + 4 * unit + text_width(text, size) + 12 * unit), round(24 * unit)
    draw_panel(picture, left, top, width, height, round(12 * unit), glass, opacity)
    for look in range(trail.max_looks):
        taken = look < trail.looks
        colour = (last_colour(trail) if look == trail.looks - 1 else EARLIER) if taken else QUIET
        x, y = left + 12 * unit + (look + 0.5) * pitch - 1.5 * unit, top + height / 2
        draw_dot(picture, x, y, 3.6 * unit, colour)
        if not taken:
            draw_dot(picture, x, y, 2.4 * unit, SHADOW)
    draw_text(picture, text, left + 16 * unit + dots, top + 16.5 * unit, size, INK)
    return left + width


class _Painter:
    """One picture with its numbers so far, which must not cover each other."""

    def __init__(self, picture: npt.NDArray[np.uint8], unit: float, band: tuple[float, float]) -> None:
        self._picture, self._unit, self._band = picture, unit, band
        self._taken: list[tuple[float, float]] = []

    def draw(self, trail: LookTrail, scale: float) -> None:
        """Lines first, then the numbers, newest on top."""
        boxes = [tuple(edge * scale for edge in box) for box in (trail.view_xyxy, *trail.boxes_xyxy)]
        last = len(boxes) - 1
        colours = [EARLIER] * last + [last_colour(trail)]
        for index, (box, colour) in enumerate(zip(boxes, colours, strict=True)):
            if index == 0:
                self._brackets(box, colour)
            else:
                self._rectangle(box, colour, 3.0 if index == last else 2.0)
        for index, (box, colour) in enumerate(zip(boxes, colours, strict=True)):
            self._number(str(index + 1), box, colour)

    def _rectangle(self, box: Sequence[float], colour: Colour, thickness: float) -> None:
        left, top, right, bottom = box
        edge, line = max(1.0, 1.3 * self._unit), max(2.0, thickness * self._unit)
        grown, width, height = line + edge, right - left, bottom - top
        radius = 5 * self._unit
        draw_ring(
            self._picture, left - edge, top - edge, width + 2 * edge, height + 2 * edge, radius + edge,
            grown + edge, SHADOW,
        )  # fmt: skip
        draw_ring(self._picture, left, top, width, height, radius, line, colour)

    def _brackets(self, box: Sequence[float], colour: Colour) -> None:
        """Corners only: a frame around everything would say nothing."""
        inset = 4 * self._unit
        left, right = box[0] + inset, box[2] - inset
        top, bottom = max(box[1] + inset, self._band[0]), min(box[3] - inset, self._band[1])
        reach = min(24 * self._unit, (right - left) / 4, (bottom - top) / 4)
        line = max(2, round(2.2 * self._unit))
        for passes, paint in ((line + 2 * max(1, round(1.3 * self._unit)), SHADOW), (line, colour)):
            for x, inward in ((left, reach), (right, -reach)):
                for y, down in ((top, reach), (bottom, -reach)):
                    draw_line(self._picture, [(x + inward, y), (x, y), (x, y + down)], passes, paint)

    def _number(self, text: str, box: Sequence[float], colour: Colour) -> None:
        """A badge in the upper left corner, moved where a panel or another number is."""
        unit, side = self._unit, BADGE * self._unit
        left = min(max(box[0] + 6 * unit, 0.0), self._picture.shape[1] - side)
        top = min(max(box[1] + 6 * unit, self._band[0] + 2 * unit), self._band[1] - side)
        while any(abs(left - x) < side and abs(top - y) < side for x, y in self._taken):
            left += side + 3 * unit
        self._taken.append((left, top))
        edge = max(1.0, 1.3 * unit)
        draw_rounded(
            self._picture, left - edge, top - edge, side + 2 * edge, side + 2 * edge, 6 * unit + edge, SHADOW
        )  # fmt: skip
        draw_rounded(self._picture, left, top, side, side, 6 * unit, colour)
        draw_text(
            self._picture, text, left + side / 2, top + 14.2 * unit, 13 * unit, SHADOW, bold=True, align="centre"
        )  # fmt: skip
