"""From trained weights to a finished checkpoint: statistics of every point, tuned or not, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.box_recipe import BoxRecipe
from zoo.calibrate import calibrate
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.evaluate import evaluate_points
from zoo.held import HeldSubnet
from zoo.pictures import PictureSource, Split
from zoo.point_tuning import Point, tune_bank
from zoo.processes import Processes
from zoo.quantization_aware import round_weights
from zoo.recipe import Recipe, RecipeError
from zoo.slim_net import SlimNet
from zoo.strangers import Strangers
from zoo.training_log import TrainingLog


def train_strangers(
    recipe: Recipe, source: PictureSource, split: Split, pictures: PictureSource | None
) -> Strangers | None:
    """The strangers that a recipe asks for, as small as its training pictures; None where it asks for none.

    Raises:
        RecipeError: it asks for them, and there are no pictures.
        DataError: too few of them can be used.
    """
    if recipe.strangers_per_batch == 0:
        return None
    if pictures is None:
        raise RecipeError("recipe: strangers_per_batch needs pictures of none of the classes; give them by --strangers")
    side_px = min(source.picture(split.names[0]).shape[:2])
    return Strangers(pictures, recipe.strangers_skipped, side_px, recipe.strangers_jpeg_quality)


def finish(
    model: SlimNet, recipe: Recipe, source: PictureSource, splits: Mapping[str, Split], out: Path,
    strangers: Strangers | None, processes: Processes, log: TrainingLog, held: HeldSubnet | None = None,
) -> Path:  # fmt: skip
    """Calibrate a trained network, tune its points if the recipe asks for it, evaluate, and write `model.pt`.

    With `point_epochs` and `point_rounding` the weights are rounded for good before, to what int8 will hold of them:
    what is tuned beside rounded weights would not fit others.

    Args:
        held: a subnet that stayed as it was while wider ones trained with norms of their own.
    Returns:
        the path of `model.pt`; rank 0 has written it.
    """
    train = splits["train"]
    if recipe.point_epochs and recipe.point_rounding:
        round_weights(model, recipe.quantization_largest)
    _calibrate(model, recipe, source, norm_subset(recipe, train), held)
    if recipe.point_epochs:
        tuned = tune_bank(
            model, recipe, source, out, strangers=strangers, processes=processes, progress=log.relay
        )  # fmt: skip
        log.write({"event": "tuned", "points": tuned})
    return evaluate_and_write(model, recipe, source, splits, out, processes, log)


def norm_subset(recipe: Recipe | BoxRecipe, train: Split) -> Split:
    """The training pictures that statistics are measured on."""
    rows = np.random.default_rng(recipe.seed).permutation(len(train))[: recipe.norm_pictures]
    return Split(tuple(train.names[i] for i in rows), train.labels[rows])


def evaluate_and_write(
    model: SlimNet, recipe: Recipe, source: PictureSource, splits: Mapping[str, Split], out: Path,
    processes: Processes, log: TrainingLog,
) -> Path:  # fmt: skip
    """Evaluate every point of a network whose bank is full, and write `model.pt`; returns its path."""
    held_out = {name: split for name, split in splits.items() if name != "train"}

    def evaluated(points: list[Point]) -> list[dict[str, Any]]:
        return evaluate_points(
            model, source, held_out, points, recipe.mean, recipe.std, unsure_share=recipe.unsure_share
        )  # fmt: skip

    accuracy, path = processes.shared_out(recipe.trained_points(), evaluated), out / "model.pt"
    if processes.rank == 0:
        log.write({"event": "result", "points": accuracy})
        save_checkpoint(path, Checkpoint(model.state_dict(), recipe.to_dict(), source.classes, accuracy=accuracy))
    processes.wait()
    return path


def _calibrate(
    model: SlimNet, recipe: Recipe, source: PictureSource, subset: Split, held: HeldSubnet | None
) -> None:  # fmt: skip
    """Statistics of all points, each with the norms that its width was trained with."""
    if held is None and recipe.has_own_norms():
        return  # norms of wide widths, once written as statistics, are in the bank alone
    points, widest = recipe.trained_points(), (held.width if held else None) or 0.0
    calibrate(model, source, subset, [point for point in points if point[0] > widest], recipe.mean, recipe.std)
    if held is None or held.width is None:
        return
    held.return_norms(model)
    wide = model.norm_bank.entries
    calibrate(model, source, subset, [point for point in points if point[0] <= widest], recipe.mean, recipe.std)
    model.norm_bank.entries = wide | model.norm_bank.entries
