"""What is asked of a network that looks at scenes without anything it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.focus_unsure import answers, strange_scenes, table
from edge_runtime.bundle import Bundle
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource
from zoo.strangers import Strangers

SHIPPED = Path("apps/demo/focus-20.bundle")
OPTIONS = {"width_mult": 0.125, "small_input": True}
DESIGN = {"backbone": "mobilenet_v1", "backbone_options": OPTIONS, "patch": 32, "steps": 2}


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSource:
    """Grey strangers; pieces are cut from them, too."""
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((80, 80, 3), 120, np.uint8))
    return PictureSource(tmp_path, labelled=False)


def views(pictures: PictureSource, data: str) -> Views:
    recipe = GlanceRecipe(design={**DESIGN, "picture": 128 if data == "scenes" else 64}, data=data)
    return Views(recipe, pictures, pictures.names)


def test_a_stranger_lies_in_its_scene_and_the_clutter_is_without_one(pictures: PictureSource) -> None:
    strangers = Strangers(pictures)
    around, empty = strange_scenes(views(pictures, "scenes"), strangers, tuple(pictures.names))
    assert around.shape == empty.shape == (4, 128, 128, 3)
    grey = [int((np.abs(scenes.astype(int) - 120).max(3) <= 1).sum()) for scenes in (around, empty)]
    assert grey[0] > grey[1] + 4 * 30 * 30  # a picture has 36 pixels a side or more, less what pieces cover
    again = strange_scenes(views(pictures, "scenes"), strangers, tuple(pictures.names))
    assert np.array_equal(again[0], around)
    assert np.array_equal(again[1], empty)


def test_a_network_of_whole_pictures_has_no_scenes(pictures: PictureSource) -> None:
    with pytest.raises(ValueError, match="give one of scenes"):
        strange_scenes(views(pictures, "pictures"), Strangers(pictures), tuple(pictures.names))


def test_every_point_is_asked_and_its_threshold_decides() -> None:
    bundle = Bundle.load(SHIPPED)
    points = tuple(replace(p, unsure_below=0.0 if p.name.startswith("all") else 1.0) for p in bundle.manifest.points)
    decided = Bundle(bundle.root, replace(bundle.manifest, points=points))
    scenes = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    rows = {row["point"]: row for row in answers(decided, {"noise": scenes, "one": scenes[:1]})}
    assert rows.keys() == {p.name for p in points}
    for name, row in rows.items():
        assert row["unsure"] == dict.fromkeys(("noise", "one"), 0.0 if name.startswith("all") else 1.0)
    assert rows["all-int8"]["looks"]["noise"] == 5.0
    assert rows["one-look-int8"]["looks"]["noise"] == 1.0


def test_the_table_has_a_row_for_each_point() -> None:
    rows = [{"point": "safe", "unsure": {"known": 0.021, "clutter": 0.5}, "looks": {"known": 2.6, "clutter": 5.0}}]
    assert table(rows).splitlines() == [
        "| point | known: unsure | looks | clutter: unsure | looks |", "|---|---|---|---|---|",
        "| safe | 2.1% | 2.60 | 50.0% | 5.00 |",
    ]  # fmt: skip
