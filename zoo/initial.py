"""From a trained network to a supernet: load it, give it a head for the new classes, sort its channels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.calibrate import point_statistics
from zoo.channel_sorting import sort_channels
from zoo.checkpoint import load_checkpoint
from zoo.models import create
from zoo.pretrained import PACKAGES, find_weights, load_efficientnet
from zoo.recipe import Recipe, RecipeError
from zoo.sizes import input_shape, size_text
from zoo.slim_layers import SlimBatchNorm, SlimLinear
from zoo.slim_net import SlimNet

Batch = tuple[Tensor, Tensor]
"""Pictures (N, 3, H, W) float, normalised, and labels (N,) int64, on one device."""
HEAD_STEPS = 300
HEAD_RATE, HEAD_DECAY = 0.01, 1e-4  # of Adam on cached features, all pictures in each step
HEAD_SMOOTHING = 0.1  # keeps the scores small: a head that fits every picture gives narrow subnets huge losses


def fresh_network(recipe: Recipe, classes: list[str]) -> SlimNet:
    """The recipe's network with fresh weights; one for clips is run once at each size, since not every one fits.

    Raises:
        RecipeError: the network does not take these options, or clips of this size.
    """
    try:
        model = create(recipe.model, num_classes=len(classes), **recipe.model_options)
    except ValueError as error:
        raise RecipeError(f"recipe: model_options: {error}") from error
    for size in recipe.sizes() if recipe.clips else ():
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(input_shape(size)), max(recipe.widths))
        except (ValueError, RuntimeError) as error:
            said = str(error).splitlines()[0]
            raise RecipeError(f"recipe: {recipe.model!r} does not take {size_text(size)}: {said}") from error
    return model.train()


def initial_network(recipe: Recipe, classes: list[str]) -> SlimNet:
    """The network that `recipe.init` names, as one for these classes.

    Its full width works at once, by running statistics in the layers' own buffers; where the classes differ, the head
    is fresh (`fit_head` trains it). With `recipe.sort_channels` the channels are ordered by importance.

    Args:
        recipe: `init` is a package of zoo.pretrained.PACKAGES, or the path of a finished checkpoint.
        classes: names of the new classes.
    Returns:
        a network with an empty norm bank, in eval mode.
    Raises:
        RecipeError: the recipe's model, options or normalisation are not those of the weights.
        PretrainedError, CheckpointError: the weights cannot be read.
    """
    model = _from_package(recipe) if recipe.init in PACKAGES else _from_checkpoint(recipe, classes)
    if not isinstance(getattr(model, "classifier", None), SlimLinear):
        raise RecipeError(f"recipe: init: {recipe.model!r} has no linear classifier to replace; leave init empty")
    if model.classifier.outputs.full != len(classes):
        model.classifier = SlimLinear(model.classifier.inputs, len(classes))
    if recipe.sort_channels:
        sort_channels(model)
    return model.eval()


def fit_head(model: SlimNet, batches: Iterable[Batch]) -> float:
    """Train the linear head alone at full width, with the running statistics, on features computed once.

    Args:
        model: its `classifier` is started from zero and trained; nothing else changes.
    Returns:
        accuracy (0-1) on these pictures.
    Raises:
        ValueError: there is no batch.
    """
    features, labels = _features(model.eval(), batches)
    weight = torch.zeros_like(model.classifier.weight, requires_grad=True)
    bias = torch.zeros_like(model.classifier.bias, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=HEAD_RATE, weight_decay=HEAD_DECAY)
    for step in range(HEAD_STEPS):
        optimizer.param_groups[0]["lr"] = HEAD_RATE * (1.0 - step / HEAD_STEPS)
        optimizer.zero_grad()
        F.cross_entropy(F.linear(features, weight, bias), labels, label_smoothing=HEAD_SMOOTHING).backward()
        optimizer.step()
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
        return float((F.linear(features, weight, bias).argmax(1) == labels).float().mean())


@torch.no_grad()
def adapt_statistics(model: SlimNet, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of full width by those of these pictures (N, 3, H, W)."""
    stats = point_statistics(model, 1.0, batches)
    for name, (mean, variance) in stats.items():
        norm = model.get_submodule(name)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@torch.no_grad()
def _features(model: SlimNet, batches: Iterable[Batch]) -> Batch:
    """What the classifier reads, for each picture."""
    read: list[Tensor] = []
    labels: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0].float())

    handle = model.classifier.register_forward_pre_hook(keep)
    try:
        for pictures, answers in batches:
            model(pictures)
            labels.append(answers)
    finally:
        handle.remove()
    if not labels:
        raise ValueError("fit_head: no pictures; give it at least one batch")
    return torch.cat(read), torch.cat(labels)


def _from_package(recipe: Recipe) -> SlimNet:
    info = PACKAGES[recipe.init]
    if recipe.model != info.model:
        raise RecipeError(f"recipe: model is {recipe.model!r}, expected {info.model!r} for the weights {recipe.init}")
    if tuple(recipe.mean) != info.mean or tuple(recipe.std) != info.std:
        raise RecipeError(
            f"recipe: mean and std are {recipe.mean} and {recipe.std}, expected {info.mean} and {info.std}: "
            f"{recipe.init} was trained with them"
        )
    path = find_weights(recipe.init)
    model = create(recipe.model, num_classes=1000, **recipe.model_options)
    load_efficientnet(model, torch.load(path, map_location="cpu", weights_only=True), str(path))
    return model


def _from_checkpoint(recipe: Recipe, classes: list[str]) -> SlimNet:
    checkpoint = load_checkpoint(Path(recipe.init))
    held = Recipe.from_dict(checkpoint.recipe)
    if (held.model, held.model_options) != (recipe.model, recipe.model_options):
        raise RecipeError(
            f"recipe: model is {recipe.model!r} with {recipe.model_options}, but {recipe.init} holds {held.model!r} "
            f"with {held.model_options}; make them equal"
        )
    model = checkpoint.build()
    _adopt_statistics(model, recipe)
    if checkpoint.classes != classes:
        model.classifier = SlimLinear(model.classifier.inputs, len(classes))
    return model


@torch.no_grad()
def _adopt_statistics(model: SlimNet, recipe: Recipe) -> None:
    """Move the statistics of full width from the norm bank into the layers' own buffers; empty the bank."""
    bank = model.norm_bank.entries
    keys = [model.point_key(1.0, size) for size in recipe.sizes()]
    known = [key for key in keys if key in bank] or [k for k in bank if k.startswith(model.signature(1.0))]
    if not known:
        raise RecipeError(f"recipe: init: {recipe.init} is not calibrated at full width; finish its training first")
    for name, (mean, variance) in bank[known[0]].items():
        norm = model.get_submodule(name)
        if isinstance(norm, SlimBatchNorm):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    model.norm_bank.entries = {}
