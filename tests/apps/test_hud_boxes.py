"""Boxes in the overlay: where they are, legible on any ground, tags apart from the panels and from each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_fakes import POINTS, make_result
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.camera import overlay
from apps.camera.__main__ import main
from apps.camera.hud_boxes import SHADOW, TAG_HEIGHT, Rectangle, draw_box_tags, draw_boxes, label_colour
from apps.camera.hud_layer import Colour
from apps.camera.hud_state import HudState, HudTracker, grid_points
from apps.camera.overlay import draw_overlay
from edge_runtime.errors import SinkError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.result import Box
from edge_runtime.runtime import Runtime
from tests.edge_runtime.bundles import detector_values, write_bundle

LABELS = tuple(f"label{number}" for number in range(20))
MIDDLE = Box("label3", 0.87, 120.0, 200.0, 260.0, 420.0)
STATE = HudState(label="label3", confidence=0.87, points=grid_points(POINTS), point="w100_r64", labels=LABELS)
HEIGHT, WIDTH = 480, 640


def ground(level: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def near(picture: np.ndarray, colour: Colour) -> np.ndarray:
    """Which pixels have almost this colour."""
    return np.asarray(np.abs(picture.astype(int) - colour).max(-1) <= 12)


def luminance(colour: Colour) -> float:
    return float((np.array(colour) / 255.0) ** 2.2 @ (0.2126, 0.7152, 0.0722))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def places_of_tags(boxes: tuple[Box, ...], monkeypatch: pytest.MonkeyPatch, state: HudState = STATE) -> list[Rectangle]:
    """What each tag takes, the surest first; also the panels that the overlay said were taken."""
    found: list[Rectangle] = []

    def draw(picture: Any, left: float, top: float, width: float, height: float, *rest: Any) -> None:
        if rest[1] != SHADOW:  # the tag, not its edge
            found.append((left, top, left + width, top + height))

    monkeypatch.setattr("apps.camera.hud_boxes.draw_rounded", draw)
    draw_overlay(ground(128), replace(state, boxes=boxes))
    return found


def apart(one: Rectangle, other: Rectangle) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


PANELS: tuple[Rectangle, ...] = ((12, 12, 252, 74), (366, 12, 628, 74), (12, 356, 628, 468))
"""Answer, device and dashboard of a picture of 640 x 480, whose unit is one pixel."""


# ---- rectangles


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_box_is_a_line_of_its_labels_colour_with_dark_edges_where_it_is_in_the_frame(level: int) -> None:
    picture = ground(level)
    draw_boxes(picture, [MIDDLE], LABELS, 1.0, 1.0)
    colour = near(picture, label_colour("label3", LABELS))
    rows, columns = np.flatnonzero(colour.any(1)), np.flatnonzero(colour.any(0))
    assert abs(rows[0] - 120) <= 2
    assert abs(rows[-1] - 260) <= 2
    assert abs(columns[0] - 200) <= 2
    assert abs(columns[-1] - 420) <= 2
    assert (picture[140:240, 220:400] == level).all()  # its inside is free
    across = picture[190, 190:210].astype(int)
    line = np.flatnonzero(colour[190, 190:210])
    for edge in (across[line[0] - 3 : line[0]], across[line[-1] + 1 : line[-1] + 4]):
        dark = luminance(tuple(edge[edge.sum(-1).argmin()]))
        assert contrast(dark, luminance(label_colour("label3", LABELS))) >= 3.0  # WCAG's for graphics


def test_boxes_follow_the_frames_size() -> None:
    small = np.full((240, 320, 3), 90, np.uint8)  # drawn twice as large
    half = Box("label3", 0.87, 60.0, 100.0, 130.0, 210.0)
    colour = label_colour("label3", LABELS)
    drawn = [
        near(draw_overlay(picture, replace(STATE, boxes=(box,)))[80:320], colour)
        for picture, box in ((small, half), (ground(90), MIDDLE))
    ]
    assert (drawn[0] == drawn[1]).all()


def test_a_box_at_the_frames_edge_is_seen_on_all_sides() -> None:
    picture = ground(128)
    draw_boxes(picture, [Box("label1", 0.5, 0.0, 0.0, float(HEIGHT), float(WIDTH))], LABELS, 1.0, 1.0)
    colour = near(picture, label_colour("label1", LABELS))
    for edge in (colour[:4, 300], colour[-4:, 300], colour[200, :4], colour[200, -4:]):
        assert edge.any()


def test_the_surest_box_lies_on_top() -> None:
    picture = ground(128)
    draw_boxes(picture, [MIDDLE, replace(MIDDLE, label="label8", confidence=0.4)], LABELS, 1.0, 1.0)
    assert near(picture, label_colour("label3", LABELS)).sum() > 1000
    assert not near(picture, label_colour("label8", LABELS)).any()


# ---- colours


def test_labels_have_colours_of_their_own() -> None:
    colours = np.array([label_colour(label, LABELS) for label in LABELS], int)
    distances = np.abs(colours[:, None] - colours).max(-1) + 999 * np.eye(len(LABELS), dtype=int)
    assert distances.min() >= 20
    assert label_colour("label4", LABELS) == label_colour("label4", LABELS[:5])


def test_dark_letters_are_legible_on_the_colour_of_any_label() -> None:
    labels = tuple(map(str, range(300)))
    assert min(contrast(luminance(label_colour(label, labels)), luminance(SHADOW)) for label in labels) >= 4.5  # WCAG


# ---- tags


@pytest.mark.parametrize("level", [0, 255])
def test_a_tag_says_label_and_confidence(level: int) -> None:
    def strip(box: Box) -> np.ndarray:
        return draw_overlay(ground(level), replace(STATE, boxes=(box,)))[95:122, 195:425]

    plain = strip(MIDDLE)
    assert (strip(replace(MIDDLE, confidence=0.42)) != plain).any()
    colour = label_colour("label3", LABELS)
    assert near(plain, colour).sum() > 800  # the tag's ground
    renamed = draw_overlay(
        ground(level), replace(STATE, boxes=(replace(MIDDLE, label="label3x"),), labels=("label3x",))
    )
    assert (renamed[95:122, 195:425] != plain).any()


def test_a_tag_sits_on_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    ((left, top, _, bottom),) = places_of_tags((MIDDLE,), monkeypatch)
    assert (left, bottom) == (200.0, 120.0)
    assert bottom - top == TAG_HEIGHT


def test_tags_of_boxes_under_the_panels_are_moved_out(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = (
        Box("label1", 0.9, 5.0, 5.0, 200.0, 200.0), Box("label2", 0.8, 20.0, 400.0, 60.0, 600.0),
        Box("label3", 0.7, 380.0, 300.0, 450.0, 600.0), Box("label4", 0.6, 0.0, 0.0, 480.0, 640.0),
    )  # fmt: skip
    tags = places_of_tags(boxes, monkeypatch)
    assert len(tags) == 4
    assert [(tag, panel) for tag in tags for panel in PANELS if not apart(tag, panel)] == []


def test_tags_keep_clear_of_the_pills(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box("label1", 0.9, 346.0, 14.0, 470.0, 200.0)  # its tag would lie on the phase
    ((_, top, _, bottom),) = places_of_tags((box,), monkeypatch)
    assert 325 < bottom <= 346
    state = replace(STATE, phase="contention", switch="0.50 × 32 → 1.00 × 64", switch_reason="best within the deadline")
    ((_, top, _, bottom),) = places_of_tags((box,), monkeypatch, state)
    assert bottom <= 324 or top >= 348


SIDES = st.tuples(
    st.floats(0, 460), st.floats(0, 620), st.floats(4, 480), st.floats(4, 640), st.sampled_from(LABELS)
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(SIDES, min_size=1, max_size=25))
def test_tags_cover_neither_panels_nor_each_other_nor_leave_the_picture(drawn: list[tuple[Any, ...]]) -> None:
    boxes = tuple(
        Box(label, 0.5, top, left, min(480.0, top + high), min(640.0, left + wide))
        for top, left, high, wide, label in drawn
    )
    with pytest.MonkeyPatch.context() as patch:
        tags = places_of_tags(boxes, patch)
    assert tags
    for number, tag in enumerate(tags):
        assert min(tag[:2]) >= 0
        assert tag[2] <= WIDTH
        assert tag[3] <= HEIGHT
        assert all(apart(tag, other) for other in (*tags[:number], *PANELS))


def test_a_crowd_leaves_tags_out_and_not_the_boxes() -> None:
    picture = ground(128)
    draw_box_tags(picture, [MIDDLE], LABELS, 1.0, 1.0, [(0.0, 0.0, 640.0, 480.0)])
    assert (picture == 128).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (64, 64), (5, 900), (1280, 720), (1080, 1920)])
def test_boxes_are_drawn_at_every_size_of_frame(size_hw: tuple[int, int]) -> None:
    frame = np.full((*size_hw, 3), 200, np.uint8)
    box = Box("label3", 0.9, 0.0, 0.0, float(size_hw[0]), float(size_hw[1]))
    assert (draw_overlay(frame, replace(STATE, boxes=(box,))) != draw_overlay(frame, STATE)).any()


# ---- the rest of the overlay


def test_the_answer_says_how_many_more_boxes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(overlay, "draw_text", lambda picture, text, *_, **__: drawn.append(text) or 0.0)
    draw_overlay(ground(0), replace(STATE, boxes=(MIDDLE,)))
    assert not [text for text in drawn if "more" in text]
    draw_overlay(ground(0), replace(STATE, boxes=(MIDDLE,) * 4, measure="AP"))
    assert "+ 3 more" in drawn
    assert "expected AP" in drawn


def test_the_tracker_hands_on_boxes_labels_and_measure() -> None:
    points = [OperatingPoint("w100_r64", "p", 1.0, (64, 64), 1, {"select": 0.5}, anchors=9)]
    result = replace(make_result(), boxes=(MIDDLE,))
    state = HudTracker(points, LABELS).state(result, 0.0)
    assert (state.boxes, state.labels, state.measure) == ((MIDDLE,), LABELS, "AP")
    state = HudTracker(POINTS, LABELS).state(make_result(), 0.0)
    assert (state.boxes, state.measure) == ((), "accuracy")


# ---- the command


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("apps.camera.__main__.signal.signal", lambda *_: None)
    root = write_bundle(tmp_path / "boxes.bundle", detector_values())
    run = ["--bundle", str(root), "--source", "pattern", "--max-frames", "5", "--show", "no"]
    return lambda *words: CliRunner().invoke(main, [*run, "--query-table", "none", *words])


def test_a_detector_runs_in_the_camera_application_and_is_saved(camera: Any, tmp_path: Path) -> None:
    done = camera("--save", str(tmp_path / "out.mp4"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_averaging_is_off_for_detectors_and_refused_when_asked_for(
    camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = camera("--smooth", "0.2")
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "error: smooth_s: 0.2 s, but 'tiny' is a detector, whose boxes are not averaged; choose 0"
    ]
    taken = []

    def load(*_: object, **options: Any) -> None:
        taken.append(options["smooth_s"])
        raise SinkError("enough")

    monkeypatch.setattr(Runtime, "load", staticmethod(load))
    assert "error: enough" in camera().output
    assert taken == [0.0]
