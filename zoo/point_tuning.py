"""Tune the norms of each operating point on its own, with all weights as they are.

A supernet has one affine pair for each norm, that every width and resolution shares, and training pictures are cut and
coloured more than those that a point will see. Afterwards each (width, resolution) can have a scale and a shift of its
own at no cost: a bundle stores the statistics of each point anyway, and whatever scale and shift are learned can be
written as statistics. So this learns, with the weights frozen, what the norms of a point had better be. That the norms
alone can do much is known from Frankle et al. 2020, arXiv:2003.00152; that fine-tuning them at the test resolution on
pictures that look like those of the test pays, from Touvron et al. 2019 (FixRes), arXiv:1906.06423.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.augment import augmented_batch, shrink_batch
from zoo.calibrate import to_tensor
from zoo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zoo.evaluate import evaluate_points
from zoo.madds import count_madds
from zoo.mutual import STRANGER, labelled_loss
from zoo.optimizers import set_cosine_rate
from zoo.pictures import PictureSource, Split
from zoo.processes import Processes
from zoo.recipe import Recipe, RecipeError
from zoo.sizes import input_shape, size_facts
from zoo.slim_layers import Stats
from zoo.slim_net import Size, SlimNet, materialise, to_channels_last
from zoo.sources import recipe_splits
from zoo.strangers import Strangers
from zoo.training_log import make_folder

STREAM = 3  # of random numbers, beside those of zoo.train
Point = tuple[float, Size]
"""Width, and the side of a picture in pixels or (frames, height, width) of a clip."""
Progress = Callable[[dict[str, Any]], None]


class TunedNorm(nn.Module):
    """A batch norm in evaluation whose scale and shift are learned as changes of its statistics.

    Shapes: (N, channels, *spatial) float -> the same.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())
        self.log_scale = nn.Parameter(torch.zeros_like(self.weight))
        """Of the deviation's inverse."""
        self.offset = nn.Parameter(torch.zeros_like(self.weight))
        """In units of the shared scale."""
        largest = 0.5 * torch.log((self.running_var + self.eps) / self.eps)  # beyond it the variance would be negative
        self.register_buffer("largest", largest)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self._log_scale().exp()
        bias = self.bias + self.weight * self.offset
        return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, False, 0.0, self.eps)

    @torch.no_grad()
    def statistics(self) -> Stats:
        """Mean and variance with which the shared affine pair gives the same answers."""
        deviation = (self.running_var + self.eps).sqrt() * (-self._log_scale()).exp()
        mean = self.running_mean - self.offset * deviation
        return mean.cpu(), (deviation.square() - self.eps).clamp_min(0.0).cpu()

    def _log_scale(self) -> Tensor:
        return torch.minimum(self.log_scale, self.largest)


def tunable(model: SlimNet, point: Point) -> nn.Module:
    """The plain network of a point in which nothing but its norms can be learned.

    Raises:
        RecipeError: it has no batch norms.
    """
    plain = to_channels_last(materialise(model, width=point[0], resolution=point[1]))
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    norms = [(name, module) for name, module in plain.named_modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise RecipeError("recipe: point_epochs needs a network with batch norms; leave it at 0 for this one")
    for name, norm in norms:
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, TunedNorm(norm))
    return plain


def learned_statistics(plain: nn.Module) -> dict[str, Stats]:
    """What the norm bank keeps of a tuned point."""
    return {name: module.statistics() for name, module in plain.named_modules() if isinstance(module, TunedNorm)}


