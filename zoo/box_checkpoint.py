"""Checkpoints of detectors: a backbone that starts from a trained one, and building what a finished run left."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.box_recipe import FAMILY, BoxRecipe
from zoo.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from zoo.efficientdet import EfficientDet
from zoo.efficientnet import SCALINGS, Scaling
from zoo.initial import initial_network
from zoo.pretrained import PACKAGES
from zoo.recipe import Recipe, RecipeError

BACKBONE = ("stem.", "stages.")
"""What the names of the backbone's parameters begin with, in the detector as in its EfficientNet."""


@torch.no_grad()
def start_from(model: EfficientDet, recipe: BoxRecipe) -> None:
    """Let the backbone start from the weights that `recipe.init` names; neck and heads stay fresh.

    Whatever the weights' padding at strides, the detector keeps its own: both read the same pixels where every map
    before a stride has even sides.

    Raises:
        RecipeError: the weights are of another network than the detector's backbone, or for other pixel statistics.
        PretrainedError, CheckpointError: they cannot be read.
    """
    name, options = _backbone_name(model.settings.backbone), {"padding": "same"}
    if recipe.init not in PACKAGES:
        options = _checked_options(load_checkpoint(Path(recipe.init)), recipe, name)
    network = initial_network(
        Recipe(
            model=name, model_options=options, widths=recipe.widths, resolutions=recipe.sizes(), init=recipe.init,
            sort_channels=recipe.sort_channels, mean=recipe.mean, std=recipe.std,
        ),
        [str(label) for label in range(model.num_classes)],
    )  # fmt: skip
    weights = {key: value for key, value in network.state_dict().items() if key.startswith(BACKBONE)}
    model.load_state_dict({**model.state_dict(), **weights})


def build_detector(checkpoint: Checkpoint) -> tuple[EfficientDet, BoxRecipe]:
    """The detector of a checkpoint in eval mode, and its recipe.

    Raises:
        CheckpointError: it holds another kind of model, or weights that do not fit.
    """
    if checkpoint.recipe.get("family") != FAMILY:
        raise CheckpointError("checkpoint: holds no detector of boxes; train one with python -m zoo boxes")
    recipe = BoxRecipe.from_dict(checkpoint.recipe)
    model = recipe.build_model(len(checkpoint.classes))
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint: the weights do not fit {recipe.model!r} with {len(checkpoint.classes)} classes and options "
            f"{recipe.model_options}; use the version of this project that wrote the file"
        ) from error
    return model.eval(), recipe


def _backbone_name(backbone: Scaling) -> str:
    """The picture model with the same stem and stages."""
    for name, known in SCALINGS.items():
        if (known.width, known.depth, known.lite) == (backbone.width, backbone.depth, backbone.lite):
            return f"efficientnet_{name}"
    raise RecipeError(
        f"recipe: init: no EfficientNet of the zoo has the backbone's width {backbone.width} and depth "
        f"{backbone.depth}; leave init empty"
    )


def _checked_options(checkpoint: Checkpoint, recipe: BoxRecipe, name: str) -> dict[str, object]:
    """The options of a checkpoint's network, which must be the backbone's."""
    held = checkpoint.recipe
    options = dict(held.get("model_options", {}))
    if held.get("model") != name or set(options) - {"padding"}:
        raise RecipeError(
            f"recipe: init: {recipe.init} holds {held.get('model')!r} with {options}, expected {name!r} with no option "
            f"but padding, the backbone of {recipe.model!r}; train that with python -m zoo train"
        )
    for key in ("mean", "std"):
        if tuple(held[key]) != tuple(getattr(recipe, key)):
            raise RecipeError(
                f"recipe: {key} is {getattr(recipe, key)}, expected {tuple(held[key])}, as {recipe.init} was trained"
            )
    return options
