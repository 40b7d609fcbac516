"""Checkpoints: weights, norm bank, recipe, classes and accuracy in one file of plain tensors and values."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.models import create
from zoo.recipe import Recipe
from zoo.slim_net import SlimNet

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names the file and what to do."""


@dataclass
class Checkpoint:
    """What a training run leaves behind."""

    model: dict[str, Any]
    """State dict with the norm bank."""
    recipe: dict[str, Any]
    classes: list[str]
    training: dict[str, Any] = field(default_factory=dict)
    """Optimizer, epoch and step; empty in a finished model."""
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    """One row per operating point: width, resolution, accuracy per split."""
    format: int = FORMAT

    def build(self) -> SlimNet:
        """The supernet with these weights and statistics, in eval mode."""
        recipe = Recipe.from_dict(self.recipe)
        model = create(recipe.model, num_classes=len(self.classes), **recipe.model_options)
        model.load_state_dict(self.model)
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside the target and rename, so that a crash leaves the old file whole."""
    temporary = path.with_name(path.name + ".part")
    torch.save(asdict(checkpoint), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: missing, broken, or of another format.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train one first (python -m zoo train)") from error
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}; train it again with this version")
    return Checkpoint(**values)
