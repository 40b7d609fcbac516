"""Checkpoints: weights, norm bank, recipe, classes and accuracy in one file of plain tensors and values."""

from __future__ import annotations

import io
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
        """The supernet with these weights and statistics, in eval mode.

        Raises:
            CheckpointError: the weights do not fit the model that the recipe names.
        """
        recipe = Recipe.from_dict(self.recipe)
        model = create(recipe.model, num_classes=len(self.classes), **recipe.model_options)
        try:
            model.load_state_dict(self.model)
        except RuntimeError as error:
            raise CheckpointError(
                f"checkpoint: the weights do not fit {recipe.model!r} with {len(self.classes)} classes and options "
                f"{recipe.model_options}; use the version of this project that wrote the file"
            ) from error
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside the target and rename, so that a crash or a full disk leaves the old file whole.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written to.
    """
    content = io.BytesIO()  # torch hides the cause when it writes to a full disk itself
    torch.save(asdict(checkpoint), content)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror}; free some space or choose another folder, then run the "
            "same command again to go on"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: missing, broken, or of another format.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train one first (python -m zoo train)") from error
    except Exception as error:  # torch raises many kinds for a broken file, with paragraphs of advice
        raise CheckpointError(
            f"{path}: not a readable checkpoint; it is damaged, or python -m zoo train did not write it"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}; train it again with this version")
    try:
        return Checkpoint(**values)
    except TypeError as error:
        raise CheckpointError(f"{path}: not a checkpoint: its fields are {', '.join(map(str, values))}") from error