def tune_points(
    model: SlimNet,
    recipe: Recipe,
    source: PictureSource,
    points: Sequence[Point],
    out: Path,
    *,
    strangers: Strangers | None = None,
    processes: Processes | None = None,
    progress: Progress = lambda event: None,
    checkpoint_every_s: float = 120.0,
) -> dict[Point, dict[str, Stats]]:
    """Learn statistics for each point by the recipe's `point_epochs`; run again, it goes on.

    Each learns from the labels and from the answers of the largest point as it was before, half and half. Points do
    not depend on each other; several processes share them out.

    Args:
        model: calibrated; it is not changed.
        out: folder for `points-RANK.pt`, from which a stopped run goes on.
        strangers: pictures of none of the classes, for a recipe with `strangers_per_batch`.
        progress: receives an event of each step and epoch.
    Returns:
        statistics of every point, on every process.
    Raises:
        RecipeError: the network has no batch norms, or the file is of another run.
        CheckpointError: the file cannot be read or written.
        TrainError: the folder cannot be made.
    """
    processes = processes or Processes()
    tuner = _Tuner(model, recipe, source, shared_out(model, points, processes), strangers)
    make_folder(out)
    path = out / f"points-{processes.rank}.pt"
    if path.exists():
        tuner.restore(load_checkpoint(path), path)
    tuner.run(lambda: save_checkpoint(path, tuner.checkpoint()), progress, checkpoint_every_s)
    found = {point: learned_statistics(net) for point, net in tuner.nets.items()}
    if processes.count == 1:
        return found
    everywhere: list[Any] = [None] * processes.count
    distributed.all_gather_object(everywhere, found)
    return {point: stats for part in everywhere for point, stats in part.items()}


def shared_out(model: SlimNet, points: Sequence[Point], processes: Processes) -> list[Point]:
    """This process's points: the costliest first, each to the process that has least to do."""

    def cost(point: Point) -> int:
        plain = materialise(model, width=point[0], resolution=point[1])
        return count_madds(plain, input_shape(point[1]))

    if processes.count == 1:
        return list(points)
    load, mine = [0] * processes.count, []
    for madds, point in sorted(((cost(point), point) for point in points), reverse=True):
        least = load.index(min(load))
        load[least] += madds
        if least == processes.rank:
            mine.append(point)
    return mine


