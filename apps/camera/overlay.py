"""Draw what the runtime sees, thinks and decides over a frame. Pure: a picture and a `HudState` in, a new picture out.

Three panels: the answer (top left), the device (top right), and along the bottom the operating point in its grid,
latency against the deadline, and the last seconds. Sizes are in units of 1/640 of the width or 1/400 of the height,
whichever is smaller, so that the overlay looks alike on every picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from apps.camera.hud_boxes import Rectangle, draw_box_tags, draw_boxes
from apps.camera.hud_layer import Colour
from apps.camera.hud_shapes import (
    draw_area,
    draw_dashes,
    draw_dot,
    draw_line,
    draw_panel,
    draw_ring,
    draw_rounded,
)
from apps.camera.hud_state import HISTORY_S, GridPoint, HudState, point_caption, point_text, size_text
from apps.camera.hud_text import draw_text, fitting, shortened, text_width
from apps.camera.hud_trail import draw_trail, draw_trail_pill
from edge_runtime.readings import Readings

SMALLEST_WIDTH, SMALLEST_HEIGHT = 640, 360
"""Smaller pictures are enlarged to this before anything is drawn."""
LONGEST_SIDE = 1920

GLASS: Colour = (14, 17, 24)
TEXT: Colour = (244, 246, 250)
MUTED: Colour = (158, 168, 184)
FAINT: Colour = (72, 80, 94)
GOOD: Colour = (94, 214, 148)
CLOSE: Colour = (250, 190, 88)
LATE: Colour = (255, 104, 98)
ACCENT: Colour = (104, 190, 255)
FOREIGN: Colour = (186, 140, 255)
ACCURACY_COLOURS: tuple[Colour, ...] = ((84, 72, 148), (52, 118, 170), (44, 160, 150), (112, 196, 100), (232, 214, 84))
"""Least to most accurate point of the ladder."""
GLASS_OPACITY = 0.74
CLOSE_SHARE = 0.8
"""Above this share of the deadline the bar turns amber."""
MOST_BARS = 12
SWITCH_SHOWN_S = 4.0
"""How long a switch stays highlighted."""


@dataclass(frozen=True)
class _Canvas:
    """The picture with its unit of length."""

    picture: npt.NDArray[np.uint8]
    unit: float

    def px(self, units: float) -> int:
        return max(1, round(units * self.unit))


def draw_overlay(pixels: npt.NDArray[np.uint8], state: HudState) -> npt.NDArray[np.uint8]:
    """Draw the overlay on a copy.

    Args:
        pixels: (H, W, 3) uint8 RGB; not changed.
        state: what to show.
    Returns:
        (H', W', 3) uint8 RGB of size `display_size(H, W)`.
    """
    height, width = pixels.shape[:2]
    rows, columns = display_size(height, width)
    if (rows, columns) == (height, width):
        picture = pixels.copy()
    else:
        kernel = cv2.INTER_CUBIC if rows * columns > height * width else cv2.INTER_AREA
        picture = np.ascontiguousarray(cv2.resize(pixels, (columns, rows), interpolation=kernel), dtype=np.uint8)
    canvas = _Canvas(picture, min(columns / SMALLEST_WIDTH, rows / 400))
    if state.trail is not None:
        band = (canvas.px(12 + 62 + 8), rows - canvas.px(12 + 112 + 8 + 24 + 8))
        draw_trail(picture, state.trail, rows / height, canvas.unit, band)
    draw_boxes(picture, state.boxes, state.labels, rows / height, canvas.unit)
    _draw_answer(canvas, state)
    _draw_device(canvas, state)
    pills_end = _draw_pills(canvas, state)
    _draw_dashboard(canvas, state)
    if state.boxes:
        taken = _panels(canvas, pills_end)
        draw_box_tags(picture, state.boxes, state.labels, rows / height, canvas.unit, taken)
    if state.paused:
        _draw_paused(canvas)
    return picture


def display_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the drawn picture: at least 640 x 360, at most 1920 long where that allows it, and even."""
    scale = max(1.0, SMALLEST_WIDTH / width, SMALLEST_HEIGHT / height)
    longest = scale * max(height, width)
    if longest > LONGEST_SIDE:
        least = max(SMALLEST_WIDTH / width, SMALLEST_HEIGHT / height)
        scale = max(LONGEST_SIDE / max(height, width), min(least, 4 * LONGEST_SIDE / max(height, width)))
    rows, columns = round(height * scale), round(width * scale)
    return max(2, rows + rows % 2), max(2, columns + columns % 2)


