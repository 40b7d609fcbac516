"""A recipe for Glance and Focus: one dataclass, read from TOML; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.augment import AUGMENTATIONS
from zoo.focus_scenes import SceneSpec
from zoo.gfnet import VARIANTS, Design
from zoo.gfnet_ppo import PpoSettings
from zoo.models import MODELS
from zoo.recipe import RecipeError, check_fields, recipe_from_dict, recipe_from_file, require

POLICY_METHODS = ("ppo", "differentiable", "grid", "none")
DATA_KINDS = ("pictures", "scenes")
FAMILY = "glance_focus"


@dataclass(frozen=True)
class GlanceRecipe:
    """Everything that decides the result of a training run, beside the pictures."""

    family: str = FAMILY
    """Tells this recipe from others in a checkpoint."""
    variant: str = ""
    """A published design, key of zoo.gfnet.VARIANTS; empty: `design` says all."""
    design: dict[str, Any] = field(default_factory=dict)
    """Fields of zoo.gfnet.Design, in place of the variant's."""
    data: str = "pictures"
    """"pictures": as they are; "scenes": cluttered scenes made of them (zoo.focus_scenes), `design.picture` wide."""
    object_sides: tuple[int, ...] = (36, 64)
    """Of scenes: smallest and largest side of the labelled picture."""
    init: str = ""
    """A finished checkpoint: of zoo.train, whose network both encoders start from, or of this training, to go on from
    the whole of it (then stage 1 may be left out); empty: fresh weights."""
    stage1_epochs: int = 6
    """Random patches."""
    stage2_epochs: int = 3
    """The policy."""
    stage3_epochs: int = 3
    """Fine-tuning with the policy."""
    stage4_epochs: int = 0
    """The policy again, on the networks as they are then."""
    policy: str = "differentiable"
    """How stages 2 and 4 learn; one of POLICY_METHODS. "grid" counts epochs over its atlas (zoo.gfnet_grid); "none"
    keeps random patches in every stage: a control."""
    batch_size: int = 64
    """Over all processes together."""
    learning_rate: float = 0.05
    """Of the encoders; falls along a cosine within each stage."""
    fine_tune_share: float = 0.2
    """Stages 2 (differentiable) and 3 begin at this share of the learning rates."""
    classifier_learning_rate: float = 0.05
    policy_learning_rate: float = 3e-4
    """Adam's."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """Not on norms, biases and depthwise convolutions."""
    own_head_weight: float = 1.0
    """Of the encoders' own heads in the loss: 1 for the large backbones, 5 for the light ones in the paper."""
    train_glance: bool = True
    """False keeps the glance as it was at the start (the paper's light backbones, from pretrained weights)."""
    warmup_steps: int = 0
    """Of stage 1."""
    ppo_updates: int = 4
    ppo_clip: float = 0.2
    ppo_spread: float = 0.1
    ppo_discount: float = 0.7
    grid_side: int = 5
    """Of "grid": places in a row."""
    grid_pictures: int = 3000
    """Of "grid": pictures whose patches are all encoded."""
    augmentation: str = "basic"
    seed: int = 0
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    calib_pictures: int = 500
    select_pictures: int = 500
    norm_pictures: int = 1000
    """Unaugmented training pictures for the normalisation statistics."""

    def __post_init__(self) -> None:
        check_fields(self, LIMITS)
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(value in choices, name, value, f"one of {', '.join(choices)}")
        require(self.variant in ("", *VARIANTS), "variant", self.variant, f"one of {', '.join(VARIANTS)}")
        low_high = len(self.object_sides) == 2 and 8 <= self.object_sides[0] <= self.object_sides[1]
        require(low_high, "object_sides", self.object_sides, "two whole numbers, 8 or more, smaller first")
        require(self.stage1_epochs > 0 or bool(self.init), "stage1_epochs", 0, "1 or more without init")
        design = self.build_design()
        fits = self.data != "scenes" or self.object_sides[1] <= design.picture
        require(fits, "object_sides", self.object_sides, f"at most the scene's {design.picture} pixels")

    def build_design(self) -> Design:
        """The network's structure.

        Raises:
            RecipeError: a field is unknown or has a value that cannot be used.
        """
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in self.design.items()}
        known = [f.name for f in dataclasses.fields(Design)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise RecipeError(f"recipe: design: unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
        try:
            design = dataclasses.replace(VARIANTS[self.variant], **fields) if self.variant else Design(**fields)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"recipe: design: {error}") from error
        require(design.backbone in MODELS, "design.backbone", design.backbone, f"one of {', '.join(sorted(MODELS))}")
        return design

    @property
    def stages(self) -> tuple[int, int, int, int]:
        """Epochs of each stage."""
        second, fourth = (0, 0) if self.policy == "none" else (self.stage2_epochs, self.stage4_epochs)
        return self.stage1_epochs, second, self.stage3_epochs, fourth

    @property
    def scene_spec(self) -> SceneSpec | None:
        """How scenes are made; None for pictures."""
        if self.data != "scenes":
            return None
        return SceneSpec(self.build_design().picture, (self.object_sides[0], self.object_sides[1]))

    @property
    def ppo_settings(self) -> PpoSettings:
        """Constants of the reinforcement."""
        return PpoSettings(self.ppo_updates, self.ppo_clip, self.ppo_spread, self.ppo_discount)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> GlanceRecipe:
        """As `recipe_from_dict`."""
        return recipe_from_dict(GlanceRecipe, values)

    @staticmethod
    def from_file(path: str | Path) -> GlanceRecipe:
        """As `recipe_from_file`."""
        return recipe_from_file(GlanceRecipe, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a log."""
        return dataclasses.asdict(self)


CHOICES = {"family": (FAMILY,), "data": DATA_KINDS, "policy": POLICY_METHODS, "augmentation": AUGMENTATIONS}

# key -> smallest value, and the first value that is too large
LIMITS: dict[str, tuple[float, float]] = {
    "stage1_epochs": (0, math.inf),
    "stage2_epochs": (0, math.inf),
    "stage3_epochs": (0, math.inf),
    "stage4_epochs": (0, math.inf),
    "batch_size": (2, math.inf),
    "learning_rate": (1e-9, math.inf),
    "fine_tune_share": (0, math.inf),
    "classifier_learning_rate": (1e-9, math.inf),
    "policy_learning_rate": (1e-9, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "own_head_weight": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "ppo_updates": (1, math.inf),
    "ppo_clip": (0, 1),
    "ppo_spread": (1e-6, math.inf),
    "ppo_discount": (0, 1.0000001),
    "grid_side": (2, math.inf),
    "grid_pictures": (1, math.inf),
    "seed": (0, math.inf),
    "calib_pictures": (0, math.inf),
    "select_pictures": (0, math.inf),
    "norm_pictures": (1, math.inf),
}