class _Tuner:
    """Some points, each with an optimiser, that see the same batches."""

    def __init__(
        self,
        model: SlimNet,
        recipe: Recipe,
        source: PictureSource,
        points: Iterable[Point],
        strangers: Strangers | None,
    ) -> None:
        self.recipe, self.source, self.strangers = recipe, source, strangers
        self.split: Split = recipe_splits(recipe, source)["train"]
        self.largest = recipe.largest_size()
        self.teacher = to_channels_last(materialise(model, width=max(recipe.widths), resolution=self.largest))
        self.device = next(model.parameters()).device
        self.of = weights_hash(model)
        self.nets = {point: tunable(model, point) for point in points}
        self.optimizers = {
            point: torch.optim.Adam((p for p in net.parameters() if p.requires_grad), recipe.point_learning_rate)
            for point, net in self.nets.items()
        }
        self.steps_per_epoch = max(1, len(self.split) // recipe.point_batch_size)
        self.step = 0

    def run(self, save: Callable[[], None], progress: Progress, every_s: float) -> None:
        total, saved = self.recipe.point_epochs * self.steps_per_epoch, time.monotonic()
        started, losses = saved, dict.fromkeys(self.nets, 0.0)
        while self.step < total:
            for point, loss in self._step(total).items():
                losses[point] += loss
            self.step += 1
            mean = sum(losses.values()) / max(1, len(losses)) / ((self.step - 1) % self.steps_per_epoch + 1)
            progress({"event": "step", "done": self.step, "total": total, "loss": mean})
            if self.step % self.steps_per_epoch == 0:
                progress({
                    "event": "points", "epoch": self.step // self.steps_per_epoch, "loss": mean,
                    "duration_s": time.monotonic() - started,
                })  # fmt: skip
                started, losses = time.monotonic(), dict.fromkeys(losses, 0.0)
            if time.monotonic() - saved > every_s or self.step == total:
                save()
                saved = time.monotonic()

    def _step(self, total: int) -> dict[Point, float]:
        """One step of every point; returns their losses."""
        recipe = self.recipe
        batch, labels = self._load()
        with torch.no_grad():
            target = self.teacher(to_tensor(batch, recipe.mean, recipe.std, self.device)).float().softmax(1)
        losses = {}
        for point, net in self.nets.items():
            optimizer = self.optimizers[point]
            set_cosine_rate(optimizer, recipe.point_learning_rate, self.step, total)
            pictures = to_tensor(shrink_batch(batch, point[1]), recipe.mean, recipe.std, self.device)
            logits = net(pictures)
            taught = F.kl_div(logits.float().log_softmax(1), target, reduction="batchmean")
            loss = 0.5 * labelled_loss(logits, labels) + 0.5 * taught
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses[point] = float(loss.detach())
        return losses

    def _load(self) -> tuple[np.ndarray, Tensor]:
        """Pictures (N, side, side, 3) uint8 and labels (N,) of the current step; strangers come last."""
        recipe, (epoch, step) = self.recipe, divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng((recipe.seed, epoch, STREAM)).permutation(len(self.split))
        rows = order[step * recipe.point_batch_size : (step + 1) * recipe.point_batch_size]
        # epochs of zoo.train are below recipe.epochs: other crops than the weights have seen
        draws = (self.largest, recipe.point_augmentation, recipe.seed, recipe.epochs + epoch)
        batch = augmented_batch(self.source, [self.split.names[i] for i in rows], rows, *draws)
        labels = torch.from_numpy(self.split.labels[rows])
        if self.strangers is not None:
            draw = np.random.default_rng((recipe.seed, epoch, step, STREAM))
            others = self.strangers.draw(self._strangers_per_batch(), draw)
            keys = len(self.split) + step * len(others) + np.arange(len(others))
            names = [self.strangers.train_names[i] for i in others]
            batch = np.concatenate([batch, augmented_batch(self.strangers, names, keys, *draws)])
            labels = torch.cat([labels, labels.new_full((len(others),), STRANGER)])
        return batch, labels.to(self.device)

    def _strangers_per_batch(self) -> int:
        """The same share of a batch as in training."""
        recipe = self.recipe
        return max(1, round(recipe.strangers_per_batch * recipe.point_batch_size / recipe.batch_size))

    def checkpoint(self) -> Checkpoint:
        state = [
            {"net": _learned(net), "optimizer": self.optimizers[point].state_dict()} for point, net in self.nets.items()
        ]
        training = {"step": self.step, "points": [list(point) for point in self.nets], "of": self.of, "state": state}
        return Checkpoint({}, self.recipe.to_dict(), self.source.classes, training)

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        held = checkpoint.training
        same = Recipe.from_dict(checkpoint.recipe) == self.recipe and checkpoint.classes == self.source.classes
        same = same and held.get("of") == self.of
        if not same or held.get("points") != [list(point) for point in self.nets]:
            raise RecipeError(f"{path}: belongs to another run; choose another --out or remove it")
        self.step = held["step"]
        for (point, net), state in zip(self.nets.items(), held["state"], strict=True):
            net.load_state_dict(state["net"], strict=False)
            self.optimizers[point].load_state_dict(state["optimizer"])


def weights_hash(model: SlimNet) -> str:
    """A stopped run goes on with the same weights alone; statistics may differ in the last bit with other threads."""
    found = hashlib.sha256()
    for _, tensor in sorted(model.named_parameters()):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _learned(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}


def tune_bank(
    model: SlimNet,
    recipe: Recipe,
    source: PictureSource,
    out: Path,
    *,
    strangers: Strangers | None = None,
    processes: Processes | None = None,
    progress: Progress = lambda event: None,
) -> list[dict[str, Any]]:
    """Put what `tune_points` learns into the norm bank, where it is not worse on select.

    Args:
        model: calibrated at every point of the recipe.
        strangers: as for `tune_points`.
    Returns:
        a row for each point: width, resolution, select_before, select_tuned (0-1, None without pictures), taken.
    Raises:
        As `tune_points`.
    """
    points = recipe.trained_points()
    splits = recipe_splits(recipe, source)
    found = tune_points(
        model, recipe, source, points, out, strangers=strangers, processes=processes, progress=progress
    )  # fmt: skip
    entries = model.norm_bank.entries
    keys = {point: model.point_key(*point) for point in points}
    before = {point: entries[keys[point]] for point in points}
    select = {"select": splits["select"]}

    def scores() -> list[float | None]:
        def evaluated(some: list[Point]) -> list[dict[str, Any]]:
            return evaluate_points(model, source, select, some, recipe.mean, recipe.std)

        rows = (processes or Processes()).shared_out(points, evaluated)
        return [row.get("select_accuracy") for row in rows]

    old = scores()
    entries.update({keys[point]: stats for point, stats in found.items()})
    rows = []
    for point, was, now in zip(points, old, scores(), strict=True):
        taken = was is None or now is None or now >= was
        if not taken:
            entries[keys[point]] = before[point]
        rows.append({
            "width": point[0], **size_facts(point[1]), "select_before": was, "select_tuned": now, "taken": taken,
        })  # fmt: skip
    return rows