def _panels(canvas: _Canvas, pills_end: int) -> tuple[Rectangle, ...]:
    """What the answer, the device, the pills and the dashboard take."""
    px, (rows, columns) = canvas.px, canvas.picture.shape[:2]
    edge, high, bottom = px(12), px(12) + px(62), rows - px(12) - px(112)
    return (
        (edge, edge, edge + px(240), high), (columns - edge - px(262), edge, columns - edge, high),
        (edge, bottom - px(8) - px(24), pills_end, bottom - px(8)), (edge, bottom, columns - edge, rows - edge),
    )  # fmt: skip


def accuracy_colour(share: float) -> Colour:
    """Colour of a point; 0 is the least accurate of the ladder, 1 the most."""
    place = min(1.0, max(0.0, share)) * (len(ACCURACY_COLOURS) - 1)
    low = min(int(place), len(ACCURACY_COLOURS) - 2)
    mix = place - low
    below, above = ACCURACY_COLOURS[low], ACCURACY_COLOURS[low + 1]
    return tuple(round(a * (1 - mix) + b * mix) for a, b in zip(below, above, strict=True))  # type: ignore[return-value]


def _glass(canvas: _Canvas, left: int, top: int, width: int, height: int, radius: float = 10) -> None:
    draw_panel(canvas.picture, left, top, width, height, canvas.px(radius), GLASS, GLASS_OPACITY)


def _draw_answer(canvas: _Canvas, state: HudState) -> None:
    """The label with its confidence; "unsure" is calm and grey, with the best guess beside it."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    left, top, width, height = px(12), px(12), px(240), px(62)
    _glass(canvas, left, top, width, height)
    inner, right = left + px(14), left + width - px(14)
    guess = state.top[0] if state.top else (state.label, state.confidence)
    colour = MUTED if state.unsure else TEXT
    share = "–" if not state.label else f"{100 * (guess[1] if state.unsure else state.confidence):.0f} %"
    share_width = text_width(share, 15 * unit)
    label = "unsure" if state.unsure else (state.label.replace("_", " ") or "–")
    room = right - inner - share_width - px(10)
    size = 21 * unit * min(1.0, max(0.66, room / text_width(label, 21 * unit, bold=True)))
    label = shortened(label, room, size, bold=True)
    drawn = draw_text(picture, label, inner, top + 31 * unit, size, colour, bold=not state.unsure)
    hint = f"{guess[0].replace('_', ' ')}?" if state.unsure and guess[0] != "unsure" else ""
    hint = f"+ {len(state.boxes) - 1} more" if len(state.boxes) > 1 else hint
    if hint:
        room = right - inner - share_width - drawn - px(16)
        hint = shortened(hint, room, 13 * unit)
        draw_text(picture, hint, inner + drawn + px(8), top + 31 * unit, 13 * unit, MUTED, opacity=0.85)
    draw_text(picture, share, right, top + 31 * unit, 15 * unit, colour, align="right")
    bar_top, bar_width = top + px(44), right - inner
    draw_rounded(picture, inner, bar_top, bar_width, px(5), px(2.5), FAINT)
    confidence = min(1.0, max(0.0, guess[1] if state.unsure else state.confidence))
    if confidence > 0:
        filled = max(px(5), round(bar_width * confidence))
        draw_rounded(picture, inner, bar_top, filled, px(5), px(2.5), MUTED if state.unsure else ACCENT)


def _draw_device(canvas: _Canvas, state: HudState) -> None:
    """Load, heat, battery and dropped frames, each a caption over a value."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    width, height = px(262), px(62)
    left, top = picture.shape[1] - px(12) - width, px(12)
    _glass(canvas, left, top, width, height)
    readings = state.readings
    columns = (
        (12, "LOAD", _load_text(readings), TEXT),
        (92, "HEAT", _or_dash(readings.temperature_c, "{:.0f} °C"), LATE if readings.throttled else TEXT),
        (150, "BATTERY", _or_dash(readings.battery_share, "{:.0%}"), _battery_colour(readings)),
        (212, "DROPPED", str(state.dropped), CLOSE if state.dropped else TEXT),
    )
    for offset, caption, value, colour in columns:
        x = left + px(offset)
        draw_text(picture, caption, x, top + 20 * unit, 9 * unit, MUTED)
        draw_text(picture, value, x, top + 38 * unit, 15 * unit, colour, bold=True)
    bar_left, bar_top, bar_width = left + px(12), top + px(47), px(66)
    draw_rounded(picture, bar_left, bar_top, bar_width, px(5), px(2.5), FAINT)
    own, foreign = readings.own_load or 0.0, readings.foreign_load or 0.0
    own_width, both_width = (round(bar_width * min(1.0, share)) for share in (own, own + foreign))
    if both_width > own_width:
        draw_rounded(picture, bar_left, bar_top, max(px(5), both_width), px(5), px(2.5), FOREIGN)
    if own_width:
        draw_rounded(picture, bar_left, bar_top, max(px(5), own_width), px(5), px(2.5), ACCENT)
    if readings.own_load is not None:
        draw_text(picture, "own", left + px(92), top + 53 * unit, 9 * unit, ACCENT)
        draw_text(picture, "other programs", left + px(116), top + 53 * unit, 9 * unit, FOREIGN)


