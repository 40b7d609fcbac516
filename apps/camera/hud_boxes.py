"""The overlay of a detector: a rectangle around each thing, and a tag with its label and confidence.

Rectangles go under the panels; tags keep clear of the panels and of each other, the surest first.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from apps.camera.hud_layer import Colour
from apps.camera.hud_shapes import draw_line, draw_rounded
from apps.camera.hud_text import draw_text, shortened, text_width
from edge_runtime.result import Box

SHADOW: Colour = (10, 12, 18)
LEAST_LUMINANCE = 0.25
"""Of a label's colour: its contrast to SHADOW, in which the tag's letters are, is then above 5."""
FIRST_HUE, HUE_STEP = (
    0.42,
    (math.sqrt(5.0) - 1.0) / 2.0,
)  # the golden ratio keeps the hues of any number of labels apart
TAG_HEIGHT, TAG_SIZE, TAG_PADDING = 20.0, 12.5, 7.0
"""In units, as all that follows."""
LONGEST_LABEL = 150.0
GAP = 2.0
CORNER = 5.0

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the drawn picture."""


def draw_boxes(
    picture: npt.NDArray[np.uint8], boxes: Sequence[Box], labels: Sequence[str], scale: float, unit: float
) -> None:
    """Draw the rectangles, the surest last; each line has dark edges, so that it shows on light and on dark ground.

    Args:
        picture: (H, W, 3) uint8 RGB; changed.
        boxes: the surest first, in pixels of the frame.
        labels: of the network; a label's place gives its colour.
        scale: pixels of the picture for one of the frame.
        unit: pixels of the overlay's unit of length.
    """
    line, edge = max(2, round(2.2 * unit)), max(1, round(1.2 * unit))
    for box in reversed(boxes):
        outline = _outline(_inside(box, scale, picture, line / 2), CORNER * unit)
        draw_line(picture, outline, line + 2 * edge, SHADOW)
        draw_line(picture, outline, line, label_colour(box.label, labels))


def draw_box_tags(
    picture: npt.NDArray[np.uint8], boxes: Sequence[Box], labels: Sequence[str], scale: float, unit: float,
    taken: Sequence[Rectangle],
) -> None:  # fmt: skip
    """Write label and confidence at each rectangle; a tag that has no place near its rectangle is left out.

    Args:
        picture, boxes, labels, scale, unit: as for `draw_boxes`.
        taken: the panels.
    """
    used, size = list(taken), TAG_SIZE * unit
    for box in boxes:
        name = shortened(box.label.replace("_", " "), LONGEST_LABEL * unit, size, bold=True)
        share = f"{100 * box.confidence:.0f} %"
        wide = text_width(name, size, bold=True) + text_width(share, size) + (2 * TAG_PADDING + 5) * unit
        place = _place(_inside(box, scale, picture, 0.0), wide, TAG_HEIGHT * unit, GAP * unit, picture.shape, used)
        if place is None:
            continue
        left, top = place
        used.append((left, top, left + wide, top + TAG_HEIGHT * unit))
        edge = max(1.0, 1.2 * unit)
        outer = (left - edge, top - edge, wide + 2 * edge, TAG_HEIGHT * unit + 2 * edge)
        draw_rounded(picture, *outer, CORNER * unit + edge, SHADOW)
        draw_rounded(picture, left, top, wide, TAG_HEIGHT * unit, CORNER * unit, label_colour(box.label, labels))
        x, baseline = left + TAG_PADDING * unit, top + 14.4 * unit
        x += draw_text(picture, name, x, baseline, size, SHADOW, bold=True) + 5 * unit
        draw_text(picture, share, x, baseline, size, SHADOW)


def label_colour(label: str, labels: Sequence[str]) -> Colour:
    """The colour of a label, by its place among the network's labels; the first one's where it is none of them."""
    return _colour(labels.index(label) if label in labels else 0)


@lru_cache(maxsize=1024)
def _colour(place: int) -> Colour:
    """Bright enough for dark letters on it."""
    hue, saturation = (FIRST_HUE + place * HUE_STEP) % 1.0, (0.72, 0.5)[place % 2]
    while True:
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
        if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 >= LEAST_LUMINANCE or saturation <= 0.0:
            return round(255 * red), round(255 * green), round(255 * blue)
        saturation -= 0.02


def _inside(box: Box, scale: float, picture: npt.NDArray[np.uint8], inset: float) -> Rectangle:
    """A box in pixels of the picture, so far from its edges that half a line has room."""
    rows, columns = picture.shape[:2]
    left, right = (min(max(x * scale, inset), columns - 1 - inset) for x in (box.left, box.right))
    top, bottom = (min(max(y * scale, inset), rows - 1 - inset) for y in (box.top, box.bottom))
    return left, top, right, bottom


def _outline(box: Rectangle, radius: float) -> list[tuple[float, float]]:
    """A closed path (x, y) with round corners."""
    left, top, right, bottom = box
    radius = min(radius, (right - left) / 2, (bottom - top) / 2)
    path = []
    for x, y, start in (
        (right - radius, top + radius, -90), (right - radius, bottom - radius, 0),
        (left + radius, bottom - radius, 90), (left + radius, top + radius, 180),
    ):  # fmt: skip
        for degrees in range(start, start + 91, 15):
            turn = math.radians(degrees)
            path.append((x + radius * math.cos(turn), y + radius * math.sin(turn)))
    return [*path, path[0]]


def _place(
    box: Rectangle, wide: float, high: float, gap: float, shape: tuple[int, ...], used: Sequence[Rectangle]
) -> tuple[float, float] | None:
    """Left and top of a tag that covers nothing in `used`; None where there is none near its box."""
    for left, top in _places(box, wide, high, gap):
        x, y = min(max(left, gap), shape[1] - wide - gap), min(max(top, gap), shape[0] - high - gap)
        if all(
            x + wide + gap <= there[0] or there[2] + gap <= x or y + high + gap <= there[1] or there[3] + gap <= y
            for there in used
        ):
            return x, y
    return None


def _places(box: Rectangle, wide: float, high: float, gap: float) -> Iterator[tuple[float, float]]:
    """Where a tag may go, the best first: at an edge, then down along the box, then above and below it."""
    left, top, right, bottom = box
    roomy = bottom - top > 2.5 * high and right - left > wide + 2 * gap  # in a smaller box it would hide the thing
    edges = (top - high, top + gap, bottom, bottom - high - gap) if roomy else (top - high, bottom)
    across = (left, right - wide, (left + right - wide) / 2)
    for y in edges:
        for x in across[:2]:
            yield x, y
    for number in range(1, 2 + math.ceil(2 * (bottom - top) / high)):
        for x in across:
            yield x, top + number * high / 2
    for number in range(1, 17):  # a box that lies under a panel
        for x in across:
            yield x, top - (1 + number / 2) * high
            yield x, bottom + number / 2 * high
