"""A recipe for a detector of boxes: one dataclass, read from TOML; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.augment import AUGMENTATIONS
from zoo.box_scenes import BoxSceneSpec
from zoo.efficientdet import VARIANTS, EfficientDet
from zoo.efficientdet_boxes import STRIDES
from zoo.focus_scenes import SceneSpec
from zoo.optimizers import OPTIMIZERS
from zoo.recipe import RecipeError, check_fields, recipe_from_dict, recipe_from_file, require

FAMILY = "boxes"
MOST_OBJECTS = 16


@dataclass(frozen=True)
class BoxRecipe:
    """Everything that decides the result of a training run, beside the pictures."""

    family: str = FAMILY
    """Tells this recipe from others in a checkpoint."""
    model: str = "tf_efficientdet_lite0"
    """A key of zoo.efficientdet.VARIANTS."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """Options of zoo.efficientdet.changed_detector, without num_classes."""
    widths: tuple[float, ...] = (0.35, 0.5, 0.75, 1.0)
    """Operating points to calibrate; training draws between the smallest and the largest."""
    resolutions: tuple[int, ...] = (128, 112, 96)
    """Sides in pixels, at most the canvas; the full net learns at the largest."""
    random_widths: int = 1
    """Of each step, beside the full net at the largest resolution and the narrowest one at a random one."""
    width_choices: tuple[float, ...] = ()
    """Widths that the random ones are drawn from; none: uniform between the ends of `widths`."""
    canvas: int = 128
    """Side of a scene, pixels."""
    object_counts: tuple[int, ...] = (1, 3)
    """Fewest and most labelled pictures of a scene."""
    object_sides: tuple[int, ...] = (32, 72)
    """Smallest and largest longer side of a labelled picture, pixels of the canvas."""
    distractors: tuple[int, ...] = (6, 12)
    """Fewest and most pieces of other pictures, too small to be recognised."""
    init: str = ""
    """Weights that the backbone starts from: a package of zoo.pretrained.PACKAGES, or a finished checkpoint of
    python -m zoo train; empty: fresh ones."""
    sort_channels: bool = True
    """Order the channels of these weights by importance first; false for weights that are slimmable already."""
    epochs: int = 5
    """In each, every training picture is in the first place of one scene."""
    batch_size: int = 32
    """Over all processes together."""
    learning_rate: float = 0.05
    optimizer: str = "sgd"
    """One of zoo.optimizers.OPTIMIZERS."""
    momentum: float = 0.9
    """Of "sgd", with Nesterov's step; the first beta of "adamw"."""
    weight_decay: float = 4e-5
    """Not on norms, biases and depthwise convolutions."""
    warmup_steps: int = 100
    clip_gradient_norm: float = 10.0
    """Largest Euclidean norm of all gradients of a step together; 0 for none."""
    augmentation: str = "basic"
    """Of the labelled pictures."""
    seed: int = 0
    evaluation_seed: int = 0
    """Of the scenes that are evaluated, so that runs of several seeds compare on the same ones."""
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    """Per RGB channel, subtracted from 0-255 pixels."""
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    """Per RGB channel, divides after the mean."""
    calib_pictures: int = 500
    select_pictures: int = 500
    norm_pictures: int = 500
    """Scenes of unaugmented training pictures for the normalisation statistics."""

    def __post_init__(self) -> None:
        check_fields(self, LIMITS)
        for name, choices in CHOICES.items():
            require(getattr(self, name) in choices, name, getattr(self, name), f"one of {', '.join(choices)}")
        widths = self.widths
        require(bool(widths) and all(0 < w <= 1 for w in widths), "widths", widths, "0 < width <= 1")
        fits = all(min(widths) <= w <= max(widths) for w in self.width_choices)
        require(fits, "width_choices", self.width_choices, f"widths between {min(widths)} and {max(widths)}")
        self._check_scenes()
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "more than 0")

    def _check_scenes(self) -> None:
        step, sides = STRIDES[0], self.resolutions
        fits = bool(sides) and all(step <= side <= self.canvas and side % step == 0 for side in sides)
        require(fits, "resolutions", sides, f"multiples of {step}, the finest stride, up to the canvas")
        counts = self.object_counts
        fits = len(counts) == 2 and 1 <= counts[0] <= counts[1] <= MOST_OBJECTS
        require(fits, "object_counts", counts, f"two whole numbers, 1 to {MOST_OBJECTS}, fewer first")
        pieces = self.distractors
        fits = len(pieces) == 2 and 0 <= pieces[0] <= pieces[1]
        require(fits, "distractors", pieces, "two whole numbers, 0 or more, fewer first")
        sides = self.object_sides
        fits = len(sides) == 2 and 8 <= sides[0] <= sides[1] <= self.canvas
        require(fits, "object_sides", sides, f"two whole numbers, 8 to the canvas's {self.canvas}, smaller first")

    @property
    def scene_spec(self) -> BoxSceneSpec:
        """How scenes are made."""
        sides, counts, pieces = self.object_sides, self.object_counts, self.distractors
        ground = SceneSpec(self.canvas, (sides[0], sides[1]), (pieces[0], pieces[1]))
        return BoxSceneSpec(ground, (counts[0], counts[1]))

    def build_model(self, classes: int) -> EfficientDet:
        """The network with fresh weights.

        Raises:
            RecipeError: an option is unknown, or its value cannot be used.
        """
        try:
            return VARIANTS[self.model](num_classes=classes, **self.model_options)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"recipe: model_options: {self.model!r}: {error}") from error

    def sizes(self) -> tuple[int, ...]:
        """Every side in pixels, largest first."""
        return tuple(sorted(self.resolutions, reverse=True))

    def points(self) -> list[tuple[float, int]]:
        """Every (width, side) to calibrate and evaluate, largest first."""
        return [(width, side) for width in sorted(self.widths, reverse=True) for side in self.sizes()]

    @staticmethod
    def from_dict(values: dict[str, Any]) -> BoxRecipe:
        """As `recipe_from_dict`."""
        return recipe_from_dict(BoxRecipe, values)

    @staticmethod
    def from_file(path: str | Path) -> BoxRecipe:
        """As `recipe_from_file`."""
        return recipe_from_file(BoxRecipe, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a log."""
        return dataclasses.asdict(self)


CHOICES = {
    "family": (FAMILY,),
    "model": tuple(sorted(VARIANTS)),
    "optimizer": tuple(OPTIMIZERS),
    "augmentation": AUGMENTATIONS,
}

# key -> smallest value, and the first value that is too large
LIMITS: dict[str, tuple[float, float]] = {
    "random_widths": (0, math.inf),
    "canvas": (32, math.inf),
    "epochs": (1, math.inf),
    "batch_size": (2, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "clip_gradient_norm": (0, math.inf),
    "seed": (0, math.inf),
    "evaluation_seed": (0, math.inf),
    "calib_pictures": (0, math.inf),
    "select_pictures": (0, math.inf),
    "norm_pictures": (1, math.inf),
}
