"""Statistics, accuracy and answers of a GFNet, and the controls: other ways to place patches at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.focus_patches import CentrePlaces, Chooser, PolicyPlaces, RandomPlaces, SaliencyPlaces, cut_patches
from zoo.gfnet import GFNet, step_madds
from zoo.gfnet_parts import ENTRY, Encoder
from zoo.gfnet_views import Views
from zoo.pictures import Split
from zoo.slim_layers import Stats

CONTROLS = ("policy", "centre", "random", "saliency")


def make_chooser(kind: str, model: GFNet, seed: int = 0, glances: Tensor | None = None) -> Chooser:
    """A fresh chooser of one of CONTROLS, for one run of looks at the pictures of these glances."""
    if kind == "policy":
        return PolicyPlaces(model.policy)
    if kind == "centre":
        return CentrePlaces()
    if kind == "random":
        return RandomPlaces(torch.Generator().manual_seed(seed))
    if kind == "saliency":
        return SaliencyPlaces(model.glance, model.design.picture, model.design.patch, glances)
    raise ValueError(f"patches are {kind!r}, expected one of {', '.join(CONTROLS)}")


class _Average:
    """Running mean of the statistics of one encoder."""

    def __init__(self) -> None:
        self.sums: dict[str, list[Tensor]] = {}
        self.count = 0

    def add(self, recorder: dict[str, Stats], weight: int) -> None:
        self.count += weight
        for name, stats in recorder.items():
            held = self.sums.setdefault(name, [torch.zeros_like(s) for s in stats])
            for total, value in zip(held, stats, strict=True):
                total += value * weight

    def entry(self) -> dict[str, Stats]:
        return {name: (mean / self.count, variance / self.count) for name, (mean, variance) in self.sums.items()}


@torch.no_grad()
def calibrate_encoders(
    model: GFNet, batches: Iterable[tuple[Tensor, Tensor, Tensor]], choose: Callable[[int], Chooser]
) -> None:
    """Give both encoders statistics of what they see: glances, and the patches that `choose` places.

    Args:
        batches: glances, pictures and labels as deployment sees them.
        choose: number of the batch -> a fresh chooser.
    Raises:
        ValueError: there is no batch.
    """
    model.eval()
    glance, focus = _Average(), _Average()
    for number, (glances, pictures, _) in enumerate(batches):
        chooser = choose(number)
        feature_map = _record(model.glance, glances, glance)
        for _ in range(1, model.design.steps):
            patches = cut_patches(pictures, chooser(feature_map), model.design.patch)
            feature_map = _record(model.focus, patches, focus)
    if glance.count == 0:
        raise ValueError("calibration: no pictures; give norm_pictures at least one")
    model.glance.norms.entries = {ENTRY: glance.entry()}
    model.focus.norms.entries = {ENTRY: focus.entry()}


def _record(encoder: Encoder, x: Tensor, average: _Average) -> Tensor:
    recorder: dict[str, Stats] = {}
    _, feature_map = encoder(x, recorder)
    average.add(recorder, len(x))
    return feature_map


@torch.no_grad()
def look_logits(
    model: GFNet, views: Views, split: Split, kind: str = "policy", variant: int = 0
) -> tuple[Tensor, Tensor]:
    """The answers after each look, as deployment gives them.

    Args:
        kind: how patches are placed, one of CONTROLS.
        variant: which scene of each picture, as `Views.evaluation`.
    Returns:
        logits (steps, pictures, classes) float32 on the CPU, and labels (pictures,) int64.
    """
    model.eval()
    device = next(model.parameters()).device
    answers, labels = [], []
    for number, (glances, pictures, right) in enumerate(views.batches(split, device, variant=variant)):
        looks = model.looks(glances, pictures, make_chooser(kind, model, number, glances))
        answers.append(torch.stack([look.logits.float().cpu() for look in looks]))
        labels.append(right.cpu())
    return torch.cat(answers, 1), torch.cat(labels)


def evaluate_looks(
    model: GFNet, views: Views, splits: Mapping[str, Split], kinds: Iterable[str] = CONTROLS
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Accuracy after each look, for each way to place patches; and the policy's answers for solving exits.

    Returns:
        rows with patches, step, madds and "<split>_accuracy"; and arrays "<split>/logits" (steps, pictures, classes)
        float32 and "<split>/labels" of the first kind.
    """
    rows: list[dict[str, Any]] = []
    kept: dict[str, np.ndarray] = {}
    madds = step_madds(model.design, model.glance.head.weight.shape[0])
    for position, kind in enumerate(kinds):
        found = {name: look_logits(model, views, split, kind) for name, split in splits.items() if len(split)}
        for step in range(model.design.steps):
            row: dict[str, Any] = {"patches": kind, "step": step + 1, "madds": madds[step]}
            for name, (logits, labels) in found.items():
                row[f"{name}_accuracy"] = float((logits[step].argmax(1) == labels).double().mean())
            rows.append(row)
        if position == 0:
            for name, (logits, labels) in found.items():
                kept[f"{name}/logits"], kept[f"{name}/labels"] = logits.numpy(), labels.numpy()
    return rows, kept
