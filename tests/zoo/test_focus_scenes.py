"""Cluttered scenes: a whole labelled picture at a drawn place, the same whenever the seed is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.focus_scene_source import SceneSource
from zoo.focus_scenes import SceneSpec, draw_scene, draw_texture, evaluation_scenes, training_scenes
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource, resize_rgb

SPEC = SceneSpec(canvas=64, objects=(16, 24), pieces=(4, 8))
FIRST_BOXES = [[0, 7, 19], [3, 26, 22], [38, 1, 17]]
"""Where the first three pictures lay before there were variants: results of old stay comparable."""


def test_the_labelled_picture_lies_whole_where_the_box_says(source: PictureSource) -> None:
    names = source.names[:12]
    scenes, boxes = evaluation_scenes(source, names, source.names, SPEC, 0)
    assert scenes.shape == (12, 64, 64, 3)
    for name, scene, (top, left, side) in zip(names, scenes, boxes, strict=True):
        assert SPEC.objects[0] <= side <= SPEC.objects[1]
        picture = source.picture(name)
        size = min(picture.shape[:2])
        rows, columns = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
        square = picture[rows : rows + size, columns : columns + size]
        expected = resize_rgb(square, (side, side))
        assert np.array_equal(scene[top : top + side, left : left + side], expected)
    assert len({tuple(box) for box in boxes.tolist()}) > 8  # sizes and places differ


def test_an_evaluation_scene_belongs_to_its_picture_whatever_stands_beside_it(source: PictureSource) -> None:
    names = source.names[:4]
    together, _ = evaluation_scenes(source, names, source.names, SPEC, 0)
    alone, _ = evaluation_scenes(source, names[2:3], source.names, SPEC, 0)
    assert np.array_equal(together[2], alone[0])
    other, _ = evaluation_scenes(source, names, source.names, SPEC, 1)
    assert not np.array_equal(together, other)


def test_the_first_variant_stays_what_it_was_and_each_other_one_is_another_scene(source: PictureSource) -> None:
    names = source.names[:3]
    known, boxes = evaluation_scenes(source, names, source.names, SPEC, 0)
    assert boxes.tolist() == FIRST_BOXES
    variants = [evaluation_scenes(source, names, source.names, SPEC, 0, variant)[0] for variant in range(4)]
    assert np.array_equal(variants[0], known)
    for name in range(3):
        assert len({variant[name].tobytes() for variant in variants}) == 4
    assert np.array_equal(variants[2], evaluation_scenes(source, names, source.names, SPEC, 0, 2)[0])


@pytest.mark.parametrize(("data", "scenes"), [("scenes", 3), ("pictures", 1)])
def test_pictures_that_are_shown_as_they_are_have_one_variant(source: PictureSource, data: str, scenes: int) -> None:
    design = {"backbone": "mobilenet_v1", "patch": 24, "picture": 64, "steps": 2}
    recipe = GlanceRecipe(data=data, object_sides=(16, 24), design=design)
    views, split = Views(recipe, source, source.names), source.splits(6, 6)["select"]
    assert views.variants(3) == range(scenes)
    pictures = [views.evaluation(split.names, variant) for variant in range(2)]
    assert np.array_equal(*pictures) == (data == "pictures")
    assert np.array_equal(views.evaluation(split.names), pictures[0])
    batches = [next(iter(views.batches(split, variant=variant)))[1] for variant in range(2)]
    assert bool((batches[0] == batches[1]).all()) == (data == "pictures")


def test_training_scenes_depend_on_seed_epoch_and_row(source: PictureSource) -> None:
    def made(rows: list[int], seed: int, epoch: int) -> np.ndarray:
        return training_scenes(source, source.names[:2], rows, source.names, SPEC, "basic", seed, epoch)

    first = made([0, 1], 0, 0)
    assert np.array_equal(first, made([0, 1], 0, 0))
    for other in (made([0, 1], 1, 0), made([0, 1], 0, 1), made([5, 6], 0, 0)):
        assert not np.array_equal(first[0], other[0])


def test_pieces_of_other_pictures_lie_on_the_canvas(source: PictureSource) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    bare = SceneSpec(canvas=64, objects=(16, 16), distractors=(0, 0))
    many = SceneSpec(canvas=64, objects=(16, 16), distractors=(9, 9), pieces=(8, 8))
    plain, _ = draw_scene(picture, source, source.names, bare, np.random.default_rng(3))
    full, box = draw_scene(picture, source, source.names, many, np.random.default_rng(3))
    changed = (plain != full).any(2)
    assert changed.mean() > 0.05  # nine pieces of 64 pixels on 4096, some under others
    top, left, side = box
    assert not full[top : top + side, left : left + side].any()  # nothing covers the labelled picture


def test_textures_vary_in_kind_and_fill_the_canvas() -> None:
    textures = [draw_texture(48, np.random.default_rng(seed)) for seed in range(12)]
    assert all(t.shape == (48, 48, 3) and t.dtype == np.uint8 for t in textures)
    detail = [float(np.abs(np.diff(t.astype(int), axis=1)).mean()) for t in textures]
    assert max(detail) > 2 * min(detail)


def test_scenes_stand_in_for_pictures_without_leaking(shapes_folder: Path, source: PictureSource) -> None:
    scenes = SceneSource(shapes_folder, SPEC, copies=2)
    splits, plain = scenes.splits(6, 6), source.splits(6, 6)
    assert len(splits["train"]) == 2 * len(plain["train"])
    assert {name.partition("#")[0] for name in splits["train"].names} == set(plain["train"].names)
    assert splits["select"].names == plain["select"].names  # one scene each, and of no training picture
    assert [int(v) for v in splits["train"].labels[: len(plain["train"])]] == plain["train"].labels.tolist()
    first, second = (scenes.picture(f"{plain['train'].names[0]}#{copy}") for copy in (0, 1))
    assert first.shape == (64, 64, 3)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, scenes.picture(f"{plain['train'].names[0]}#0"))
    name = plain["test"].names[0]
    expected, _ = evaluation_scenes(source, [name], plain["train"].names, SPEC, 0)
    assert np.array_equal(scenes.picture(name), expected[0])  # the scene that Glance and Focus is judged on
