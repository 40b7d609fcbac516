"""Training recipes: what is accepted, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.recipe import Recipe, RecipeError

OTHER_KINDS = ("gfnet-", "efficientdet-")  # read by test_gfnet_train.py and test_box_train.py
SHIPPED = [
    path
    for path in sorted((Path(zoo.__file__).parent / "recipes").glob("*.toml"))
    if not path.stem.startswith(OTHER_KINDS)
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_can_be_read_and_builds_its_model(path: Path) -> None:
    recipe = Recipe.from_file(path)
    assert zoo.create(recipe.model, num_classes=2, **recipe.model_options)


def test_recipes_are_shipped() -> None:
    assert {"mutualnet-20", "usnet-20"} <= {path.stem for path in SHIPPED}


def test_a_recipe_survives_its_plain_values() -> None:
    recipe = Recipe(widths=(0.5, 1.0), model_options={"small_input": True})
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_toml_file_sets_what_it_names_and_keeps_the_other_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('method = "usnet"\nwidths = [0.5, 1]\nlearning_rate = 1\nmodel_options = { small_input = true }\n')
    recipe = Recipe.from_file(path)
    assert recipe == Recipe(method="usnet", widths=(0.5, 1.0), learning_rate=1.0, model_options={"small_input": True})


def test_points_run_from_the_largest_to_the_smallest() -> None:
    recipe = Recipe(widths=(0.5, 1.0), resolutions=(32, 64))
    assert recipe.points() == [(1.0, 64), (1.0, 32), (0.5, 64), (0.5, 32)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epoch": 3}, "'epoch'"),
        ({"model": "alexnet"}, "model is 'alexnet'"),
        ({"method": "magic"}, "method is 'magic'"),
        ({"optimizer": "luck"}, "optimizer is 'luck'"),
        ({"augmentation": "wild"}, "augmentation is 'wild'"),
        ({"widths": []}, "widths"),
        ({"widths": [0.5, 1.5]}, "widths"),
        ({"widths": 0.5}, "widths is 0.5"),
        ({"widths": ["wide"]}, "widths"),
        ({"widths": [0.5, 1.0], "width_choices": [0.25]}, "width_choices"),
        ({"strangers_per_batch": -1}, "strangers_per_batch"),
        ({"strangers_skipped": [1]}, "strangers_skipped"),
        ({"resolutions": [4]}, "resolutions"),
        ({"resolutions": [32.5]}, "resolutions"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"random_widths": -1}, "random_widths"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"ema_teacher": 1.0}, "ema_teacher"),
        ({"mean": [0.0, 0.0]}, "mean"),
        ({"std": [1.0, 1.0, 0.0]}, "std"),
        ({"calib_pictures": -1}, "calib_pictures"),
        ({"select_pictures": -1}, "select_pictures"),
        ({"norm_pictures": 0}, "norm_pictures"),
        ({"seed": -1}, "seed"),
        ({"model_options": []}, "model_options"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(values: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(values)
    assert named in str(caught.value)


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe\x00binary", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"bad\.toml: not a readable recipe"):
        Recipe.from_file(path)


def test_the_file_of_an_impossible_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("epochs = 0\n")
    with pytest.raises(RecipeError, match=r"bad\.toml.*epochs is 0"):
        Recipe.from_file(path)
