"""The overlay is pure, scales, and shows each thing that it is given."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from camera_fakes import POINTS, make_result

from apps.camera.hud_state import HISTORY_S, GridPoint, HudState, HudTracker, LatencySample, grid_points, point_text
from apps.camera.hud_text import draw_text, fitting, shortened, text_width
from apps.camera.overlay import accuracy_colour, display_size, draw_overlay
from edge_runtime.readings import Readings

STATE = HudState(
    label="dog",
    confidence=0.8,
    top=(("dog", 0.8),),
    point="w100_r64",
    points=grid_points(POINTS),
    latency_ms=6.0,
    deadline_ms=10.0,
    history=tuple(LatencySample(index / 30, 6.0, 10.0) for index in range(60)),
    readings=Readings(own_load=0.2, foreign_load=0.3, temperature_c=50.0, battery_share=0.8, on_battery=False),
    fps=30.0,
    attainment=0.9,
    phase="calm",
    switch="0.50 × 32 → 1.00 × 64",
    switch_reason="best within the deadline",
    switch_age_s=9.0,
)
GREY = np.full((480, 640, 3), 128, np.uint8)


def test_drawing_leaves_the_frame_as_it_was() -> None:
    frame = GREY.copy()
    frame.flags.writeable = False
    drawn = draw_overlay(frame, STATE)
    assert (frame == 128).all()
    assert drawn.shape == (480, 640, 3)
    assert drawn.dtype == np.uint8
    assert (draw_overlay(frame, STATE) == drawn).all()


@pytest.mark.parametrize(
    "change",
    [
        {"label": "cat"},
        {"confidence": 0.3},
        {"unsure": True},
        {"point": "w25_r32"},
        {"points": grid_points(POINTS[:4])},
        {"latency_ms": 9.0},
        {"latency_ms": 14.0},
        {"deadline_ms": 8.0},
        {"history": STATE.history[:20]},
        {"history": (*STATE.history[:-1], LatencySample(59 / 30, 30.0, 10.0))},
        {"readings": replace(STATE.readings, own_load=0.4)},
        {"readings": replace(STATE.readings, foreign_load=0.6)},
        {"readings": replace(STATE.readings, temperature_c=71.0)},
        {"readings": replace(STATE.readings, throttled=True)},
        {"readings": replace(STATE.readings, battery_share=0.1)},
        {"readings": replace(STATE.readings, on_battery=True)},
        {"readings": Readings()},
        {"dropped": 7},
        {"fps": 12.0},
        {"attainment": 0.5},
        {"phase": "CPU contention"},
        {"switch": "1.00 × 64 → 0.25 × 32"},
        {"switch_reason": "device hot"},
        {"switch_age_s": 0.5},
        {"pinned": True},
        {"paused": True},
    ],
    ids=lambda change: ",".join(change),
)
def test_each_field_of_the_state_is_seen_in_the_picture(change: dict[str, object]) -> None:
    assert (draw_overlay(GREY, replace(STATE, **change)) != draw_overlay(GREY, STATE)).any()


@pytest.mark.parametrize(
    "size_hw",
    [(1, 1), (64, 64), (240, 320), (272, 640), (720, 1280), (1080, 1920), (3000, 4000), (1280, 720), (5, 900)],
)
@pytest.mark.parametrize("state", [HudState(), STATE], ids=["empty", "full"])
def test_every_size_of_frame_can_be_drawn(size_hw: tuple[int, int], state: HudState) -> None:
    drawn = draw_overlay(np.full((*size_hw, 3), 200, np.uint8), state)
    assert drawn.shape[:2] == display_size(*size_hw)
    assert drawn.shape[0] % 2 == 0
    assert drawn.shape[1] % 2 == 0


@pytest.mark.parametrize(
    ("frame", "drawn"),
    [
        ((480, 640), (480, 640)),
        ((240, 320), (480, 640)),
        ((64, 64), (640, 640)),
        ((1080, 1920), (1080, 1920)),
        ((3000, 4000), (1440, 1920)),
        ((481, 641), (482, 642)),
    ],
)
def test_small_frames_are_enlarged_and_huge_ones_reduced(frame: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert display_size(*frame) == drawn


@pytest.mark.parametrize("background", [0, 128, 255])
def test_the_label_is_legible_on_any_background(background: int) -> None:
    picture = draw_overlay(np.full((480, 640, 3), background, np.uint8), STATE)
    label = picture[20:48, 26:70].astype(float) / 255
    luminance = np.sort((label**2.2 @ np.array([0.2126, 0.7152, 0.0722])).ravel())
    darkest, lightest = luminance[: len(luminance) // 4].mean(), luminance[-20:].mean()
    assert (lightest + 0.05) / (darkest + 0.05) >= 4.5  # WCAG's contrast for text


def test_the_bar_turns_red_when_late() -> None:
    def reddish(latency_ms: float) -> int:
        picture = draw_overlay(GREY, replace(STATE, latency_ms=latency_ms, history=())).astype(int)
        bar = picture[410:440, 230:410]
        return int(((bar[..., 0] > 220) & (bar[..., 1] < 140)).sum())

    assert reddish(6.0) == 0
    assert reddish(14.0) > 200


def test_text_has_the_width_it_says_and_is_cut_at_the_edges() -> None:
    picture = np.zeros((40, 300, 3), np.uint8)
    width = draw_text(picture, "Latency 12.3 ms", 10, 30, 20, (255, 255, 255))
    columns = np.flatnonzero(picture.any(axis=(0, 2)))
    assert columns[0] >= 9
    assert columns[-1] == pytest.approx(10 + width, abs=3)
    assert text_width("111", 20) == text_width("888", 20)  # numbers do not dance
    draw_text(picture, "far outside", 290, 500, 20, (255, 255, 255))
    draw_text(picture, "letters that are not there: 猫", -50, 2, 20, (255, 255, 255), align="right")
    assert text_width(shortened("a very long label indeed", 80, 20), 20) <= 80
    assert shortened("short", 80, 20) == "short"
    assert fitting("1 × 2", 500, (20, 10)) == ("1 × 2", 20)
    assert fitting("1 × 2", text_width("1 × 2", 10) + 1, (20, 10)) == ("1 × 2", 10)
    assert fitting("1 × 2", text_width("1×2", 10) + 1, (20, 10)) == ("1×2", 10)
    assert fitting("1 × 2", text_width("1×2", 8.5) + 0.1, (20, 10)) == ("1×2", 8.5)
    assert fitting("1 × 2", text_width("1…", 8.5) + 0.1, (20, 10)) == ("1…", 8.5)


def test_the_accuracy_palette_runs_from_its_first_to_its_last_colour() -> None:
    assert accuracy_colour(0.0) == (84, 72, 148)
    assert accuracy_colour(1.0) == (232, 214, 84)
    assert accuracy_colour(7.0) == accuracy_colour(1.0)


def test_points_are_named_for_people() -> None:
    assert point_text(GridPoint("p", 0.75, (56, 56))) == "0.75 × 56"
    assert point_text(GridPoint("p", 1.0, (48, 64))) == "1.00 × 64x48"
    assert point_text(GridPoint("p", 1.0, (8, 64, 64))) == "1.00 × 8 × 64"
    assert point_text(None, "p") == "p"


@pytest.mark.parametrize("size_hw", [(480, 640), (240, 320), (1080, 1920)])
def test_a_point_of_three_digits_is_written_out(size_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def draw(picture: np.ndarray, text: str, *rest: object, **options: object) -> object:
        written.append(text)
        return draw_text(picture, text, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("apps.camera.overlay.draw_text", draw)
    for size, name, caption in (
        ((128, 128), "1.00 × 128", "WIDTH × RESOLUTION"), ((16, 224, 224), "1.00×16×224", "WIDTH × FRAMES × PX"),
    ):  # fmt: skip
        written.clear()
        point = GridPoint("big", 1.0, size, 0.89)
        draw_overlay(np.full((*size_hw, 3), 128, np.uint8), replace(STATE, points=(point,), point="big"))
        assert name in written
        assert caption in written


def test_the_tracker_follows_switches_rates_and_history() -> None:
    tracker = HudTracker(POINTS)
    for index in range(31):
        state = tracker.state(make_result(index, "w100_r64"), index / 10)
    assert state.switch == ""
    assert state.fps == pytest.approx(10.0)
    assert state.attainment == 1.0
    late = make_result(31, "w25_r32", latency_ms=20.0, reason="device hot", dropped=4)
    state = tracker.state(late, 3.1, Readings(temperature_c=80.0), "heat", pinned=True)
    assert (state.switch, state.switch_reason, state.switch_age_s) == ("1.00 × 64 → 0.25 × 32", "device hot", 0.0)
    assert state.attainment == pytest.approx(31 / 32)
    assert (state.dropped, state.phase, state.pinned, state.readings.temperature_c) == (4, "heat", True, 80.0)
    state = tracker.state(make_result(32, "w25_r32"), 30.0)
    assert len(state.history) == 1
    assert state.switch_age_s == pytest.approx(26.9)
    assert tracker.state(make_result(33, "w25_r32"), 30.0 + HISTORY_S).history[0].at_s == 30.0


@pytest.mark.parametrize("count", range(2, 12))
def test_labels_of_resolutions_never_run_together(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    drawn: list[tuple[float, float]] = []

    def note(picture: np.ndarray, text: str, x: float, y: float, size_px: float, *args: Any, **more: Any) -> float:
        if text.isdigit() and more.get("align") == "centre":
            half = text_width(text, size_px) / 2
            drawn.append((x - half, x + half))
        return draw_text(picture, text, x, y, size_px, *args, **more)

    monkeypatch.setattr("apps.camera.overlay.draw_text", note)
    sides = range(128, 128 + 8 * count, 8)
    points = tuple(GridPoint(f"r{side}", 1.0, (side, side), 0.5, None, 1.0) for side in sides)
    draw_overlay(GREY, replace(STATE, points=points))
    assert len(drawn) >= 2
    assert all(right < left for (_, right), (left, _) in pairwise(sorted(drawn)))