def _load_text(readings: Readings) -> str:
    if readings.own_load is None:
        return "–"
    return f"{min(1.0, readings.own_load + (readings.foreign_load or 0.0)):.0%}"


def _battery_colour(readings: Readings) -> Colour:
    low = readings.battery_share is not None and readings.battery_share < 0.2
    return LATE if low else CLOSE if readings.on_battery else TEXT


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _draw_pills(canvas: _Canvas, state: HudState) -> int:
    """Above the dashboard: the scenario's phase, and the last switch with its reason; returns their right end."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    rows, columns = picture.shape[:2]
    height = px(24)
    top = rows - px(12) - px(112) - px(8) - height
    x = px(12)
    if state.phase:
        phase = shortened(state.phase, columns * 0.35, 13 * unit, bold=True)
        width = round(text_width(phase, 13 * unit, bold=True)) + px(34)
        _glass(canvas, x, top, width, height, 12)
        draw_dot(picture, x + 14 * unit, top + height / 2, 3.5 * unit, ACCENT)
        draw_text(picture, phase, x + 24 * unit, top + 16.5 * unit, 13 * unit, TEXT, bold=True)
        x += width + px(8)
    if state.trail is not None:
        x = draw_trail_pill(picture, state.trail, x, top, unit, GLASS, GLASS_OPACITY) + px(8)
    if state.switch:
        fresh = state.switch_age_s is not None and state.switch_age_s < SWITCH_SHOWN_S
        reason = f"{state.switch}   {state.switch_reason}"
        reason = shortened(reason, columns - px(12) - x - px(24), 12 * unit)
        width = round(text_width(reason, 12 * unit)) + px(24)
        _glass(canvas, x, top, width, height, 12)
        draw_text(picture, reason, x + 12 * unit, top + 16.5 * unit, 12 * unit, TEXT if fresh else MUTED)
        x += width
    return x


def _draw_dashboard(canvas: _Canvas, state: HudState) -> None:
    """The bottom panel: grid, latency, sparkline."""
    px, picture = canvas.px, canvas.picture
    rows, columns = picture.shape[:2]
    height, left = px(112), px(12)
    top, width = rows - px(12) - height, columns - 2 * px(12)
    _glass(canvas, left, top, width, height, 12)
    grid_width, gap = px(196), px(18)
    _draw_point(canvas, state, left + px(14), top, grid_width)
    middle = left + px(14) + grid_width + gap
    latency_width = round((left + width - px(14) - middle - gap) * 0.46)
    _draw_latency(canvas, state, middle, top, latency_width)
    spark_left = middle + latency_width + gap
    _draw_sparkline(canvas, state, spark_left, top, left + width - px(14) - spark_left)


def _draw_point(canvas: _Canvas, state: HudState, left: int, top: int, width: int) -> None:
    """The active operating point in words and as a lit cell among the others."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    active = next((point for point in state.points if point.name == state.point), None)
    draw_text(picture, point_caption(active), left, top + 19 * unit, 9 * unit, MUTED)
    sizes = (17 * unit, 15.5 * unit, 14 * unit)  # three digits of pixels need smaller letters
    name, size = fitting(point_text(active, state.point) or "–", px(90), sizes, bold=True)
    draw_text(picture, name, left, top + 40 * unit, size, TEXT, bold=True)
    if active is not None and active.accuracy is not None:
        draw_text(picture, f"{active.accuracy:.1%}", left, top + 61 * unit, 13 * unit, TEXT)
        draw_text(picture, f"expected {state.measure}", left, top + 74 * unit, 9 * unit, MUTED)
    if state.pinned:
        draw_rounded(picture, left, top + px(83), px(52), px(17), px(8.5), CLOSE)
        draw_text(picture, "pinned", left + 26 * unit, top + 95 * unit, 11 * unit, GLASS, bold=True, align="centre")
    draw = _draw_ladder if any(point.label for point in state.points) else _draw_grid
    draw(canvas, state.points, state.point, left + px(96), top + px(12), left + width, top + px(100))


