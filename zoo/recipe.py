"""A training recipe: one dataclass, read from TOML; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from zoo.augment import AUGMENTATIONS
from zoo.clip_source import CLIP_KINDS
from zoo.models import CLIP_MODELS, MODELS
from zoo.mutual import METHODS
from zoo.optimizers import OPTIMIZERS
from zoo.sizes import clip_size
from zoo.slim_net import Size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


MOST_FRAMES = 64
AnyRecipe = TypeVar("AnyRecipe")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what it should be."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run, beside the pictures."""

    model: str = "mobilenet_v1"
    model_options: dict[str, Any] = field(default_factory=dict)
    """Options of the model's constructor, without num_classes."""
    method: str = "mutualnet"
    """One of zoo.mutual.METHODS."""
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Operating points to calibrate; training draws between the smallest and the largest."""
    resolutions: tuple[int, ...] = (64, 56, 48, 40, 32)
    """Sides in pixels; the largest is the one that labels are learned at."""
    clips: str = ""
    """Where clips come from, one of zoo.clip_source.CLIP_KINDS; empty: pictures."""
    frames: tuple[int, ...] = ()
    """Of the clips at each operating point; the largest is what labels are learned with, and fewer frames show the same
    time in larger steps."""
    clip_ms: int = 0
    """How long a clip is, milliseconds: its largest number of frames times the time between them."""
    random_widths: int = 2
    width_choices: tuple[float, ...] = ()
    """Widths that the random ones are drawn from; none: uniform between the ends of `widths`."""
    trained_widths: tuple[float, ...] = ()
    """Of `widths`, those that this training is about; the draws are between its ends. What a narrower width reads stays
    as it is, while the trained ones get norms of their own (zoo.held), at first the teacher's where `teacher` names
    one; what none of them reads stays too. None: all of `widths`."""
    frozen_layers: tuple[str, ...] = ()
    """Layers whose weights stay as they are, such as "classifier": of all widths, which share them."""
    strangers_per_batch: int = 0
    """Pictures of none of the classes that join each batch, of `--strangers`; the net learns to be unsure of them."""
    strangers_skipped: tuple[str, ...] = ()
    """Files of `--strangers` whose name has one of these texts are left out: the classes themselves, and their like."""
    strangers_jpeg_quality: int = 0
    """JPEG through which shrunk strangers go, 1-100; take that of the training pictures. 0: none."""
    epochs: int = 30
    batch_size: int = 128
    """Over all processes together."""
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    """One of zoo.optimizers.OPTIMIZERS; transformers want "adamw"."""
    momentum: float = 0.9
    """Of "sgd", with Nesterov's step; the first beta of "adamw"."""
    weight_decay: float = 1e-4
    """Not on norms, biases and depthwise convolutions."""
    warmup_steps: int = 0
    clip_gradient_norm: float = 0.0
    """Largest Euclidean norm of all gradients of a step together; 0 for none. Narrow subnets of a network that was
    trained at full width alone start with gradients that would destroy what the full width knows."""
    label_smoothing: float = 0.0
    ema_teacher: float = 0.0
    """Decay per step of an averaged network whose softmax the subnets learn; 0 uses the current full net."""
    init: str = ""
    """Weights to start from: a package of zoo.pretrained.PACKAGES, or a finished checkpoint; empty: fresh ones."""
    sort_channels: bool = True
    """Order the channels of these weights by importance first, so that narrow prefixes keep what matters."""
    head_passes: int = 2
    """Augmented views of each picture that a head for new classes is trained on before anything else."""
    init_teacher: bool = False
    """The subnets learn the softmax of the starting network (`init`), with its trained head, not of the full net."""
    teacher: str = ""
    """With `init_teacher`: a finished checkpoint that takes the starting network's place as the teacher."""
    teacher_share: float = 0.0
    """With `init_teacher`: so much of the loss of every subnet, in every step, is the divergence from the starting
    network's answer, and the labels give the rest; 0: the answer alone, in a step of the full net."""
    teacher_resolution: int = 0
    """Side of the pictures, in pixels, that it answers with `teacher_share`; 0: the largest of `resolutions`."""
    full_every: int = 1
    """The full net takes part in one step of so many; in the others each subnet learns from the labels."""
    distillation: bool = True
    """In a step of the full net the other subnets learn its answers; false: the labels, in every step."""
    quantization_aware_epochs: int = 0
    """So many last epochs compute with weights and activations rounded as int8 rounds them."""
    quantization_largest: int = 127
    """Largest magnitude of an integer weight where they are rounded; 63 for x86 without VNNI."""
    unsure_share: float = 0.05
    """Share of held-out pictures of the known classes that may be answered "unsure"."""
    point_epochs: int = 0
    """After training, so many epochs in which the norms of each operating point are tuned alone (zoo.point_tuning)."""
    point_learning_rate: float = 0.01
    """Of Adam, on the logarithms of scales and on shifts in units of the scale."""
    point_batch_size: int = 64
    """Of each process, which tunes its own share of the points."""
    point_augmentation: str = "light"
    point_rounding: bool = False
    """Round the weights for good before, as int8 rounds them (`quantization_largest`)."""
    augmentation: str = "basic"
    seed: int = 0
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    """Per RGB channel, subtracted from 0-255 pixels."""
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    """Per RGB channel, divides after the mean."""
    calib_pictures: int = 500
    select_pictures: int = 500
    train_pictures: int = 0
    """So many of the training pictures or clips, drawn by the seed; 0: all."""
    norm_pictures: int = 2000
    """Unaugmented training pictures for the normalisation statistics (calib is kept for activation ranges)."""

    def __post_init__(self) -> None:
        check_fields(self, LIMITS)
        models = CLIP_MODELS if self.clips else MODELS
        require(self.model in models, "model", self.model, f"one of {', '.join(sorted(models))}")
        self._check_clips()
        require(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        for key in ("augmentation", "point_augmentation"):
            value = getattr(self, key)
            require(value in AUGMENTATIONS, key, value, f"one of {', '.join(AUGMENTATIONS)}")
        require(bool(self.widths) and all(0 < w <= 1 for w in self.widths), "widths", self.widths, "0 < width <= 1")
        require(set(self.trained_widths) <= set(self.widths), "trained_widths", self.trained_widths, "some of widths")
        ends = self.drawn_widths()
        fits = all(ends[0] <= w <= ends[1] for w in self.width_choices)
        require(fits, "width_choices", self.width_choices, f"widths between {ends[0]} and {ends[1]}")
        require(bool(self.resolutions) and min(self.resolutions) >= 8, "resolutions", self.resolutions, "8 or more")
        for key in ("learning_rate", "point_learning_rate"):
            require(0 < getattr(self, key) < math.inf, key, getattr(self, key), "more than 0")
        require(not (self.init_teacher and self.ema_teacher), "init_teacher", True, "false with ema_teacher")
        require(self.init_teacher or not self.teacher, "teacher", self.teacher, "empty without init_teacher")
        require(
            self.init_teacher or not self.teacher_share, "teacher_share", self.teacher_share, "0 without init_teacher"
        )
        teaches = self.distillation or not (self.init_teacher or self.ema_teacher)
        require(teaches, "distillation", False, "true with init_teacher and ema_teacher")

    def _check_clips(self) -> None:
        require(self.clips in ("", *CLIP_KINDS), "clips", self.clips, f"one of {', '.join(CLIP_KINDS)}, or empty")
        if not self.clips:
            require(not self.frames and not self.clip_ms, "frames", self.frames, "empty, and no clip_ms, without clips")
            return
        good = bool(self.frames) and all(2 <= count <= MOST_FRAMES for count in self.frames)
        require(good, "frames", self.frames, f"2 to {MOST_FRAMES}, for clips")
        require(self.clip_ms >= 1, "clip_ms", self.clip_ms, "1 or more, for clips")
        require(self.strangers_per_batch == 0, "strangers_per_batch", self.strangers_per_batch, "0, for clips")
        require(self.teacher_resolution == 0, "teacher_resolution", self.teacher_resolution, "0, for clips")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """As `recipe_from_dict`."""
        return recipe_from_dict(Recipe, values)

    @staticmethod
    def from_file(path: str | Path) -> Recipe:
        """As `recipe_from_file`."""
        return recipe_from_file(Recipe, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or a log."""
        return dataclasses.asdict(self)

    def drawn_widths(self) -> tuple[float, float]:
        """The narrowest and the widest subnet that this training draws."""
        widths = self.trained_widths or self.widths
        return min(widths), max(widths)

    def held_width(self) -> float | None:
        """The widest subnet that this training must not change, if there is one."""
        return max((w for w in self.widths if w < self.drawn_widths()[0]), default=None)

    def has_own_norms(self) -> bool:
        """Whether some widths have norms of their own, which nothing but their statistics in the bank holds."""
        return bool(self.trained_widths) and set(self.trained_widths) != set(self.widths)

    def sizes(self) -> tuple[Size, ...]:
        """Every input size, largest first: sides of pictures in pixels, or (frames, height, width) of clips."""
        sides = sorted(self.resolutions, reverse=True)
        if not self.clips:
            return tuple(sides)
        return tuple(clip_size(count, side) for count in sorted(self.frames, reverse=True) for side in sides)

    def largest_size(self) -> Size:
        """The size that labels are learned at."""
        return self.sizes()[0]

    def points(self) -> list[tuple[float, Size]]:
        """Every (width, size) to calibrate and evaluate, largest first."""
        return [(width, size) for width in sorted(self.widths, reverse=True) for size in self.sizes()]

    def trained_points(self) -> list[tuple[float, Size]]:
        """Those of `points` that the method trains."""
        only = max(self.widths) if self.method in ("single", "multiresolution") else None
        return [point for point in self.points() if only is None or point[0] == only]


def recipe_from_dict(kind: type[AnyRecipe], values: dict[str, Any]) -> AnyRecipe:
    """Build a recipe dataclass from plain values; lists become tuples.

    Raises:
        RecipeError: a key is unknown, or a value cannot be used.
    """
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise RecipeError(f"recipe: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(known))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def recipe_from_file(kind: type[AnyRecipe], path: str | Path) -> AnyRecipe:
    """Read a TOML recipe.

    Raises:
        RecipeError: as `recipe_from_dict`, or the file is not readable TOML; the message starts with the path.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not a readable recipe: {error}") from error
    try:
        return recipe_from_dict(kind, values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


# type of a field, as written above -> (how to say it, what fits)
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("text", lambda value: isinstance(value, str)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "tuple[float, ...]": ("a list of numbers", lambda value: isinstance(value, tuple) and all(map(_is_number, value))),
    "tuple[int, ...]": (
        "a list of whole numbers", lambda value: isinstance(value, tuple) and all(map(_is_whole, value)),
    ),
    "tuple[str, ...]": (
        "a list of texts", lambda value: isinstance(value, tuple) and all(isinstance(one, str) for one in value),
    ),
    "dict[str, Any]": ("a table", lambda value: isinstance(value, dict)),
}  # fmt: skip

# key -> smallest value, and the first value that is too large
LIMITS: dict[str, tuple[float, float]] = {
    "random_widths": (0, math.inf),
    "strangers_per_batch": (0, math.inf),
    "strangers_jpeg_quality": (0, 101),
    "epochs": (1, math.inf),
    "batch_size": (2, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "clip_gradient_norm": (0, math.inf),
    "label_smoothing": (0, 1),
    "ema_teacher": (0, 1),
    "teacher_share": (0, 1),
    "teacher_resolution": (0, math.inf),
    "clip_ms": (0, math.inf),
    "head_passes": (0, math.inf),
    "full_every": (1, math.inf),
    "quantization_aware_epochs": (0, math.inf),
    "quantization_largest": (1, 128),
    "point_epochs": (0, math.inf),
    "point_batch_size": (2, math.inf),
    "unsure_share": (0, 1),
    "seed": (0, math.inf),
    "calib_pictures": (0, math.inf),
    "select_pictures": (0, math.inf),
    "train_pictures": (0, math.inf),
    "norm_pictures": (1, math.inf),
}


def check_fields(recipe: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a field of another type than its dataclass says, a number outside its limits, or no statistics of pixels.

    Args:
        recipe: a dataclass of fields of KINDS, with `mean` and `std`.
        limits: key -> smallest value, and the first value that is too large.
    Raises:
        RecipeError: naming the key.
    """
    for field_ in dataclasses.fields(recipe):
        key, value = field_.name, getattr(recipe, field_.name)
        expected, fits = KINDS[str(field_.type)]
        require(fits(value), key, value, expected)
        low, high = limits.get(key, (-math.inf, math.inf))
        below = "" if high == math.inf else f" and below {high}"
        require(key not in limits or low <= value < high, key, value, f"{low} or more{below}")
    require(len(recipe.mean) == 3, "mean", recipe.mean, "three numbers")
    require(len(recipe.std) == 3 and min(recipe.std) > 0, "std", recipe.std, "three numbers above 0")


def require_same_run(same_recipe: bool, same_classes: bool, path: Path) -> None:
    """Refuse to go on from another run's checkpoint.

    Raises:
        RecipeError: the recipe or the classes are others.
    """
    for same, what in ((same_recipe, "with another recipe"), (same_classes, "on other classes")):
        if not same:
            raise RecipeError(f"{path}: belongs to a run {what}; choose another --out or remove it")


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Refuse a value (RecipeError)."""
    if not holds:
        raise RecipeError(f"recipe: {key} is {value!r}, expected {expected}")
