"""Render the overlay's letters once: apps/camera/hud_font.png (8-bit coverage) and hud_font.json (where each one is).

OpenCV's own text is thin strokes without a degree or multiplication sign, and differs between its versions 4 and 5.

    pip install pillow
    python scripts/make_hud_font.py --regular Inter-Medium.otf --bold Inter-Bold.otf
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

EM_PX = 64
PADDING_PX = 2
LETTERS = "".join(map(chr, range(32, 127))) + "°×·…–—→←↑↓±µ%▲▼"
ROW_PX = 2048
OUT = Path(__file__).resolve().parent.parent / "apps" / "camera"


def main() -> None:
    """Render both weights into one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regular", required=True)
    parser.add_argument("--bold", required=True)
    options = parser.parse_args()
    fonts = {
        "regular": ImageFont.truetype(options.regular, EM_PX),
        "bold": ImageFont.truetype(options.bold, EM_PX),
    }
    ascent = max(font.getmetrics()[0] for font in fonts.values())
    descent = max(font.getmetrics()[1] for font in fonts.values())
    line_px = ascent + descent + 2 * PADDING_PX
    picture = Image.new("L", (ROW_PX, line_px * 16), 0)
    places: dict[str, dict[str, list[float]]] = {}
    x, y = 0, 0
    for weight, font in fonts.items():
        digit_advance = max(font.getlength(digit) for digit in "0123456789")  # numbers must not dance
        places[weight] = {}
        for letter in dict.fromkeys(LETTERS):
            advance = digit_advance if letter.isdigit() else font.getlength(letter)
            left, _, right, _ = font.getbbox(letter)
            shift = PADDING_PX - min(0, int(left)) + (advance - font.getlength(letter)) / 2
            width = int(max(right, advance) + shift) + PADDING_PX + 1
            if x + width > ROW_PX:
                x, y = 0, y + line_px
            ImageDraw.Draw(picture).text((x + shift, y + PADDING_PX), letter, fill=255, font=font)
            places[weight][letter] = [x, y, width, round(advance, 3)]
            x += width
    picture = picture.crop((0, 0, ROW_PX, y + line_px))
    picture.save(OUT / "hud_font.png", optimize=True)
    facts = {
        "em_px": EM_PX,
        "line_px": line_px,
        "baseline_px": ascent + PADDING_PX,
        "padding_px": PADDING_PX,
        "glyphs": places,
    }
    (OUT / "hud_font.json").write_text(json.dumps(facts, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