def _draw_grid(
    canvas: _Canvas, points: tuple[GridPoint, ...], active: str, left: int, top: int, right: int, bottom: int
) -> None:
    """Widths are rows, the widest on top; resolutions are columns, the finest on the right."""
    if not points:
        return
    unit, picture = canvas.unit, canvas.picture
    widths = sorted({point.width for point in points}, reverse=True)
    sizes = sorted({point.size for point in points}, key=lambda size: (math.prod(size), size))
    left, bottom = left + canvas.px(22), bottom - canvas.px(11)
    pitch_x, pitch_y = (right - left) / len(sizes), (bottom - top) / len(widths)
    gap = max(1.0, 2 * unit) if min(pitch_x, pitch_y) > 6 * unit else 0.0
    known = [point.accuracy for point in points if point.accuracy is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    cells: dict[tuple[float, tuple[int, ...]], list[GridPoint]] = {}
    for point in points:
        cells.setdefault((point.width, point.size), []).append(point)
    for (width, size), here in cells.items():
        x, y = left + sizes.index(size) * pitch_x, top + widths.index(width) * pitch_y
        best = max((point.accuracy for point in here if point.accuracy is not None), default=None)
        colour = FAINT if best is None else accuracy_colour((best - low) / span if span else 1.0)
        box = (x, y, pitch_x - gap, pitch_y - gap)
        lit = any(point.name == active for point in here)
        draw_rounded(picture, *box, 3 * unit, colour, 1.0 if lit else 0.62)
        if lit:
            draw_ring(picture, x - gap, y - gap, pitch_x + gap, pitch_y + gap, 4 * unit, max(2.0, 2 * unit), TEXT)
    for row in _spread(len(widths), pitch_y, 10 * unit):
        y = top + (row + 0.5) * pitch_y - gap / 2 + 3 * unit
        draw_text(picture, f"{widths[row]:g}", left - 5 * unit, y, 9 * unit, MUTED, align="right")
    widest = max(text_width(size_text(size), 9 * unit) for size in sizes)
    for column in _spread(len(sizes), pitch_x, widest + 5 * unit):
        x = left + (column + 0.5) * pitch_x - gap / 2
        draw_text(picture, size_text(sizes[column]), x, bottom + 10 * unit, 9 * unit, MUTED, align="centre")


def _draw_ladder(
    canvas: _Canvas, points: tuple[GridPoint, ...], active: str, left: int, top: int, right: int, bottom: int
) -> None:
    """Points that differ in how often they look: a bar for each, as long as it is dear, the dearest on top."""
    unit, picture = canvas.unit, canvas.picture
    ordered = sorted(points, key=lambda point: point.cost_share, reverse=True)
    shown = ordered[:MOST_BARS]
    known = [point.accuracy for point in points if point.accuracy is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    pitch = (bottom - top) / len(shown)
    height = min(12 * unit, pitch - max(1.0, 2 * unit))
    for row, point in enumerate(shown):
        y, lit = top + row * pitch, point.name == active
        share = ((point.accuracy - low) / span if span else 1.0) if point.accuracy is not None else 0.0
        length = max(height, (right - left) * point.cost_share)
        draw_rounded(picture, left, y, length, height, 3 * unit, accuracy_colour(share), 1.0 if lit else 0.55)
        if lit:
            gap = max(1.0, 2 * unit)
            draw_ring(picture, left - gap, y - gap, length + 2 * gap, height + 2 * gap, 4 * unit, gap, TEXT)


def _spread(count: int, pitch: float, needed: float) -> range:
    """Which of `count` labels to draw so that each has the room it needs."""
    return range(0, count, max(1, int(np.ceil(needed / max(pitch, 1e-6)))))


def _draw_latency(canvas: _Canvas, state: HudState, left: int, top: int, width: int) -> None:
    """The newest latency as a bar on the way to the deadline."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    colour = _latency_colour(state.latency_ms, state.deadline_ms)
    draw_text(picture, "LATENCY", left, top + 19 * unit, 9 * unit, MUTED)
    drawn = draw_text(picture, f"{state.latency_ms:.1f}", left, top + 45 * unit, 24 * unit, colour, bold=True)
    draw_text(picture, "ms", left + drawn + 4 * unit, top + 45 * unit, 12 * unit, MUTED)
    limit = f"{state.deadline_ms:.1f} ms"
    draw_text(picture, "DEADLINE", left + width, top + 19 * unit, 9 * unit, MUTED, align="right")
    draw_text(picture, limit, left + width, top + 45 * unit, 13 * unit, TEXT, align="right")
    bar_top, bar_height = top + px(58), px(8)
    tick = left + round(width * 0.75)  # the last quarter is for what is late
    draw_rounded(picture, left, bar_top, width, bar_height, px(4), FAINT)
    share = min(1.0, 0.75 * state.latency_ms / state.deadline_ms)
    draw_rounded(picture, left, bar_top, max(bar_height, round(width * share)), bar_height, px(4), colour)
    draw_rounded(picture, tick - px(1), bar_top - px(4), px(2), bar_height + 2 * px(4), 1, TEXT)
    facts = [("FPS", _or_dash(state.fps, "{:.1f}")), ("ON TIME", _or_dash(state.attainment, "{:.1%}"))]
    for column, (caption, value) in enumerate(facts):
        x = left + column * width * 0.42
        draw_text(picture, caption, x, top + 86 * unit, 9 * unit, MUTED)
        draw_text(picture, value, x, top + 101 * unit, 13 * unit, TEXT)


def _latency_colour(latency_ms: float, deadline_ms: float) -> Colour:
    if latency_ms > deadline_ms:
        return LATE
    return CLOSE if latency_ms > CLOSE_SHARE * deadline_ms else GOOD


def _draw_sparkline(canvas: _Canvas, state: HudState, left: int, top: int, width: int) -> None:
    """The last seconds of latency, under the deadline as it was at each moment; late frames are dots."""
    px, unit, picture = canvas.px, canvas.unit, canvas.picture
    draw_text(picture, f"LAST {HISTORY_S:.0f} s", left, top + 19 * unit, 9 * unit, MUTED)
    upper, floor = top + px(28), top + px(100)
    draw_line(picture, [(left, floor), (left + width, floor)], 1, FAINT)
    if not state.history:
        return
    now_s = state.history[-1].at_s
    # One very late frame must not flatten the rest: the scale follows the deadline, and what is above it is cut.
    ceiling_ms = 1.4 * max(sample.deadline_ms for sample in state.history)
    xs = [left + width * max(0.0, 1.0 - (now_s - sample.at_s) / HISTORY_S) for sample in state.history]
    scale = (floor - upper) / ceiling_ms
    line = [(x, floor - min(s.latency_ms, ceiling_ms) * scale) for x, s in zip(xs, state.history, strict=True)]
    limit = [(x, floor - s.deadline_ms * scale) for x, s in zip(xs, state.history, strict=True)]
    draw_area(picture, line, floor, ACCENT)
    thickness = max(1, round(1.1 * unit))
    start = 0
    for end in range(1, len(limit) + 1):  # one dashed piece for each stretch with the same deadline
        if end == len(limit) or abs(limit[end][1] - limit[start][1]) > 0.5:
            stop = limit[end][0] if end < len(limit) else left + width
            draw_dashes(picture, limit[start], (stop, limit[start][1]), 4 * unit, max(1, round(unit)), CLOSE)
            start = end
    draw_line(picture, line, thickness, ACCENT)
    for (x, y), sample in zip(line, state.history, strict=True):
        if sample.latency_ms > sample.deadline_ms:
            draw_dot(picture, x, y, 2.2 * unit, LATE)
    draw_dot(picture, *line[-1], 3 * unit, TEXT)


def _draw_paused(canvas: _Canvas) -> None:
    rows, columns = canvas.picture.shape[:2]
    width, height = canvas.px(120), canvas.px(40)
    left, top = (columns - width) // 2, (rows - height) // 2 - canvas.px(20)
    _glass(canvas, left, top, width, height, 20)
    baseline, size = top + 26.5 * canvas.unit, 18 * canvas.unit
    draw_text(canvas.picture, "paused", left + width / 2, baseline, size, TEXT, bold=True, align="centre")
