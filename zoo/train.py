"""Train a slimmable network: data, steps, schedule, log and checkpoints, from top to bottom.

Run by one process, or by several under `torchrun` (each takes an equal share of every batch). Every random draw
depends on the seed, the epoch and the step, so a run that was stopped continues to the same result.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.augment import augmented_batch, shrink_batch
from zoo.calibrate import to_tensor
from zoo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zoo.finish import finish, train_strangers
from zoo.held import HeldSubnet, Norms
from zoo.initial import adapt_statistics, fit_head, fresh_network, initial_network
from zoo.multi_resolution import accumulate_multi_resolution_gradients
from zoo.mutual import (
    STRANGER,
    Subnet,
    accumulate_gradients,
    accumulate_labelled_gradients,
    accumulate_taught_gradients,
    draw_subnets,
)
from zoo.optimizers import OPTIMIZERS, parameter_groups, set_cosine_rate
from zoo.pictures import PictureSource, Split
from zoo.prefetch import prefetched
from zoo.processes import Processes, average_gradients
from zoo.quantization_aware import quantization_aware
from zoo.recipe import Recipe, RecipeError, require_same_run
from zoo.resformer import ResFormer
from zoo.slim_layers import SlimError
from zoo.slim_net import Size, SlimNet, to_channels_last
from zoo.sources import recipe_splits
from zoo.training_log import TrainError, TrainingLog, make_folder, require_finite


def train(
    recipe: Recipe,
    source: PictureSource,
    out: Path,
    *,
    device: str = "cpu",
    amp: bool = False,
    synchronised_norms: bool = True,
    initial_weights: dict[str, Any] | None = None,
    strangers: PictureSource | None = None,
    stop_after_epochs: int | None = None,
    checkpoint_every_s: float = 120.0,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Train, calibrate and evaluate on select and test.

    Args:
        recipe: what to do.
        source: the pictures.
        out: folder for `last.pt` (resumed from when present), `model.pt` (the result) and `log.jsonl`.
        device: a torch device.
        amp: mixed precision, for GPUs.
        synchronised_norms: with several processes, normalise by the statistics of the whole batch.
        initial_weights: a state dict to start from; must fit the model.
        strangers: pictures of none of the classes, for a recipe with `strangers_per_batch`.
        stop_after_epochs: leave after this many epochs of this call, to be resumed later.
        progress: receives what goes into the log, and one event per step.
    Returns:
        the path of `model.pt`, or of `last.pt` when it stopped early.
    Raises:
        RecipeError: the folder holds a run of another recipe, or the recipe does not fit the pictures.
        DataError: a picture cannot be read, or there are too few.
        CheckpointError: `last.pt` cannot be read or written.
        TrainError: the device or the folder cannot be used, or the loss is no longer a number.
    """
    if recipe.init_teacher and not recipe.init:
        raise RecipeError("recipe: init_teacher needs weights to start from; name them by --init, or in the recipe")
    make_folder(out)
    place = open_device(device)
    processes = Processes.join(place)
    for key in ("batch_size", "strangers_per_batch"):
        if getattr(recipe, key) % processes.count:
            raise RecipeError(f"recipe: {key} {getattr(recipe, key)} does not divide among {processes.count} processes")
    splits = recipe_splits(recipe, source)
    run = _Run(recipe, source, splits["train"], place, amp, processes, strangers)
    last = out / "last.pt"
    log = TrainingLog(out / "log.jsonl", processes.rank == 0, progress)
    _take_first_weights(run, initial_weights, log, resumed=last.exists())
    for net in filter(None, (run.model, run.teacher)):
        net.synchronised_norms = processes.count > 1 and synchronised_norms
    if last.exists():
        run.restore(load_checkpoint(last), last)
    else:
        run.hold()
        run.start_norms()
    first_epoch = run.epoch
    while run.epoch < recipe.epochs:
        run.train_epoch(log, lambda: save_checkpoint(last, run.checkpoint()), checkpoint_every_s)
        if processes.rank == 0:
            save_checkpoint(last, run.checkpoint())
        if stop_after_epochs is not None and run.epoch - first_epoch >= stop_after_epochs:
            return last
    return finish(run.model, recipe, source, splits, out, run.strangers, run.processes, log, run.held)


