"""Anti-aliased text from the letters in hud_font.png (Inter, see hud_font_license.txt)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from apps.camera.hud_layer import Colour, Layer


def draw_text(
    picture: npt.NDArray[np.uint8],
    text: str,
    left: float,
    baseline: float,
    size_px: float,
    colour: Colour,
    *,
    bold: bool = False,
    align: str = "left",
    opacity: float = 1.0,
) -> float:
    """Draw one line of text into `picture`, clipped at its edges.

    Args:
        picture: (H, W, 3) uint8 RGB; changed.
        text: letters that the font lacks become "?".
        left: x of the anchor in pixels: the left end, the middle or the right end by `align`.
        baseline: y on which the letters stand.
        size_px: height of the em square.
        colour: RGB.
        bold: the heavy weight.
        align: "left", "centre" or "right".
        opacity: 0-1.
    Returns:
        width of the text in pixels.
    """
    layer, ascent_px, padding_px = _text_layer(text, round(size_px * 4) / 4, bold, colour, opacity)
    width = text_width(text, size_px, bold)
    start = left - {"left": 0.0, "centre": width / 2, "right": width}[align]
    layer.paint(picture, round(start - padding_px), round(baseline - ascent_px))
    return width


@lru_cache(maxsize=1024)
def text_width(text: str, size_px: float, bold: bool = False) -> float:
    """Width of a line in pixels."""
    font = _font()
    glyphs = font["facts"]["glyphs"]["bold" if bold else "regular"]
    total = sum(glyphs.get(letter, glyphs["?"])[3] for letter in text)
    return float(total * size_px / font["facts"]["em_px"])


def shortened(text: str, width_px: float, size_px: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it would be wider than `width_px`."""
    if text_width(text, size_px, bold) <= width_px:
        return text
    while text and text_width(text + "…", size_px, bold) > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


@lru_cache(maxsize=512)
def _text_layer(text: str, size_px: float, bold: bool, colour: Colour, opacity: float) -> tuple[Layer, float, float]:
    mask, ascent_px, padding_px = text_mask(text, size_px, bold)
    return Layer.from_mask(mask, colour, opacity), ascent_px, padding_px


@lru_cache(maxsize=1024)
def text_mask(text: str, size_px: float, bold: bool) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Coverage of a line of text: the mask (h, w) uint8, its baseline and its left padding in pixels."""
    font = _font()
    facts, sheet = font["facts"], font["sheet"]
    glyphs = facts["glyphs"]["bold" if bold else "regular"]
    places = [glyphs.get(letter, glyphs["?"]) for letter in text]
    line_px, padding = facts["line_px"], facts["padding_px"]
    total = math.ceil(sum(place[3] for place in places)) + 4 * padding + facts["em_px"] // 2
    canvas = np.zeros((line_px, total), np.uint8)
    pen = 0.0
    for x, y, width, advance in places:
        at = round(pen)
        cell = canvas[:, at : at + width]
        np.maximum(cell, sheet[y : y + line_px, x : x + cell.shape[1]], out=cell)
        pen += advance
    scale = size_px / facts["em_px"]
    size = (max(1, round(total * scale)), max(1, round(line_px * scale)))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(canvas, size, interpolation=kernel), np.uint8)
    return small, facts["baseline_px"] * scale, padding * scale


@lru_cache(maxsize=1)
def _font() -> dict[str, Any]:
    folder = Path(__file__).parent
    facts = json.loads((folder / "hud_font.json").read_text("utf-8"))
    sheet = cv2.imdecode(np.fromfile(folder / "hud_font.png", np.uint8), cv2.IMREAD_GRAYSCALE)
    return {"facts": facts, "sheet": sheet}


def fitting(text: str, width_px: float, sizes_px: Sequence[float], bold: bool = False) -> tuple[str, float]:
    """A text that is no wider than this, and its size.

    The first size that does; else without blanks around ×, at the smallest size and at 0.85 of it; else shortened.

    Args:
        sizes_px: largest first.
    """
    narrow, least = text.replace(" × ", "×"), 0.85 * sizes_px[-1]
    for shown, size in [*((text, size) for size in sizes_px), (narrow, sizes_px[-1]), (narrow, least)]:
        if text_width(shown, size, bold) <= width_px:
            return shown, size
    return shortened(narrow, width_px, least, bold), least
