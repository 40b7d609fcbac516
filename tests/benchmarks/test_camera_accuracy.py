"""Accuracy with and without a bad camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.camera_accuracy import accuracies, camera_pictures, table
from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.train import train


def write_pictures(root: Path) -> PictureSource:
    """Three classes of noise, each about another colour."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                picture = draw.integers(0, 120, (16, 16, 3), np.uint8)
                picture[..., label] += 100
                cv2.imwrite(str(folder / f"{index}.png"), picture)
    return PictureSource(root)


def test_every_point_is_judged_on_the_pictures_and_on_what_a_camera_makes_of_them(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures")
    recipe = Recipe(
        model_options={"width_mult": 0.25, "small_input": True}, widths=(0.25, 1.0), resolutions=(16, 12), epochs=8,
        batch_size=12, calib_pictures=3, select_pictures=6, norm_pictures=30,
    )  # fmt: skip
    checkpoint = load_checkpoint(train(recipe, source, tmp_path / "run"))
    split = source.splits(3, 6)["test"]
    camera = camera_pictures(source, split, 16)
    assert camera.shape == (len(split), 16, 16, 3)
    assert np.array_equal(camera, camera_pictures(source, split, 16))
    rows = accuracies(checkpoint, source, split, camera)
    assert [(row["width"], row["resolution"]) for row in rows] == recipe.points()
    expected = {(row["width"], row["resolution"]): row["test_accuracy"] for row in checkpoint.accuracy}
    assert all(row["plain"] == expected[row["width"], row["resolution"]] for row in rows)
    blank = accuracies(checkpoint, source, split, np.zeros_like(camera))
    shares = np.bincount(split.labels) / len(split)
    assert all(row["camera"] in shares for row in blank)  # one class for all


def test_the_table_compares_the_points_that_all_have_and_ends_with_means() -> None:
    one = [{"width": 1.0, "resolution": 16, "plain": 0.9, "camera": 0.7}]
    one.append({"width": 0.5, "resolution": 16, "plain": 0.5, "camera": 0.3})
    other = [{"width": 0.5, "resolution": 16, "plain": 0.6, "camera": 0.2}]
    assert table({"one": one, "other": other}).splitlines()[2:] == [
        "| 0.50 | 16 | 50.0% | 30.0% | 60.0% | 20.0% |",
        "| all | | 50.0% | 30.0% | 60.0% | 20.0% |",
    ]
    assert "one: select | camera" in table({"one": one}, "select")
    assert table({"one": one}).splitlines()[-1] == "| all | | 70.0% | 50.0% |"
