"""Networks for clips trained by recipe: MutualNet over widths, numbers of frames and resolutions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo import materialise
from zoo.checkpoint import load_checkpoint
from zoo.mutual import draw_subnets
from zoo.recipe import Recipe, RecipeError
from zoo.refit import tune_checkpoint
from zoo.sizes import input_shape, size_facts, size_of, size_text
from zoo.sources import open_source, recipe_splits
from zoo.train import train

RECIPE = Recipe(
    model="stm50_8f",
    model_options={"width_mult": 0.125, "depths": (1, 1, 1, 1)},
    clips="camera-moves",
    frames=(4, 2),
    clip_ms=400,
    widths=(0.5, 1.0),
    resolutions=(24, 16),
    epochs=1,
    batch_size=36,
    optimizer="adamw",
    learning_rate=0.002,
    calib_pictures=6,
    select_pictures=6,
    norm_pictures=36,
)
SIZES = [(4, 24, 24), (4, 16, 16), (2, 24, 24), (2, 16, 16)]


def changed(**values: Any) -> Recipe:
    return dataclasses.replace(RECIPE, **values)


@pytest.fixture(scope="module")
def trained(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(RECIPE, open_source(RECIPE, shapes_folder), tmp_path_factory.mktemp("run"))


def test_every_width_frames_and_resolution_is_a_calibrated_point(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    points = [(row["width"], row["frames"], row["resolution"]) for row in checkpoint.accuracy]
    assert points == [(w, t, r) for w in (1.0, 0.5) for t in (4, 2) for r in (24, 16)]
    model = checkpoint.build()
    assert len(model.norm_bank) == 8
    for row in checkpoint.accuracy:
        plain = materialise(model, width=row["width"], resolution=size_of(row))
        assert plain(torch.zeros(input_shape(size_of(row)))).shape == (1, 7)
        assert {"madds", "select_accuracy", "test_accuracy", "temperature"} <= set(row)
    costs = [row["madds"] for row in checkpoint.accuracy]
    assert costs[0] == 2 * costs[2]  # half the frames


def test_a_stopped_run_goes_on_to_the_same_weights(trained: Path, shapes_folder: Path, tmp_path: Path) -> None:
    two = changed(epochs=2, resolutions=(16,), frames=(3, 2), random_widths=0, norm_pictures=6)
    whole = train(two, open_source(two, shapes_folder), tmp_path / "whole")
    train(two, open_source(two, shapes_folder), tmp_path / "parts", stop_after_epochs=1)
    parts = train(two, open_source(two, shapes_folder), tmp_path / "parts")
    expected, found = load_checkpoint(whole).model, load_checkpoint(parts).model
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_points_of_clips_can_be_tuned_alone(trained: Path, shapes_folder: Path, tmp_path: Path) -> None:
    path = tune_checkpoint(trained, open_source(RECIPE, shapes_folder), tmp_path, 1)
    rows = load_checkpoint(path).accuracy
    assert [size_of(row) for row in rows[:4]] == SIZES


def test_training_starts_from_a_checkpoint_of_clips(trained: Path, shapes_folder: Path, tmp_path: Path) -> None:
    more = changed(init=str(trained), head_passes=0, sort_channels=False, frames=(3, 2), random_widths=0)
    rows = load_checkpoint(train(more, open_source(more, shapes_folder), tmp_path)).accuracy
    assert {row["frames"] for row in rows} == {3, 2}


def test_steps_draw_among_all_sizes_and_learn_labels_at_the_largest() -> None:
    import numpy as np

    drawn = set()
    for seed in range(60):
        first, *others = draw_subnets("mutualnet", (0.5, 1.0), RECIPE.sizes(), np.random.default_rng(seed))
        assert (first.width, first.resolution) == (1.0, (4, 24, 24))
        drawn |= {subnet.resolution for subnet in others}
    assert drawn == set(SIZES)


def test_sizes_of_a_recipe_are_largest_first() -> None:
    assert list(RECIPE.sizes()) == SIZES
    assert list(changed(frames=(2, 4), resolutions=(16, 24)).sizes()) == SIZES
    assert Recipe(resolutions=(32, 64)).sizes() == (64, 32)
    assert [size_of(size_facts(size)) for size in (64, (8, 32, 32))] == [64, (8, 32, 32)]
    assert [size_text(size) for size in (64, (8, 32, 32))] == ["64 px", "8 frames of 32 px"]


def test_a_recipe_may_take_a_part_of_the_training_clips(shapes_folder: Path) -> None:
    source = open_source(RECIPE, shapes_folder)
    whole = recipe_splits(RECIPE, source)
    part, again, other = (recipe_splits(changed(train_pictures=50, seed=seed), source)["train"] for seed in (0, 0, 1))
    assert len(part) == 50
    assert part.names == again.names
    assert part.names != other.names
    labels = dict(zip(whole["train"].names, whole["train"].labels.tolist(), strict=True))
    assert [labels[name] for name in part.names] == part.labels.tolist()
    assert recipe_splits(changed(train_pictures=10_000), source)["train"].names == whole["train"].names
    assert recipe_splits(changed(train_pictures=50), source)["test"].names == whole["test"].names


@pytest.mark.parametrize(("values", "message"), [
    ({"clips": "films"}, "clips is 'films', expected one of videos, camera-moves, or empty"),
    ({"model": "resnet50"}, "model is 'resnet50', expected one of ean"),
    ({"frames": ()}, r"frames is \(\), expected 2 to 64, for clips"),
    ({"frames": (1,)}, "expected 2 to 64"),
    ({"clip_ms": 0}, "clip_ms is 0, expected 1 or more, for clips"),
    ({"strangers_per_batch": 4}, "strangers_per_batch is 4, expected 0, for clips"),
    ({"clips": "", "model": "resnet50"}, r"frames is \(4, 2\), expected empty, and no clip_ms, without clips"),
])  # fmt: skip
def test_a_recipe_that_does_not_fit_clips_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        changed(**values)


def test_clips_that_the_network_does_not_take_are_refused_before_training(shapes_folder: Path, tmp_path: Path) -> None:
    odd = changed(model="ean_r50_8f", method="single", widths=(1.0,), model_options={"segments": 2, "base": 16})
    with pytest.raises(RecipeError, match="'ean_r50_8f' does not take 4 frames of 24 px: EAN"):
        train(odd, open_source(odd, shapes_folder), tmp_path)
