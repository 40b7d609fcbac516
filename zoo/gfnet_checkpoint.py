"""Checkpoints of Glance and Focus: starting from a trained backbone, and building what a finished run left."""

from __future__ import annotations

import torch

from zoo.checkpoint import Checkpoint, CheckpointError
from zoo.gfnet import GFNet
from zoo.gfnet_parts import ENTRY
from zoo.gfnet_recipe import FAMILY, GlanceRecipe
from zoo.recipe import RecipeError

FROM_BUNDLE = "from_bundle"
"""Key in `Checkpoint.training` of a network that was taken back from a bundle, its norms folded."""


@torch.no_grad()
def start_from(model: GFNet, checkpoint: Checkpoint, classes: list[str]) -> None:
    """Let both encoders start from a trained backbone: its weights, its classifier and the statistics that fit.

    A finished Glance and Focus network of the same design and classes is taken whole, to be trained on.

    Args:
        checkpoint: a finished one of zoo.train, or of zoo.gfnet_train.
        classes: of the new run; other ones leave a backbone's classifier fresh.
    Raises:
        RecipeError: it holds another network than the design's backbone, or another Glance and Focus network, or one
            that was taken back from a bundle.
    """
    held, design = checkpoint.recipe, model.design
    if held.get("family") == FAMILY:
        if checkpoint.training.get(FROM_BUNDLE):
            raise RecipeError(
                "recipe: init: it was taken back from a bundle, which has no norms left to train with; start from the "
                "result of a training run (make train-focus)"
            )
        before, _ = build_gfnet(checkpoint)
        if before.design != design or checkpoint.classes != classes:
            raise RecipeError("recipe: init: it is a Glance and Focus network of another design or of other classes")
        model.load_state_dict(before.state_dict())
        return
    if (held.get("model"), held.get("model_options")) != (design.backbone, design.backbone_options):
        raise RecipeError(
            f"recipe: init: it holds {held.get('model')!r} with {held.get('model_options')}, expected "
            f"{design.backbone!r} with {design.backbone_options}; make the design or the checkpoint fit"
        )
    trained = checkpoint.build()
    weights = {k: v for k, v in trained.state_dict().items() if not k.startswith("classifier.")}
    for encoder in model.encoders:
        encoder.net.load_state_dict(weights)
        encoder.net.norm_bank.entries = {}
        if checkpoint.classes == classes:
            encoder.head.load_state_dict(trained.classifier.state_dict())
        entry = trained.norm_bank.entries.get(trained.point_key(encoder.width, design.patch))
        if entry is not None:
            encoder.norms.entries = {ENTRY: entry}


def build_gfnet(checkpoint: Checkpoint) -> tuple[GFNet, GlanceRecipe]:
    """The network of a checkpoint in eval mode, and its recipe.

    Raises:
        CheckpointError: it holds another kind of model, or weights that do not fit.
    """
    if checkpoint.recipe.get("family") != FAMILY:
        raise CheckpointError("checkpoint: holds no Glance and Focus network; train one with python -m zoo focus")
    recipe = GlanceRecipe.from_dict(checkpoint.recipe)
    model = GFNet(recipe.build_design(), len(checkpoint.classes))
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(
            "checkpoint: the weights do not fit the design of its recipe; use the version that wrote it"
        ) from error
    return model.eval(), recipe
