"""Go a part of the way from one checkpoint to another that was trained from it, in the weights.

What further training breaks and what it brings change at different rates along the straight line between the weights
before and after (WiSE-FT, Wortsman et al. 2021, arXiv:2109.01903).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.calibrate import calibrate
from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.finish import evaluate_and_write, norm_subset
from zoo.held import HeldSubnet, Norms, beside
from zoo.pictures import PictureSource
from zoo.processes import Processes
from zoo.quantization_aware import round_weights
from zoo.recipe import Recipe
from zoo.refit import check_finished
from zoo.slim_layers import SlimBatchNorm, Stats
from zoo.slim_net import SlimNet
from zoo.sources import recipe_splits
from zoo.training_log import TrainingLog, make_folder

Entries = dict[str, dict[str, Stats]]
"""As in the norm bank: point -> layer -> mean and variance."""


def mix_checkpoints(
    start: Path,
    end: Path,
    share: float,
    source: PictureSource,
    out: Path,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Weights on the straight line between two checkpoints, of which the second was trained from the first.

    Every point is calibrated and evaluated anew. Where the second was trained for narrow widths alone (the recipe's
    `trained_widths`), wider ones keep the norms of the first, and what was tuned in their statistics. With
    `point_rounding` the weights are rounded before.

    Args:
        start: a `model.pt`; with share 0 the result has its weights.
        end: a `model.pt` of the same network and classes, whose recipe the result takes; share 1.
        share: 0 to 1.
        source: the pictures that they were trained on.
        out: folder for the new `model.pt` and its log.
    Returns:
        the path of the new `model.pt`.
    Raises:
        CheckpointError: one is not finished, the first has norms in its statistics alone or lacks points of the second,
            or they are not of one network; or a file cannot be written.
        TrainError: the folder cannot be made.
    """
    first, last = load_checkpoint(start), load_checkpoint(end)
    for checkpoint, path in ((first, start), (last, end)):
        check_finished(checkpoint, path, source)
    before, recipe = (Recipe.from_dict(checkpoint.recipe) for checkpoint in (first, last))
    model, goal = first.build(), last.build()
    _check_pair(before, recipe, start, end)
    points, widest = recipe.trained_points(), recipe.drawn_widths()[1]
    wide = [point for point in points if point[0] > widest]
    if any(model.point_key(*point) not in model.norm_bank.entries for point in wide):
        raise CheckpointError(f"{start}: lacks points of {end}; name checkpoints of the same widths and resolutions")
    make_folder(out)
    splits = recipe_splits(recipe, source)
    subset = norm_subset(recipe, splits["train"])
    norms = _mixed_norms(model, goal, share, others_keep=bool(wide))

    def statistics(some: list[tuple[float, int]]) -> Entries:
        calibrate(model, source, subset, some, recipe.mean, recipe.std)
        return model.norm_bank.entries

    tuned = model.norm_bank.entries
    plain = statistics(wide)
    _mix_weights(model, goal, share)
    if recipe.point_rounding:
        round_weights(model, recipe.quantization_largest)
    model.norm_bank.entries = _carried(model, tuned, plain, statistics(wide))
    _set_norms(model, widest if wide else None, norms)
    done = model.norm_bank.entries
    model.norm_bank.entries = done | statistics([point for point in points if point not in wide])
    log = TrainingLog(out / "log.jsonl", True, progress)
    return evaluate_and_write(model, recipe, source, splits, out, Processes(), log)


def _check_pair(before: Recipe, after: Recipe, start: Path, end: Path) -> None:
    if (before.model, before.model_options) != (after.model, after.model_options):
        raise CheckpointError(f"{end}: is not of the network of {start}, or has other options; name two of one network")
    for path, lost in ((start, before.has_own_norms()), (end, after.held_width() is not None)):
        if lost:
            raise CheckpointError(f"{path}: some widths have norms of their own, which a mix loses; mix before that")


def _norms(model: SlimNet) -> dict[str, SlimBatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, SlimBatchNorm)}


@torch.no_grad()
def _mixed_norms(model: SlimNet, goal: SlimNet, share: float, *, others_keep: bool) -> Norms:
    """Scale and shift on the line; near those of the first network where other widths keep these as statistics."""
    found = {}
    for (name, one), other in zip(_norms(model).items(), _norms(goal).values(), strict=True):
        mixed = one.weight.lerp(other.weight, share), one.bias.lerp(other.bias, share)
        found[name] = beside((one.weight, one.bias), mixed) if others_keep else mixed
    return found


@torch.no_grad()
def _mix_weights(model: SlimNet, goal: SlimNet, share: float) -> None:
    """Everything but the norms, in place."""
    of_norms = {id(value) for norm in _norms(model).values() for value in (norm.weight, norm.bias)}
    for parameter, value in zip(model.parameters(), goal.parameters(), strict=True):
        if id(parameter) not in of_norms:
            parameter.lerp_(value, share)


@torch.no_grad()
def _set_norms(model: SlimNet, narrow: float | None, norms: Norms) -> None:
    """Give the network these norms; what wider widths than a narrow one have until now goes into their statistics."""
    if narrow is not None:
        HeldSubnet(model, narrow, norms).return_norms(model)
        return
    for name, norm in _norms(model).items():
        norm.weight.copy_(norms[name][0])
        norm.bias.copy_(norms[name][1])


def _carried(model: SlimNet, tuned: Entries, before: Entries, after: Entries) -> Entries:
    """What was tuned, beside other weights: their statistics, changed by what tuning changed beside the old ones.

    Args:
        tuned, before: entries beside the old weights, tuned and measured.
        after: measured beside the new weights.
    """
    eps = {name: norm.eps for name, norm in _norms(model).items()}
    return {
        key: {
            name: _carried_stats(tuned[key][name], before[key][name], stats, eps[name]) for name, stats in entry.items()
        }
        for key, entry in after.items()
    }


def _carried_stats(tuned: Stats, before: Stats, after: Stats, eps: float) -> Stats:
    """A learned scale is a ratio of deviations, a shift a difference of means in units of one (zoo.point_tuning)."""
    deviations = [(variance + eps).sqrt() for _, variance in (tuned, before, after)]
    deviation = deviations[0] * deviations[2] / deviations[1]
    mean = after[0] - (before[0] - tuned[0]) / deviations[0] * deviation
    return mean, (deviation.square() - eps).clamp_min(0.0)
