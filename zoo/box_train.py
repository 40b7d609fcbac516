"""Train a slimmable detector of boxes on cluttered scenes: data, steps, schedule, log and checkpoints, top to bottom.

As zoo.train: by one process or several under `torchrun`, every draw depends on the seed, the epoch and the step, and a
run that was stopped continues to the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.augment import shrink_batch
from zoo.box_checkpoint import start_from
from zoo.box_evaluate import at_side, evaluate_boxes
from zoo.box_recipe import FAMILY, BoxRecipe
from zoo.box_scenes import BoxScene, BoxSceneSet, training_scenes
from zoo.calibrate import calibrate, to_tensor
from zoo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zoo.efficientdet import EfficientDet
from zoo.efficientdet_boxes import Target, anchor_boxes, detection_loss
from zoo.finish import norm_subset
from zoo.mutual import Subnet, draw_subnets
from zoo.optimizers import OPTIMIZERS, parameter_groups, set_cosine_rate
from zoo.pictures import PictureSource, Split
from zoo.prefetch import prefetched
from zoo.processes import Processes, average_gradients
from zoo.recipe import RecipeError, require_same_run
from zoo.slim_net import to_channels_last
from zoo.train import open_device
from zoo.training_log import TrainingLog, make_folder, require_finite

LOSSES = ("loss", "class_loss", "box_loss")
"""What a step reports: the sum over its subnets, and the two parts of the full net's."""


