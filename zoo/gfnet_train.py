"""Train Glance and Focus in stages: random patches, the policy, fine-tuning, the policy again; from top to bottom.

As zoo.train: by one process or several under `torchrun`, every draw depends on the seed, the epoch and the step, and a
run that was stopped continues to the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from zoo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zoo.focus_patches import Chooser, PolicyPlaces, RandomPlaces, WithoutGradient, cut_patches, sample_patches
from zoo.gfnet import GFNet, Look
from zoo.gfnet_checkpoint import start_from
from zoo.gfnet_evaluate import calibrate_encoders, evaluate_looks
from zoo.gfnet_grid import Atlas, learn_epoch, make_atlas, spread_at
from zoo.gfnet_ppo import SampledPlaces, rewards, update_policy
from zoo.gfnet_recipe import FAMILY, GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource, Split
from zoo.prefetch import prefetched
from zoo.processes import Processes, average_gradients
from zoo.recipe import RecipeError, require_same_run
from zoo.slim_layers import SlimConv
from zoo.slim_net import to_channels_last
from zoo.train import open_device
from zoo.training_log import TrainError, TrainingLog, make_folder, require_finite

RANDOM, POLICY, FINE_TUNE, POLICY_AGAIN = 1, 2, 3, 4


def train_gfnet(
    recipe: GlanceRecipe,
    source: PictureSource,
    out: Path,
    *,
    device: str = "cpu",
    initial_weights: dict[str, Any] | None = None,
    stop_after_epochs: int | None = None,
    checkpoint_every_s: float = 120.0,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Train, calibrate and evaluate on calib, select and test.

    Args:
        recipe: what to do.
        source: the pictures.
        out: folder for `last.pt` (resumed from when present), `model.pt` (the result), `looks.npz` (answers after each
            look on the held-out splits, which exits are solved from) and `log.jsonl`.
        device: a torch device.
        initial_weights: a state dict to start from, pretrained backbones for instance; must fit the model.
        stop_after_epochs: leave after this many epochs of this call, to be resumed later.
        progress: receives what goes into the log, and one event per step.
    Returns:
        the path of `model.pt`, or of `last.pt` when it stopped early.
    Raises:
        RecipeError, DataError, CheckpointError, TrainError: as zoo.train.train.
    """
    make_folder(out)
    place = open_device(device)
    processes = Processes.join(place)
    if recipe.batch_size % processes.count:
        raise RecipeError(f"recipe: batch_size {recipe.batch_size} does not divide among {processes.count} processes")
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    run = _Run(recipe, source, splits["train"], place, processes)
    log = TrainingLog(out / "log.jsonl", processes.rank == 0, progress)
    last = out / "last.pt"
    if initial_weights is not None:
        run.model.load_state_dict(initial_weights)
    elif recipe.init and not last.exists():
        start_from(run.model, load_checkpoint(Path(recipe.init)), source.classes)
    if last.exists():
        run.restore(load_checkpoint(last), last)
    done = 0
    while run.stage is not None:
        run.train_epoch(log, lambda: save_checkpoint(last, run.checkpoint()), checkpoint_every_s)
        done += 1
        if processes.rank == 0:
            save_checkpoint(last, run.checkpoint())
        if stop_after_epochs is not None and done >= stop_after_epochs:
            return last
    return _finish(run, splits, out, log)


