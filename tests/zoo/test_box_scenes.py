"""Scenes with boxes: the boxes are where the pictures are, splits stay apart, and the seed decides everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from box_pictures import write_colours

from zoo.augment import augmented_batch
from zoo.box_evaluate import at_side
from zoo.box_scenes import BoxScene, BoxSceneSet, BoxSceneSpec, training_scenes
from zoo.box_train import targets_at
from zoo.focus_scenes import SceneSpec
from zoo.pictures import PictureSource, Split

SPEC = BoxSceneSpec(SceneSpec(96, (24, 48)))
ROWS = range(30)


class SplitSource(PictureSource):
    """Flat pictures whose colour is the split's; it remembers what was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: set[str] = set()

    def picture(self, name: str) -> np.ndarray:
        self.asked.add(name)
        return super().picture(name)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def scenes(colours: Path) -> list[BoxScene]:
    source = PictureSource(colours)
    return training_scenes(source, source.splits(6, 6)["train"], ROWS, SPEC, "none", 3, 1)


def test_each_box_holds_the_colour_of_its_class_from_edge_to_edge(scenes: list[BoxScene]) -> None:
    strongest = {0: 2, 1: 1, 2: 0}  # blue, green, red
    checked = 0
    for scene in scenes:
        for number, (box, label) in enumerate(zip(scene.boxes_yxyx.astype(int), scene.labels, strict=True)):
            top, left, bottom, right = box
            own = np.ones((bottom - top, right - left), bool)
            for y0, x0, y1, x1 in scene.boxes_yxyx[number + 1 :].astype(int):  # later pictures lie over it
                own[max(0, y0 - top) : max(0, y1 - top), max(0, x0 - left) : max(0, x1 - left)] = False
            inside = scene.pixels[top:bottom, left:right]
            assert len(np.unique(inside[own], axis=0)) == 1  # one flat colour, so nothing of the ground
            assert int(inside[own][0].argmax()) == strongest[int(label)]
            checked += 1
    assert checked > 40


def test_the_pixels_just_outside_a_box_are_not_the_picture(scenes: list[BoxScene]) -> None:
    tested = 0
    for scene in scenes:
        top, left, bottom, right = scene.boxes_yxyx[-1].astype(int)  # nothing lies over the last one
        colour = scene.pixels[top, left]
        if top > 0 and left > 0 and bottom < 96 and right < 96:
            around = [scene.pixels[top - 1, left:right], scene.pixels[bottom, left:right]]
            around += [scene.pixels[top:bottom, left - 1], scene.pixels[top:bottom, right]]
            assert all((line != colour).any(1).mean() > 0.1 for line in around)  # a piece of it may lie there
            tested += 1
    assert tested > 15


def test_sides_counts_and_overlaps_are_those_of_the_specification(scenes: list[BoxScene]) -> None:
    counts, longer = set(), []
    for scene in scenes:
        counts.add(len(scene.labels))
        assert scene.pixels.shape == (96, 96, 3)
        assert scene.boxes_yxyx.dtype == np.float32
        assert scene.boxes_yxyx.min() >= 0
        assert scene.boxes_yxyx.max() <= 96
        sides = scene.boxes_yxyx[:, 2:] - scene.boxes_yxyx[:, :2]
        assert np.all(sides.max(1) <= (4 / 3) * (sides.min(1) + 1))
        longer += sides.max(1).tolist()
        for i, one in enumerate(scene.boxes_yxyx):
            for other in scene.boxes_yxyx[i + 1 :]:
                both = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
                smaller = min((box[2:] - box[:2]).prod() for box in (one, other))
                assert both <= 0.1 * smaller
    assert counts == {1, 2, 3}
    assert (min(longer), max(longer)) >= (24, 40)
    assert max(longer) <= 48


def test_a_canvas_that_is_too_full_shows_fewer_pictures(colours: Path) -> None:
    source = PictureSource(colours)
    spec = BoxSceneSpec(SceneSpec(64, (60, 64)), counts=(3, 3), aspect=1.0)
    for scene in training_scenes(source, source.splits(6, 6)["train"], range(5), spec, "none", 0, 0):
        assert len(scene.labels) == len(scene.boxes_yxyx) == 1


def test_a_scene_shows_pictures_of_its_split_alone_labelled_and_in_pieces(colours: Path) -> None:
    for name, split in PictureSource(colours).splits(6, 6).items():
        source = SplitSource(colours)
        evaluation = BoxSceneSet(source, split, SPEC, 0)
        for one in split.names:
            evaluation.scene(one)
        training_scenes(source, split, range(len(split)), SPEC, "basic", 0, 0)
        assert source.asked <= set(split.names), name
        assert len(source.asked) > 3


def test_the_seed_the_epoch_and_the_row_decide_a_training_scene(colours: Path) -> None:
    source = PictureSource(colours)
    train = source.splits(6, 6)["train"]

    def pixels(row: int, seed: int, epoch: int) -> np.ndarray:
        return training_scenes(source, train, [row], SPEC, "basic", seed, epoch)[0].pixels

    first = pixels(2, 0, 0)
    both = training_scenes(source, train, [7, 2], SPEC, "basic", 0, 0)
    np.testing.assert_array_equal(first, both[1].pixels)  # whatever comes before it
    for other in ((2, 1, 0), (2, 0, 1), (3, 0, 0)):
        assert not np.array_equal(first, pixels(*other))


def test_each_picture_of_an_epoch_is_augmented_by_draws_of_its_own(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[int] = []

    def note(source: PictureSource, names: list[str], indices: list[int], *rest: object) -> np.ndarray:
        keys.extend(indices)
        return augmented_batch(source, names, indices, *rest)

    monkeypatch.setattr("zoo.box_scenes.augmented_batch", note)
    source = PictureSource(colours)
    training_scenes(source, source.splits(6, 6)["train"], ROWS, SPEC, "basic", 0, 0)
    assert len(keys) == len(set(keys)) > len(ROWS)


def test_evaluation_scenes_stay_and_begin_with_their_picture(colours: Path) -> None:
    source = PictureSource(colours)
    test = source.splits(6, 6)["test"]
    one, again, other = (BoxSceneSet(source, test, SPEC, seed) for seed in (0, 0, 1))
    for name, label in zip(test.names, test.labels, strict=True):
        scene = one.scene(name)
        assert scene.labels[0] == label
        np.testing.assert_array_equal(scene.boxes_yxyx, again.scene(name).boxes_yxyx)
        np.testing.assert_array_equal(one.picture(name), again.picture(name))
        assert not np.array_equal(one.picture(name), other.picture(name))
    assert len(one) == len(test)


def test_targets_are_in_pixels_of_the_input_with_x_first() -> None:
    boxes = np.array([[8.0, 16.0, 40.0, 64.0]], np.float32)
    scene = BoxScene(np.zeros((128, 128, 3), np.uint8), boxes, np.array([4]))
    (target,) = targets_at([scene], 96)
    assert target.boxes_xyxy.tolist() == [[12.0, 6.0, 48.0, 30.0]]
    assert target.labels.tolist() == [4]
    assert at_side(scene, 128).boxes_xyxy.tolist() == [[16.0, 8.0, 64.0, 40.0]]


def test_a_split_of_one_picture_gives_scenes_of_that_picture(colours: Path) -> None:
    source = PictureSource(colours)
    name = source.splits(6, 6)["test"].names[0]
    scene = BoxSceneSet(source, Split((name,), np.array([1])), SPEC, 0).scene(name)
    assert set(scene.labels.tolist()) == {1}