def train_boxes(
    recipe: BoxRecipe,
    source: PictureSource,
    out: Path,
    *,
    device: str = "cpu",
    synchronised_norms: bool = True,
    stop_after_epochs: int | None = None,
    checkpoint_every_s: float = 120.0,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Train, calibrate and evaluate on select and test.

    Args:
        recipe: what to do.
        source: the pictures that scenes are made of.
        out: folder for `last.pt` (resumed from when present), `model.pt` (the result) and `log.jsonl`.
        device: a torch device.
        synchronised_norms: with several processes, normalise by the statistics of the whole batch.
        stop_after_epochs: leave after this many epochs of this call, to be resumed later.
        progress: receives what goes into the log, and one event per step.
    Returns:
        the path of `model.pt`, or of `last.pt` when it stopped early.
    Raises:
        RecipeError, DataError, CheckpointError, PretrainedError, TrainError: as zoo.train.train.
    """
    make_folder(out)
    place = open_device(device)
    processes = Processes.join(place)
    if recipe.batch_size % processes.count or recipe.batch_size // processes.count < 2:
        raise RecipeError(
            f"recipe: batch_size {recipe.batch_size} does not give each of {processes.count} processes the same "
            "number of scenes, two or more"
        )
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    run = _Run(recipe, source, splits["train"], place, processes)
    run.model.synchronised_norms = processes.count > 1 and synchronised_norms
    last = out / "last.pt"
    log = TrainingLog(out / "log.jsonl", processes.rank == 0, progress)
    if last.exists():
        run.restore(load_checkpoint(last), last)
    elif recipe.init:
        start_from(run.model, recipe)
    first_epoch = run.epoch
    while run.epoch < recipe.epochs:
        run.train_epoch(log, lambda: save_checkpoint(last, run.checkpoint()), checkpoint_every_s)
        if processes.rank == 0:
            save_checkpoint(last, run.checkpoint())
        if stop_after_epochs is not None and run.epoch - first_epoch >= stop_after_epochs:
            return last
    return _finish(run, splits, out, log)


class _Run:
    """The state of a training run."""

    def __init__(
        self, recipe: BoxRecipe, source: PictureSource, split: Split, device: torch.device, processes: Processes
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.source, self.split, self.device, self.processes = recipe, source, split, device, processes
        self.model: EfficientDet = to_channels_last(recipe.build_model(len(source.classes)).to(device))
        groups = parameter_groups(self.model, recipe.weight_decay)
        self.optimizer = OPTIMIZERS[recipe.optimizer](groups, recipe.learning_rate, recipe.momentum)
        scale = self.model.settings.anchor_scale
        self.anchors = {side: anchor_boxes((side, side), scale).to(device) for side in recipe.sizes()}
        self.steps_per_epoch = len(split) // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise RecipeError(f"recipe: batch_size {recipe.batch_size} is more than the {len(split)} pictures of train")
        self.epoch, self.step = 0, 0
        self.sums = np.zeros(len(LOSSES))  # over the steps of this epoch

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs."""
        return Checkpoint(
            model=self.model.state_dict(),
            recipe=self.recipe.to_dict(),
            classes=self.source.classes,
            training={
                "optimizer": self.optimizer.state_dict(), "epoch": self.epoch, "step": self.step,
                "sums": self.sums.tolist(),
            },
        )  # fmt: skip

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Continue a run."""
        same = checkpoint.recipe.get("family") == FAMILY and BoxRecipe.from_dict(checkpoint.recipe) == self.recipe
        require_same_run(same, checkpoint.classes == self.source.classes, path)
        state = checkpoint.training
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.sums = state["epoch"], state["step"], np.array(state["sums"])

    def train_epoch(self, log: TrainingLog, save: Callable[[], None], checkpoint_every_s: float) -> None:
        """The steps of the current epoch that are still to do."""
        self.model.train()
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.split))
        saved = started = time.monotonic()
        for scenes in prefetched(range(self.step, self.steps_per_epoch), partial(self._load, order)):
            figures = self._train_step(scenes)
            require_finite(figures[0], self.epoch, self.step)
            self.step += 1
            self.sums += figures
            log.step(
                self.epoch * self.steps_per_epoch + self.step, self.recipe.epochs * self.steps_per_epoch, figures[0]
            )  # fmt: skip
            if self.processes.rank == 0 and time.monotonic() - saved > checkpoint_every_s:
                save()
                saved = time.monotonic()
        means = dict(zip(LOSSES, (self.sums / self.step).tolist(), strict=True))
        log.write({
            "event": "epoch", "epoch": self.epoch + 1, **means, "learning_rate": self.optimizer.param_groups[0]["lr"],
            "duration_s": time.monotonic() - started,
        })  # fmt: skip
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros_like(self.sums)

    def _load(self, order: np.ndarray, step: int) -> list[BoxScene]:
        """This process's share of the scenes of one step."""
        recipe = self.recipe
        rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        share = rows[self.processes.rank :: self.processes.count]
        return training_scenes(
            self.source, self.split, share, recipe.scene_spec, recipe.augmentation, recipe.seed, self.epoch
        )

    def _train_step(self, scenes: list[BoxScene]) -> np.ndarray:
        """One optimiser step; returns LOSSES, over all processes."""
        recipe = self.recipe
        step, total = self.epoch * self.steps_per_epoch + self.step, recipe.epochs * self.steps_per_epoch
        set_cosine_rate(self.optimizer, recipe.learning_rate, step, total, recipe.warmup_steps)
        draw = np.random.default_rng((recipe.seed, self.epoch, self.step, 1))
        subnets = draw_subnets(
            "mutualnet", (min(recipe.widths), max(recipe.widths)), recipe.sizes(), draw, recipe.random_widths,
            recipe.width_choices,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        figures = torch.stack(self._accumulate(scenes, subnets))
        if self.processes.count > 1:
            figures = average_gradients(self.model, figures, self.processes.count)
        if recipe.clip_gradient_norm > 0.0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient_norm)
        self.optimizer.step()
        return figures.double().cpu().numpy()

    def _accumulate(self, scenes: list[BoxScene], subnets: list[Subnet]) -> list[Tensor]:
        """Add up the gradients of all subnets, each of which learns from the boxes; LOSSES, detached."""
        recipe, parts = self.recipe, []
        pixels = np.stack([scene.pixels for scene in scenes])
        for subnet in subnets:
            side = subnet.resolution
            pictures = to_tensor(shrink_batch(pixels, side), recipe.mean, recipe.std, self.device)
            maps = self.model(pictures, subnet.width)
            loss = detection_loss(maps, self.anchors[side], targets_at(scenes, side, self.device))
            loss.total.backward()
            parts.append(loss)
        total = torch.stack([loss.total.detach() for loss in parts]).sum()
        return [total, parts[0].classes.detach(), parts[0].boxes.detach()]


def targets_at(scenes: list[BoxScene], side: int, device: torch.device | str = "cpu") -> list[Target]:
    """What is to be found in scenes that were resized to squares of this side, pixels."""
    there = [at_side(scene, side) for scene in scenes]
    return [
        Target(torch.from_numpy(boxes.boxes_xyxy).to(device), torch.from_numpy(boxes.labels).to(device))
        for boxes in there
    ]


def _finish(run: _Run, splits: Mapping[str, Split], out: Path, log: TrainingLog) -> Path:
    """Calibrate, evaluate every point on select and test, and write the result (rank 0)."""
    recipe, model, train = run.recipe, run.model, splits["train"]

    def scenes_of(split: Split) -> BoxSceneSet:
        return BoxSceneSet(run.source, split, recipe.scene_spec, recipe.evaluation_seed)

    calibrate(model, scenes_of(train), norm_subset(recipe, train), recipe.points(), recipe.mean, recipe.std)
    held_out = {name: scenes_of(splits[name]) for name in ("select", "test") if name in splits}
    found = run.processes.shared_out(
        recipe.points(), lambda points: evaluate_boxes(model, held_out, points, recipe.mean, recipe.std)
    )
    path = out / "model.pt"
    if run.processes.rank == 0:
        log.write({"event": "result", "points": found})
        save_checkpoint(path, Checkpoint(model.state_dict(), recipe.to_dict(), run.source.classes, accuracy=found))
    run.processes.wait()
    return path
