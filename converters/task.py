"""What a kind of network means to the converter: its data, how outputs compare and what they are worth.

Classifiers are here; detectors are in box_task.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch import Tensor

from converters.sensitivity import squared_change
from converters.subnets import clip_of, size_of_point
from converters.verification import PointCheck, accuracy_of, compare
from edge_runtime.manifest import Boxes, Clip, OperatingPoint
from zoo import SlimNet
from zoo.box_recipe import BoxRecipe
from zoo.checkpoint import Checkpoint
from zoo.clip_source import ClipSource
from zoo.pictures import PictureSource, Split
from zoo.recipe import Recipe
from zoo.sizes import size_of
from zoo.slim_net import Size

Outputs = Iterable[np.ndarray]
"""A network's output for each picture, without the batch axis."""


class Task(Protocol):
    """One checkpoint with its data, as what it was trained for."""

    name: str
    """As a manifest calls it."""
    model: SlimNet
    """The supernet whose subnets are exported."""
    recipe: Recipe | BoxRecipe
    recipe_text: str
    """Of the training, for the provenance."""
    splits: dict[str, Split]
    examples: str
    """What a split is counted in: pictures, clips, scenes."""
    clip: Clip | None
    boxes: Boxes | None
    free_sides: bool
    """A graph may take any height and width."""
    float_layers: tuple[str, ...]
    """Convolutions that no int8 program rounds."""

    def pictures(self, split: str) -> list[np.ndarray]:
        """(H, W, 3), or clips (T, H, W, 3), uint8 RGB each."""

    def anchors(self, size: Size) -> int | None:
        """Rows of the output; None for a classifier."""

    def accuracy(self, outputs: Outputs, point: OperatingPoint, split: str) -> float:
        """What outputs for a split are worth, 0-1; read once."""

    def check(self, point: OperatingPoint, reference: Outputs, found: Outputs, splits: Sequence[str]) -> PointCheck:
        """Compare a point's outputs with others, and measure them.

        Args:
            reference, found: of all pictures of these splits, one split after the other; read once, side by side.
            splits: select is among them.
        """

    def finished(self, point: OperatingPoint, check: PointCheck) -> OperatingPoint:
        """The point with its accuracy and how its confidence is to be read."""

    def change(self, reference: Tensor, found: Tensor) -> float:
        """How far outputs moved, to rank layers by."""


class Classification:
    """A classifier of pictures or clips.

    Args:
        checkpoint: of a finished training.
        source: what its recipe was trained on.
    Raises:
        CheckpointError: the weights do not fit.
    """

    name, boxes, free_sides = "classification", None, True
    float_layers: tuple[str, ...] = ()

    def __init__(self, checkpoint: Checkpoint, source: PictureSource | ClipSource) -> None:
        self.model, self.recipe = checkpoint.build(), Recipe.from_dict(checkpoint.recipe)
        self.recipe_text = f"{self.recipe.model} {self.recipe.method}, {self.recipe.epochs} epochs"
        self.splits = source.splits(self.recipe.calib_pictures, self.recipe.select_pictures)
        self.examples, self.clip = "clips" if self.recipe.clips else "pictures", clip_of(self.recipe)
        self._source, self._rows = source, checkpoint.accuracy

    def pictures(self, split: str) -> list[np.ndarray]:
        """As `Task`."""
        return [self._source.picture(name) for name in self.splits[split].names]

    def anchors(self, size: Size) -> int | None:
        """None: its output is (1, classes)."""
        return None

    def accuracy(self, outputs: Outputs, point: OperatingPoint, split: str) -> float:
        """Share of pictures whose best class is right."""
        return accuracy_of(np.stack(list(outputs)), self.splits[split].labels)

    def check(self, point: OperatingPoint, reference: Outputs, found: Outputs, splits: Sequence[str]) -> PointCheck:
        """By logits and best classes."""
        labels = {name: self.splits[name].labels for name in splits}
        return compare(point.name, np.stack(list(reference)), np.stack(list(found)), labels)

    def finished(self, point: OperatingPoint, check: PointCheck) -> OperatingPoint:
        """With the checkpoint's confidence calibration."""
        key = (point.width, size_of_point(point))
        row = next((r for r in self._rows if (r["width"], size_of(r)) == key), {})
        return replace(
            point, accuracy=check.accuracy, temperature=float(row.get("temperature", 1.0)),
            unsure_below=float(row.get("unsure_below", 0.0)),
        )  # fmt: skip

    def change(self, reference: Tensor, found: Tensor) -> float:
        """Of the logits."""
        return squared_change(reference, found)
