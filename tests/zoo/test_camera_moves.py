"""Clips of a camera over pictures: the view goes where the label says, splits stay apart, every draw is repeatable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from zoo.camera_moves import CANVAS, DIRECTIONS, MOVES, SHAKE, CameraMoves, View, _canvas, draw_views, film, see
from zoo.pictures import DataError

FRAMES, SIDE = 6, 32


@pytest.fixture(scope="module")
def moves(shapes_folder: Path) -> CameraMoves:
    source = CameraMoves(shapes_folder, FRAMES, SIDE)
    source.splits(6, 6)
    return source


@pytest.mark.parametrize("move", MOVES)
def test_the_view_does_what_the_label_says_and_stays_on_the_canvas(move: str) -> None:
    for seed in range(200):
        views = draw_views(move, FRAMES, np.random.default_rng(seed))
        first, last = views[0], views[-1]
        shift = np.array([last.x - first.x, last.y - first.y]) / first.side
        shake = 8.0 * SHAKE  # of two frames
        if move in DIRECTIONS:
            wanted = np.array(DIRECTIONS[move])
            assert shift @ wanted > 0.15 - shake
            assert abs(shift @ wanted[::-1]) < 0.4 * (shift @ wanted) + shake  # 20 degrees
        else:
            assert np.abs(shift).max() < 0.05 + shake
        ratio = last.side / first.side
        assert {"zoom in": 1 / 1.81 < ratio < 0.87, "zoom out": 1.15 < ratio < 1.81}.get(move, ratio == 1.0)
        for view in views:
            assert view.side / 2 - 2 <= min(view.x, view.y)
            assert max(view.x, view.y) <= CANVAS - view.side / 2 + 2


def test_a_pan_to_the_right_moves_the_picture_to_the_left() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (CANVAS, CANVAS, 3), np.uint8)
    first, last = (see(canvas, View(x, 64.0, SIDE, 0.0), SIDE) for x in (50.0, 57.0))
    np.testing.assert_array_equal(last[:, :-7], first[:, 7:])
    np.testing.assert_array_equal(first, canvas[48:80, 34:66])


def test_a_smaller_view_shows_less_of_the_canvas_larger() -> None:
    canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    canvas[60:68, 60:68] = 255  # 8 pixels wide
    shares = [(see(canvas, View(64.0, 64.0, side, 0.0), 64)[..., 0] > 127).mean() ** 0.5 for side in (64.0, 32.0)]
    assert shares == pytest.approx([8 / 64, 8 / 32], abs=0.02)


def test_each_training_picture_has_every_move_and_a_held_out_one_has_one(moves: CameraMoves) -> None:
    splits = moves.splits(6, 6)
    assert {part: len(split) for part, split in splits.items()} == {
        "calib": 6, "select": 6, "train": 36 * len(MOVES), "test": 12,
    }  # fmt: skip
    assert np.bincount(splits["train"].labels).tolist() == [36] * len(MOVES)
    for split in splits.values():
        assert [name.rpartition("#")[2] for name in split.names] == [MOVES[label] for label in split.labels]
    assert moves.classes == list(MOVES)


def test_what_is_drawn_depends_on_the_generator_and_evaluation_on_the_name(moves: CameraMoves) -> None:
    name = moves.splits(6, 6)["train"].names[0]
    first, again, other = (moves.drawn(name, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (FRAMES, SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    fresh = CameraMoves(moves.root, FRAMES, SIDE)  # another process
    fresh.splits(6, 6)
    np.testing.assert_array_equal(moves.picture(name), fresh.picture(name))
    assert not np.array_equal(moves.picture(name), moves.picture(name.replace(name.rpartition("#")[2], MOVES[2])))


def test_pictures_of_one_split_never_show_in_clips_of_another(tmp_path: Path) -> None:
    """Training pictures are red, test pictures blue; also what passes by and what else is on the canvas."""
    for part, colour in (("train", (0, 0, 200)), ("test", (200, 0, 0))):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(8):
                picture = np.full((24, 24, 3), colour, np.uint8)
                cv2.imwrite(str(tmp_path / part / label / f"{number}.png"), picture)
    source = CameraMoves(tmp_path, FRAMES, SIDE)
    splits = source.splits(2, 2)
    for part, channel in (("train", 0), ("select", 0), ("test", 2)):
        for name in splits[part].names[:40]:
            clip = source.drawn(name, np.random.default_rng(len(name)))
            assert clip[..., channel].min() > 100
            assert clip[..., 2 - channel].max() == 0


@pytest.mark.parametrize(("side", "shown"), [(200, {1}), (40, {1, 4})])
def test_a_large_picture_fills_the_canvas_and_small_ones_share_it(side: int, shown: set[int]) -> None:
    picture, *others = (np.full((side, side, 3), level, np.uint8) for level in (20, 80, 140, 200))
    found = set()
    for seed in range(60):
        clip = film(picture, others, "zoom out", 4, SIDE, np.random.default_rng(seed))
        assert clip.shape == (4, SIDE, SIDE, 3)
        found.add(len(np.unique(_canvas(picture, others, np.random.default_rng(seed)))))
    assert shown <= found
    assert found <= {1, 2, 3, 4}
    assert (found == {1}) == (shown == {1})


def test_data_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures found"):
        CameraMoves(tmp_path, FRAMES, SIDE)