class _Run:
    """The state of a training run; `epoch` counts through all stages."""

    def __init__(
        self, recipe: GlanceRecipe, source: PictureSource, split: Split, device: torch.device, processes: Processes
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.source, self.split, self.device, self.processes = recipe, source, split, device, processes
        try:
            model = GFNet(recipe.build_design(), len(source.classes))
        except ValueError as error:
            raise RecipeError(f"recipe: design: {error}") from error
        self.model = to_channels_last(model.to(device=device))
        for encoder in self.model.encoders:
            encoder.synchronised = processes.count > 1
        self.views = Views(recipe, source, split.names)
        self.networks = torch.optim.SGD(self._parameter_groups(), lr=0.0, momentum=recipe.momentum,
                                        nesterov=recipe.momentum > 0)  # fmt: skip
        self.policy = torch.optim.Adam(self.model.policy.parameters(), lr=recipe.policy_learning_rate)
        self.steps_per_epoch = len(split) // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise RecipeError(f"recipe: batch_size {recipe.batch_size} is more than the {len(split)} pictures of train")
        self.epoch, self.step, self.ready_stage = 0, 0, 0
        self.atlas: tuple[int, Atlas] | None = None
        """The stage that it was made for, and what the policy learns from."""
        self.sums = np.zeros(1 + self.model.design.steps)  # loss and accuracy after each look, over this epoch

    @property
    def stage(self) -> int | None:
        """1 to 4; None when all is done."""
        left = self.epoch
        for number, epochs in enumerate(self.recipe.stages, start=1):
            if left < epochs:
                return number
            left -= epochs
        return None

    @property
    def first_epoch(self) -> int:
        """The epoch in which the current stage began."""
        stages = self.recipe.stages
        return sum(stages[: (self.stage or len(stages) + 1) - 1])

    @property
    def _frozen(self) -> bool:
        """The policy learns now, and alone."""
        return self.stage in (POLICY, POLICY_AGAIN) and self.recipe.policy in ("ppo", "grid")

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Encoders and classifier, each with and without weight decay; no decay on norms, biases and depthwise."""
        recipe, model = self.recipe, self.model
        depthwise = {
            id(m.weight) for m in model.modules() if isinstance(m, SlimConv) and m.weight.shape[1] == 1
        }  # fmt: skip
        groups: list[dict[str, Any]] = []
        encoders = [model.focus, *([model.glance] if recipe.train_glance and not model.design.shared else [])]
        for modules, rate in ((encoders, recipe.learning_rate), ([model.classifier], recipe.classifier_learning_rate)):
            parameters = [p for module in modules for p in module.parameters()]
            for decays, decay in ((True, recipe.weight_decay), (False, 0.0)):
                chosen = [p for p in parameters if (p.dim() > 1 and id(p) not in depthwise) == decays]
                groups.append({"params": chosen, "weight_decay": decay, "base_rate": rate})
        return groups

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs."""
        return Checkpoint(
            model=self.model.state_dict(),
            recipe=self.recipe.to_dict(),
            classes=self.source.classes,
            training={
                "networks": self.networks.state_dict(), "policy": self.policy.state_dict(), "epoch": self.epoch,
                "step": self.step, "ready_stage": self.ready_stage, "sums": self.sums.tolist(),
            },
        )  # fmt: skip

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Continue a run."""
        same = checkpoint.recipe.get("family") == FAMILY and GlanceRecipe.from_dict(checkpoint.recipe) == self.recipe
        require_same_run(same, checkpoint.classes == self.source.classes, path)
        state = checkpoint.training
        self.model.load_state_dict(checkpoint.model)
        self.networks.load_state_dict(state["networks"])
        self.policy.load_state_dict(state["policy"])
        self.epoch, self.step, self.ready_stage = state["epoch"], state["step"], state["ready_stage"]
        self.sums = np.array(state["sums"])

    def train_epoch(self, log: TrainingLog, save: Callable[[], None], checkpoint_every_s: float) -> None:
        """The steps of the current epoch that are still to do."""
        stage = self.stage
        self._enter(stage)
        self._set_mode()
        if self._frozen and self.recipe.policy == "grid":
            self._train_on_grid(stage, log)
            return
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.split))
        saved = started = time.monotonic()
        total, before = self.recipe.stages[stage - 1] * self.steps_per_epoch, self.epoch - self.first_epoch
        for batch, rows in self._batches(order):
            self._set_learning_rates(stage)
            figures = self._train_step(stage, batch, rows)
            require_finite(figures[0], self.epoch, self.step)
            self.step += 1
            self.sums += figures
            log.step(before * self.steps_per_epoch + self.step, total, figures[0])
            if self.processes.rank == 0 and time.monotonic() - saved > checkpoint_every_s:
                save()
                saved = time.monotonic()
        loss, *accuracy = (self.sums / self.step).tolist()
        log.write({
            "event": "epoch", "epoch": self.epoch + 1, "stage": stage, "loss": loss, "train_accuracy": accuracy[-1],
            "train_accuracy_by_look": accuracy, "duration_s": time.monotonic() - started,
        })  # fmt: skip
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros_like(self.sums)

    def _enter(self, stage: int) -> None:
        """Once for each stage: momentum starts anew, and a frozen network gets statistics of random patches."""
        if self.ready_stage == stage:
            return
        self.networks.state.clear()
        if self._frozen and stage == POLICY:
            self.calibrate(lambda number: RandomPlaces(self._generator(number, 7)))
        elif self._frozen:
            self.calibrate(lambda number: PolicyPlaces(self.model.policy))
        self.ready_stage = stage

    def _train_on_grid(self, stage: int, log: TrainingLog) -> None:
        """An epoch over the atlas of this stage, which is made when it is not there."""
        started, recipe = time.monotonic(), self.recipe
        if self.atlas is None or self.atlas[0] != stage:
            self.atlas = (stage, make_atlas(self.model, self._scenes_of(self.first_epoch), recipe.grid_side))
        share = (self.epoch - self.first_epoch) / recipe.stages[stage - 1]
        for group in self.policy.param_groups:
            group["lr"] = recipe.policy_learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))
        gain, accuracy = learn_epoch(
            self.model, self.policy, self.atlas[1], recipe.batch_size // self.processes.count, spread_at(share),
            (recipe.seed, self.epoch, self.processes.rank), lambda: self._share(torch.zeros(1), self.model.policy),
        )  # fmt: skip
        log.write({
            "event": "epoch", "epoch": self.epoch + 1, "stage": stage, "loss": -gain, "train_accuracy": accuracy[-1],
            "train_accuracy_by_look": accuracy, "duration_s": time.monotonic() - started,
        })  # fmt: skip
        self.epoch += 1

    def _scenes_of(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This process's share of the pictures for the atlas, augmented as in this epoch, with labels."""
        chosen = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.split))
        count = min(self.recipe.grid_pictures, len(chosen)) // self.processes.count
        rows = chosen[self.processes.rank * count : (self.processes.rank + 1) * count]
        for at in range(0, count, self.recipe.batch_size):
            batch = rows[at : at + self.recipe.batch_size]
            pictures = self.views.training([self.split.names[i] for i in batch], batch, epoch)
            yield *self.views.tensors(pictures, self.device), torch.from_numpy(self.split.labels[batch])

    def calibrate(self, choose: Callable[[int], Chooser]) -> None:
        """Statistics of unaugmented training pictures; the same on every process."""
        chosen = np.random.default_rng(self.recipe.seed).permutation(len(self.split))[: self.recipe.norm_pictures]
        subset = Split(tuple(self.split.names[i] for i in chosen), self.split.labels[chosen])
        calibrate_encoders(self.model, self.views.batches(subset, self.device), choose)

    def _set_mode(self) -> None:
        """A glance that is not trained keeps the statistics it came with, and so do frozen networks."""
        self.model.train(not self._frozen)
        if not self.recipe.train_glance and not self.model.design.shared:
            self.model.glance.eval()

    def _generator(self, *numbers: int) -> torch.Generator:
        seed = np.random.default_rng((self.recipe.seed, self.epoch, *numbers)).integers(1 << 62)
        return torch.Generator().manual_seed(int(seed))

    def _batches(self, order: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """This process's share of each batch that is still to do; the next one is prepared meanwhile."""
        size = self.recipe.batch_size
        shares = [
            order[s * size : (s + 1) * size][self.processes.rank :: self.processes.count]
            for s in range(self.step, self.steps_per_epoch)
        ]

        def load(rows: np.ndarray) -> np.ndarray:
            return self.views.training([self.split.names[i] for i in rows], rows, self.epoch)

        return zip(prefetched(shares, load), shares, strict=True)

    def _set_learning_rates(self, stage: int) -> None:
        """Cosine to zero within each stage; stage 1 warms up; later stages begin lower."""
        recipe = self.recipe
        step = (self.epoch - self.first_epoch) * self.steps_per_epoch + self.step
        total = recipe.stages[stage - 1] * self.steps_per_epoch
        share = 0.5 * (1.0 + math.cos(math.pi * step / total))
        if stage == RANDOM and step < recipe.warmup_steps:
            share = (step + 1) / recipe.warmup_steps
        if stage != RANDOM:
            share *= recipe.fine_tune_share
        for group in self.networks.param_groups:
            group["lr"] = group["base_rate"] * share

    def _train_step(self, stage: int, batch: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """One step; returns the loss and the accuracy after each look, over all processes."""
        labels = torch.from_numpy(self.split.labels[rows]).to(self.device)
        glances, pictures = self.views.tensors(batch, self.device)
        generator = self._generator(self.step, self.processes.rank)
        if self._frozen:
            return self._reinforce(glances, pictures, labels, generator)
        random = RandomPlaces(generator)
        if stage == RANDOM or self.recipe.policy == "none":
            passes: list[tuple[Chooser, Callable[..., Tensor]]] = [(random, cut_patches)]
        elif stage != FINE_TUNE:  # AdaFocus V2: one pass with the policy's patches, one with random ones
            passes = [(PolicyPlaces(self.model.policy), sample_patches), (random, cut_patches)]
        elif self.recipe.policy == "grid":  # the policy will learn again: places near its own will do, and teach more
            near = SampledPlaces(self.model.policy, self.recipe.ppo_spread, generator)
            passes = [(near, cut_patches)]
        else:
            passes = [(WithoutGradient(PolicyPlaces(self.model.policy)), cut_patches)]
        self.model.zero_grad(set_to_none=True)
        total = torch.zeros(len(self.sums), device=self.device)
        for choose, cut in passes:
            looks = self.model.looks(glances, pictures, choose, cut=cut)
            loss = looks_loss(looks, labels, self.recipe.own_head_weight) / len(passes)
            loss.backward()
            total = total + _figures(loss, looks, labels) * torch.tensor([1.0] + [1 / len(passes)] * len(looks))
        total = self._share(total)
        self.networks.step()
        if stage in (POLICY, POLICY_AGAIN):
            self.policy.step()
        return total.double().numpy()

    def _reinforce(self, glances: Tensor, pictures: Tensor, labels: Tensor, generator: torch.Generator) -> np.ndarray:
        settings = self.recipe.ppo_settings
        sampled = SampledPlaces(self.model.policy, settings.spread, generator)
        with torch.no_grad():
            looks = self.model.looks(glances, pictures, sampled)
        figures = _figures(torch.zeros(()), looks, labels)
        loss = update_policy(
            self.model.policy, self.policy, sampled, rewards(looks, labels), settings,
            share=lambda: self._share(torch.zeros(1), self.model.policy),
        )  # fmt: skip
        figures[0] = loss
        if self.processes.count > 1:
            figures = figures.to(self.device)
            distributed.all_reduce(figures)
            figures = figures.cpu() / self.processes.count
        return figures.double().numpy()

    def _share(self, figures: Tensor, module: torch.nn.Module | None = None) -> Tensor:
        """Average gradients and figures over the processes."""
        if self.processes.count == 1:
            return figures.cpu()
        return average_gradients(module or self.model, figures.to(self.device), self.processes.count).cpu()


def looks_loss(looks: list[Look], labels: Tensor, own_head_weight: float) -> Tensor:
    """Mean over the looks of the answer's cross-entropy and, weighted, the own head's."""
    terms = [
        F.cross_entropy(look.logits.float(), labels)
        + own_head_weight * F.cross_entropy(look.own_logits.float(), labels)
        for look in looks
    ]
    return torch.stack(terms).mean()


@torch.no_grad()
def _figures(loss: Tensor, looks: list[Look], labels: Tensor) -> Tensor:
    """Loss, and accuracy after each look, on the CPU."""
    right = [(look.logits.argmax(1) == labels).float().mean() for look in looks]
    return torch.stack([loss.detach().float().to(labels.device), *right]).cpu()


def _finish(run: _Run, splits: dict[str, Split], out: Path, log: TrainingLog) -> Path:
    """Calibrate, evaluate, and write the result (rank 0)."""
    path = out / "model.pt"
    if run.processes.rank == 0:
        kind = "random" if run.recipe.policy == "none" else "policy"

        def choose(number: int) -> Chooser:
            if kind == "random":
                return RandomPlaces(torch.Generator().manual_seed(number))
            return PolicyPlaces(run.model.policy)

        run.calibrate(choose)
        held_out = {name: split for name, split in splits.items() if name != "train"}
        kinds = [kind, *(k for k in ("policy", "centre", "random", "saliency") if k != kind)]
        rows, answers = evaluate_looks(run.model, run.views, held_out, kinds)
        log.write({"event": "result", "looks": rows})
        try:
            np.savez_compressed(out / "looks.npz", **answers)
        except OSError as error:
            raise TrainError(f"{out / 'looks.npz'}: cannot be written: {error.strerror}; make room") from error
        finished = Checkpoint(run.model.state_dict(), run.recipe.to_dict(), run.source.classes, accuracy=rows)
        save_checkpoint(path, finished)
    if run.processes.count > 1:
        distributed.barrier()
    return path
