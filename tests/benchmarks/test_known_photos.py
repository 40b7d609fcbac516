"""Whether strangers are told by what they show."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.known_photos import auroc, known_photos, prepared, rows_of, table
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource, centre_square, resize_rgb
from zoo.recipe import Recipe
from zoo.strangers import through_jpeg


def test_photographs_of_known_classes_go_by_their_whole_name() -> None:
    names = ["0291_lion.jpg", "0150_sea_lion.jpg", "a/0285_Egyptian_cat.jpg", "0323_monarch.jpg", "0000_tench.jpg"]
    classes = ("egyptian_cat", "lion", "monarch_butterfly")
    assert known_photos(names, classes) == {
        "0291_lion.jpg": "lion", "a/0285_Egyptian_cat.jpg": "egyptian_cat", "0323_monarch.jpg": "monarch_butterfly",
    }  # fmt: skip


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    assert auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 1.0
    assert auroc(np.array([0.9, 0.1]), np.array([0.5])) == 0.5
    assert auroc(np.array([0.5]), np.array([0.5, 0.6, 0.4, 0.1])) == pytest.approx(2.5 / 4)


def test_a_photograph_is_cut_square_and_goes_by_way_of_a_small_jpeg_when_asked() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    assert np.array_equal(prepared(photo, 96, False), resize_rgb(centre_square(photo), (96, 96)))
    small = through_jpeg(resize_rgb(centre_square(photo), (64, 64)), 75)
    assert np.array_equal(prepared(photo, 96, True), resize_rgb(small, (96, 96)))


def test_known_photographs_are_compared_with_the_strangers_that_training_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    # bright pictures of a known class, strangers that are dark, or grey where training would have seen them
    for number in range(24):
        name, level = ("class1", 200) if number % 4 == 0 else ("other", 20 if number % 2 else 240)
        cv2.imwrite(str(folder / f"{number:04}_{name}.png"), np.full((96, 96, 3), level, np.uint8))
    photos = PictureSource(folder, labelled=False)
    recipe = Recipe(strangers_per_batch=2, strangers_skipped=("class",), mean=(0.0,) * 3, std=(255.0,) * 3)
    test_names = [n for n in photos.names if "other" in n][1::2]
    level_of = {name: int(photos.picture(name).mean()) for name in test_names}

    class Brightness(torch.nn.Module):
        """Surer of its second class the brighter the picture."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.zeros(len(x)), 4.0 * x.mean((1, 2, 3)), torch.zeros(len(x))], 1)

    monkeypatch.setattr("benchmarks.known_photos.materialise", lambda model, **point: Brightness())
    checkpoint = Checkpoint({}, recipe.to_dict(), ["class0", "class1", "class2"], {})
    monkeypatch.setattr(Checkpoint, "build", lambda self: None)
    rows = rows_of(checkpoint, photos, [(1.0, 16)])
    dimmer = np.mean([level < 200 for level in level_of.values()])
    assert 0.0 < dimmer < 1.0
    assert [(row["as_trained"], row["photos"], row["known_top1"]) for row in rows] == [(False, 6, 1.0), (True, 6, 1.0)]
    assert all(row["auroc"] == pytest.approx(dimmer) for row in rows)
    assert table({"one": rows}).splitlines()[2].startswith("| one | 1.00 x 16 | photographs | ")