def _take_first_weights(run: _Run, given: dict[str, Any] | None, log: TrainingLog, *, resumed: bool) -> None:
    """Start from the given weights, or from the recipe's network unless the run is resumed; a teacher starts equal."""
    if given is not None:
        run.model.load_state_dict(given)
    elif run.recipe.init and not resumed:
        run.start_from(initial_network(run.recipe, run.source.classes), log)
    if run.recipe.teacher and not resumed:
        other = dataclasses.replace(run.recipe, init=run.recipe.teacher, sort_channels=False)
        run.teacher.load_state_dict(initial_network(other, run.source.classes).state_dict())
    elif run.teacher is not None:
        run.teacher.load_state_dict(run.model.state_dict())


def open_device(name: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device, tried once; "cuda" under torchrun is this process's own GPU.

    Raises:
        TrainError: this machine or this build of torch does not have it.
    """
    if name == "cuda" and "LOCAL_RANK" in environment:
        name = f"cuda:{environment['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise TrainError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


class _Run:
    """The state of a training run."""

    def __init__(
        self,
        recipe: Recipe,
        source: PictureSource,
        split: Split,
        device: torch.device,
        amp: bool,
        processes: Processes,
        strangers: PictureSource | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.source, self.split, self.device, self.processes = recipe, source, split, device, processes
        self.strangers = train_strangers(recipe, source, split, strangers)
        model = fresh_network(recipe, source.classes)
        self.model: SlimNet = to_channels_last(model.to(device))
        taught = recipe.ema_teacher > 0 or recipe.init_teacher
        self.teacher: SlimNet | None = copy.deepcopy(self.model) if taught else None
        if recipe.init_teacher:
            self.teacher.eval()  # it keeps the running statistics that it came with
        if recipe.method == "multiresolution" and not isinstance(model, ResFormer):
            raise RecipeError(
                f"recipe: method 'multiresolution' needs a ResFormer, not {recipe.model!r}; use 'mutualnet'"
            )
        groups = parameter_groups(self.model, recipe.weight_decay)
        self.optimizer = OPTIMIZERS[recipe.optimizer](groups, recipe.learning_rate, recipe.momentum)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp and device.type == "cuda")
        self.amp = amp
        self.steps_per_epoch = len(split) // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise RecipeError(f"recipe: batch_size {recipe.batch_size} is more than the {len(split)} pictures of train")
        self.held: HeldSubnet | None = None
        self.epoch, self.step = 0, 0
        self.loss_sum, self.accuracy_sum = 0.0, 0.0  # over the steps of this epoch

    def start_from(self, network: SlimNet, log: TrainingLog) -> None:
        """Take over the weights of a trained network, adapt its statistics and train its head; the same everywhere."""
        self.model.load_state_dict(network.state_dict())
        if self.recipe.head_passes == 0:
            return
        started = time.monotonic()
        some = np.random.default_rng(self.recipe.seed).permutation(len(self.split))[: self.recipe.norm_pictures]
        adapt_statistics(self.model, (pictures for pictures, _ in self._views(some, 0)))
        everything = np.arange(len(self.split))
        views = (view for number in range(self.recipe.head_passes) for view in self._views(everything, number))
        accuracy = fit_head(self.model, views)
        log.write({"event": "head", "train_accuracy": accuracy, "duration_s": time.monotonic() - started})

    def hold(self, norms: Norms | None = None) -> None:
        """Keep what this training must not change from now on; a narrow subnet with these norms, or the present ones.

        Raises:
            RecipeError: the network has no layer of a name in `frozen_layers`.
        """
        recipe, (_, widest) = self.recipe, self.recipe.drawn_widths()
        width, above = recipe.held_width(), widest if widest < max(recipe.widths) else 1.0
        if width is None and above == 1.0 and not recipe.frozen_layers:
            return
        try:
            self.held = HeldSubnet(self.model, width, norms, widest=above, layers=recipe.frozen_layers)
        except SlimError as error:
            raise RecipeError(f"recipe: trained_widths or frozen_layers: {error}") from error

    @torch.no_grad()
    def start_norms(self) -> None:
        """Norms that trained widths get of their own start from the teacher's, where it is a network of its own."""
        if self.recipe.teacher and self.held is not None and self.held.width is not None:
            for name in self.held.norms:
                for key in ("weight", "bias"):
                    self.model.get_parameter(f"{name}.{key}").copy_(self.teacher.get_parameter(f"{name}.{key}"))

    def _views(self, rows: np.ndarray, number: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Augmented pictures and labels at the largest resolution, batch by batch."""
        recipe = self.recipe
        for at in range(0, len(rows), recipe.batch_size):
            some = rows[at : at + recipe.batch_size]
            names, largest = [self.split.names[i] for i in some], recipe.largest_size()
            batch = augmented_batch(self.source, names, some, largest, recipe.augmentation, recipe.seed, number)
            labels = torch.from_numpy(self.split.labels[some]).to(self.device)
            yield to_tensor(batch, recipe.mean, recipe.std, self.device), labels

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs."""
        return Checkpoint(
            model=self.model.state_dict(),
            recipe=self.recipe.to_dict(),
            classes=self.source.classes,
            training={
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "teacher": None if self.teacher is None else self.teacher.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "held_norms": None if self.held is None else self.held.norms,
                "loss_sum": self.loss_sum,
                "accuracy_sum": self.accuracy_sum,
            },
        )

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Continue a run."""
        same = Recipe.from_dict(checkpoint.recipe) == self.recipe
        require_same_run(same, checkpoint.classes == self.source.classes, path)
        state = checkpoint.training
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.hold(state.get("held_norms"))
        self.epoch, self.step = state["epoch"], state["step"]
        self.loss_sum, self.accuracy_sum = state["loss_sum"], state["accuracy_sum"]

    def train_epoch(self, log: TrainingLog, save: Callable[[], None], checkpoint_every_s: float) -> None:
        """The steps of the current epoch that are still to do."""
        self.model.train()
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.split))
        saved = started = time.monotonic()
        for batch, labels in self._batches(order):
            loss, accuracy = self._train_step(batch, torch.from_numpy(labels).to(self.device), self._draw())
            require_finite(loss, self.epoch, self.step)
            self.step += 1
            self.loss_sum, self.accuracy_sum = self.loss_sum + loss, self.accuracy_sum + accuracy
            log.step(self.epoch * self.steps_per_epoch + self.step, self.recipe.epochs * self.steps_per_epoch, loss)
            if self.processes.rank == 0 and time.monotonic() - saved > checkpoint_every_s:
                save()
                saved = time.monotonic()
        log.write({
            "event": "epoch", "epoch": self.epoch + 1, "loss": self.loss_sum / self.step,
            "train_accuracy": self.accuracy_sum / self.step, "learning_rate": self.optimizer.param_groups[0]["lr"],
            "duration_s": time.monotonic() - started,
        })  # fmt: skip
        self.epoch, self.step, self.loss_sum, self.accuracy_sum = self.epoch + 1, 0, 0.0, 0.0

    def _batches(self, order: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """This process's share of each batch still to do, and its labels; the next one is prepared meanwhile."""
        return prefetched(range(self.step, self.steps_per_epoch), partial(self._load, order))

    def _load(self, order: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, side, side, 3) uint8 and labels (N,) int64 of one step; strangers come last."""
        recipe, share = self.recipe, slice(self.processes.rank, None, self.processes.count)
        rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size][share]
        draws = (recipe.largest_size(), recipe.augmentation, recipe.seed, self.epoch)
        batch = augmented_batch(self.source, [self.split.names[i] for i in rows], rows, *draws)
        labels = self.split.labels[rows]
        if self.strangers is None:
            return batch, labels
        draw = np.random.default_rng((recipe.seed, self.epoch, step, 2))
        others = self.strangers.draw(recipe.strangers_per_batch, draw)
        keys = len(self.split) + step * len(others) + np.arange(len(others))  # fresh draws each time
        names = [self.strangers.train_names[i] for i in others[share]]
        more = augmented_batch(self.strangers, names, keys[share], *draws)
        return np.concatenate([batch, more]), np.append(labels, np.full(len(names), STRANGER))

    def _draw(self) -> list[Subnet]:
        recipe = self.recipe
        draw = np.random.default_rng((recipe.seed, self.epoch, self.step, 1))
        subnets = draw_subnets(
            recipe.method, recipe.drawn_widths(), recipe.sizes(), draw, recipe.random_widths, recipe.width_choices
        )
        return subnets if self._is_full_step() or len(subnets) == 1 else subnets[1:]

    def _is_full_step(self) -> bool:
        """Whether the full net takes part in the current step."""
        return (self.epoch * self.steps_per_epoch + self.step) % self.recipe.full_every == 0

    def _rounding(self) -> AbstractContextManager[None]:
        """Quantization-aware in the last epochs."""
        recipe = self.recipe
        if self.epoch < recipe.epochs - recipe.quantization_aware_epochs:
            return nullcontext()
        return quantization_aware(self.model, recipe.quantization_largest)

    def _accumulate(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """What the subnets of the current step learn from."""
        recipe = self.recipe
        if recipe.method == "multiresolution":
            return accumulate_multi_resolution_gradients
        if self.teacher is not None and recipe.teacher_share > 0:
            teacher = partial(self.teacher, width=max(recipe.widths))
            resolution = recipe.teacher_resolution or recipe.largest_size()
            return partial(
                accumulate_taught_gradients, teacher=teacher, teacher_resolution=resolution, share=recipe.teacher_share
            )
        if self._is_full_step() and recipe.distillation:
            return partial(accumulate_gradients, teacher=self.teacher)
        return accumulate_labelled_gradients

    def _train_step(self, batch: np.ndarray, labels: Tensor, subnets: list[Subnet]) -> tuple[float, float]:
        """One optimiser step.

        Returns:
            the sum of the subnets' losses (each a mean over pictures), and the first subnet's accuracy on the augmented
            pictures, both over the batches of all processes.
        """
        recipe = self.recipe
        step, total = self.epoch * self.steps_per_epoch + self.step, recipe.epochs * self.steps_per_epoch
        set_cosine_rate(self.optimizer, recipe.learning_rate, step, total, recipe.warmup_steps)

        def pictures_at(size: Size) -> Tensor:
            return to_tensor(shrink_batch(batch, size), recipe.mean, recipe.std, self.device)

        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=self.amp), self._rounding():
            loss, logits = self._accumulate()(
                self.model, pictures_at, labels, subnets, label_smoothing=recipe.label_smoothing,
                backward=lambda term: self.scaler.scale(term).backward(),
            )  # fmt: skip
        figures = torch.stack([loss.float(), (logits.argmax(1) == labels)[labels != STRANGER].float().mean()])
        if self.processes.count > 1:
            figures = average_gradients(self.model, figures, self.processes.count)
        self._step_optimizer()
        if self.teacher is not None and recipe.ema_teacher > 0:
            _average_weights(self.teacher, self.model, recipe.ema_teacher)
        mean_loss, accuracy = figures.tolist()
        return mean_loss, accuracy

    def _step_optimizer(self) -> None:
        """Change what the recipe trains by the gradients that are there; a held subnet stays."""
        if self.held is not None:
            self.held.mask_gradients()
        if self.recipe.clip_gradient_norm > 0.0:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.held is not None:
            self.held.restore()


@torch.no_grad()
def _average_weights(teacher: SlimNet, model: SlimNet, decay: float) -> None:
    for held, new in zip(teacher.parameters(), model.parameters(), strict=True):
        held.lerp_(new, 1.0 - decay)
