"""The looks of a frame are drawn where they were, in order, and on any ground."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from camera_fakes import POINTS, make_result

from apps.camera.hud_state import HudState, HudTracker, grid_points, point_text
from apps.camera.hud_trail import EARLIER, last_colour, trail_text
from apps.camera.overlay import draw_overlay
from edge_runtime.look_trail import LookTrail

TRAIL = LookTrail(3, 3, "sure", (80.0, 0.0, 560.0, 480.0), ((120.0, 120.0, 240.0, 240.0), (300.0, 100.0, 420.0, 220.0)))
STATE = HudState(label="dog", confidence=0.8, point="all")


def frame(level: int, rows: int = 480, columns: int = 640) -> np.ndarray:
    return np.full((rows, columns, 3), level, np.uint8)


def changed(level: int, trail: LookTrail, rows: int = 480, columns: int = 640) -> np.ndarray:
    """(H, W) bool: pixels that the looks change, outside the panels."""
    without = draw_overlay(frame(level, rows, columns), STATE)
    return (draw_overlay(frame(level, rows, columns), replace(STATE, trail=trail)) != without).any(2)


@pytest.mark.parametrize("level", [0, 30, 128, 225, 255])
def test_a_patch_shows_on_light_and_on_dark_ground(level: int) -> None:
    drawn = draw_overlay(frame(level), replace(STATE, trail=TRAIL)).astype(int)
    across = drawn[180, 110:130].mean(1)  # over the left side of the first patch
    assert across.max() - across.min() > 90
    assert abs(across - level).max() > 90


def test_patches_are_drawn_at_their_place_and_nowhere_else() -> None:
    seen = changed(128, TRAIL)
    for left, top, right, bottom in TRAIL.boxes_xyxy:
        middle_x, middle_y = int(left + right) // 2, int(top + bottom) // 2
        sides = [(middle_y, int(left)), (middle_y, int(right) - 1), (int(top), middle_x), (int(bottom) - 1, middle_x)]
        assert all(seen[y, x] for y, x in sides)
        assert not seen[middle_y, middle_x]  # what it looked at stays visible
    assert not seen[90:310, 570:].any()  # beside the view


def test_a_frame_of_another_size_keeps_its_patches_in_place() -> None:
    small = LookTrail(2, 3, "sure", (20.0, 0.0, 140.0, 120.0), ((60.0, 45.0, 90.0, 75.0),))
    assert draw_overlay(frame(128, 120, 160), STATE).shape == (480, 640, 3)
    seen = changed(128, small, 120, 160)
    assert seen[240, 240]
    assert seen[240, 359]
    assert not seen[240, 300]


def test_the_look_that_gave_the_answer_says_by_its_colour_why_it_was_the_last() -> None:
    reasons = ("sure", "out of time", "out of looks", "a later look failed")
    assert last_colour(replace(TRAIL, reason="too little to gain")) == last_colour(
        replace(TRAIL, reason="out of looks")
    )
    colours = {last_colour(replace(TRAIL, reason=reason)) for reason in reasons}
    assert len(colours) == 4
    assert EARLIER not in colours
    drawn = draw_overlay(frame(128), replace(STATE, trail=TRAIL))
    assert tuple(drawn[180, 121]) == EARLIER
    assert tuple(drawn[160, 301]) == last_colour(TRAIL)
    assert trail_text(TRAIL) == "sure after 3 of 3 looks"
    assert trail_text(replace(TRAIL, looks=2, reason="out of time")) == "time up after 2 of 3 looks"
    assert trail_text(replace(TRAIL, looks=1, reason="too little to gain")) == "little to gain after 1 of 3 looks"


def test_the_order_is_seen_and_equal_patches_do_not_hide_each_others_numbers() -> None:
    swapped = replace(TRAIL, boxes_xyxy=TRAIL.boxes_xyxy[::-1])
    inside = (slice(126, 145), slice(126, 145))  # the badge of the patch at the left
    pictures = [draw_overlay(frame(128), replace(STATE, trail=t))[inside] for t in (TRAIL, swapped)]
    assert (pictures[0] != pictures[1]).any()
    same = replace(TRAIL, boxes_xyxy=(TRAIL.boxes_xyxy[0],) * 2)
    first, second = (slice(130, 140), slice(130, 140)), (slice(130, 140), slice(152, 162))
    drawn = draw_overlay(frame(128), replace(STATE, trail=same))
    assert (drawn[first] == EARLIER).all(2).any()
    assert (drawn[second] == last_colour(same)).all(2).any()


@pytest.mark.parametrize("box", [(560.0, 430.0, 640.0, 480.0), (0.0, 0.0, 60.0, 40.0), (-9.0, -9.0, 700.0, 500.0)])
def test_patches_under_the_panels_or_beyond_the_edge_are_drawn_without_harm(box: tuple[float, ...]) -> None:
    changed_pixels = changed(128, replace(TRAIL, looks=2, boxes_xyxy=(box,)))  # type: ignore[arg-type]
    assert changed_pixels.any()


def test_networks_that_look_once_have_nothing_of_it() -> None:
    state = HudTracker(POINTS).state(make_result(), 0.0)
    assert state.trail is None
    looked = HudTracker(POINTS).state(replace(make_result(), trail=TRAIL), 0.0)
    assert looked.trail == TRAIL


@dataclass(frozen=True)
class LookPoint:
    name: str
    madds: int
    exit: str
    width: float = 1.0
    size_hw: tuple[int, int] = (128, 128)
    accuracy: dict[str, float] = field(default_factory=lambda: {"select": 0.5})


def test_points_that_differ_in_looks_alone_go_by_their_names_and_costs() -> None:
    points = grid_points([LookPoint("one-look", 25, "one-look"), LookPoint("all", 100, "all")])
    assert [point_text(p) for p in points] == ["one-look", "all"]
    alike = grid_points([LookPoint("one-look-int8", 25, "x"), LookPoint("all-int8", 100, "y")])
    assert [(p.name, point_text(p)) for p in alike] == [("one-look-int8", "one-look"), ("all-int8", "all")]
    assert [p.cost_share for p in points] == [0.25, 1.0]
    assert point_text(grid_points(POINTS)[0]) == "0.25 × 32"
    drawn = [draw_overlay(frame(128), replace(STATE, points=points, point=name)) for name in ("one-look", "all")]
    assert (drawn[0] != drawn[1]).any()
