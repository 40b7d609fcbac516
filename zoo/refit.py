"""Improve a finished checkpoint: fit its confidence again, or tune the norms of its points."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from zoo.evaluate import evaluate_points, picture_logits
from zoo.finish import finish, train_strangers
from zoo.pictures import PictureSource
from zoo.processes import Processes
from zoo.recipe import Recipe
from zoo.sizes import size_of
from zoo.slim_net import SlimNet, materialise, to_channels_last
from zoo.sources import recipe_splits
from zoo.strangers import Strangers
from zoo.training_log import TrainingLog, make_folder


def refit_confidence(
    path: Path, source: PictureSource, strangers: PictureSource | None = None, unsure_share: float | None = None
) -> list[dict[str, Any]]:
    """Evaluate every point of a finished checkpoint again and store the rows in it.

    Args:
        path: a `model.pt`; it is written anew with rows that have temperature, unsure_below, ece and unsure_known.
        source: the pictures that it was trained on.
        strangers: pictures of none of its classes, each of which ought to be answered "unsure".
        unsure_share: overrides the recipe's, and is stored.
    Returns:
        the rows; with strangers also `unsure_others`, the share of them that is answered "unsure".
    Raises:
        CheckpointError: it has no points, or its classes are not those of the pictures.
    """
    checkpoint = load_checkpoint(path)
    check_finished(checkpoint, path, source)
    recipe, model = Recipe.from_dict(checkpoint.recipe), checkpoint.build()
    share = recipe.unsure_share if unsure_share is None else unsure_share
    splits = recipe_splits(recipe, source)
    held_out = {name: split for name, split in splits.items() if name != "train"}
    points = [(row["width"], size_of(row)) for row in checkpoint.accuracy]
    rows = evaluate_points(model, source, held_out, points, recipe.mean, recipe.std, unsure_share=share)
    if strangers is not None:
        for row in rows:
            row["unsure_others"] = rejected_share(model, recipe, strangers, row)
    checkpoint.accuracy, checkpoint.recipe = rows, checkpoint.recipe | {"unsure_share": share}
    save_checkpoint(path, checkpoint)
    return rows


def tune_checkpoint(
    path: Path,
    source: PictureSource,
    out: Path,
    epochs: int,
    *,
    strangers: PictureSource | None = None,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Tune the norms of each point of a finished checkpoint (zoo.point_tuning) and evaluate it again.

    Statistics that were tuned before are not gone on from: every point is calibrated first, as after training. Where
    wide widths were trained around one that stayed (`trained_widths`), they are: nothing else holds the norms of those.

    Args:
        path: a `model.pt`; it stays as it is.
        source: the pictures that it was trained on.
        out: folder for the new `model.pt`, its log, and what a stopped run goes on from.
        epochs: replaces the recipe's `point_epochs`, and is stored.
        strangers: pictures of none of its classes, for a recipe with `strangers_per_batch`.
    Returns:
        the path of the new `model.pt`.
    Raises:
        CheckpointError: it is not finished, its classes are not those of the pictures, or a file cannot be written.
        RecipeError: there are strangers missing, the network has no batch norms, or `out` holds another run.
    """
    checkpoint = load_checkpoint(path)
    check_finished(checkpoint, path, source)
    make_folder(out)
    recipe = dataclasses.replace(Recipe.from_dict(checkpoint.recipe), point_epochs=epochs)
    model, splits = checkpoint.build(), recipe_splits(recipe, source)
    others = train_strangers(recipe, source, splits["train"], strangers)
    processes = Processes.join(torch.device("cpu"))
    log = TrainingLog(out / "log.jsonl", processes.rank == 0, progress)
    return finish(model, recipe, source, splits, out, others, processes, log)


@torch.no_grad()
def rejected_share(model: SlimNet, recipe: Recipe, strangers: PictureSource, row: dict[str, Any]) -> float:
    """How many of the pictures, 0-1, one operating point answers with "unsure".

    Where training used strangers, these are the half that it left aside.
    """
    plain = to_channels_last(materialise(model, width=row["width"], resolution=size_of(row)))
    names = Strangers(strangers, recipe.strangers_skipped).test_names if recipe.strangers_per_batch else strangers.names
    logits = picture_logits(plain, strangers, names, size_of(row), recipe.mean, recipe.std)
    confidence = (logits.double() / row["temperature"]).softmax(1).max(1).values
    return float((confidence < row["unsure_below"]).double().mean())


def check_finished(checkpoint: Checkpoint, path: Path, source: PictureSource) -> None:
    """Refuse a checkpoint without points, or of other classes than those of the pictures (CheckpointError)."""
    if not checkpoint.accuracy or checkpoint.classes != source.classes:
        raise CheckpointError(f"{path}: expected a finished checkpoint of the classes of {source.root}; train it first")
