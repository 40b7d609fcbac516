"""Every image system goes through the training loop: a few steps, calibration and evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_systems import SYSTEMS, Small

from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.train import train

FIRST = {"od_resnet18_4x", "dcdc_resnet50", "hornet_tiny_7x7", "resformer_tiny_patch16", "SDA-ResNet-86"}


@pytest.mark.parametrize("small", [s for s in SYSTEMS if s.name in FIRST], ids=lambda small: small.name)
def test_a_system_trains_and_is_evaluated_at_each_point(small: Small, shapes_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        model=small.name, model_options={**small.options, "small_input": True}, widths=(small.narrow, 1.0),
        resolutions=(32, 24), random_widths=0, epochs=1, batch_size=36, learning_rate=0.01, calib_pictures=3,
        select_pictures=6, norm_pictures=6,
    )  # fmt: skip
    rows = load_checkpoint(train(recipe, PictureSource(shapes_folder), tmp_path)).accuracy
    assert [(r["width"], r["resolution"]) for r in rows] == recipe.points()
    assert all(0.0 <= r["test_accuracy"] <= 1.0 for r in rows)
