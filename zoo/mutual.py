"""The training steps: MutualNet, US-Net and a single width, as plain functions that leave gradients behind.

MutualNet: Yang et al. 2020, arXiv:1909.12978. US-Net: Yu and Huang 2019, arXiv:1903.05134, with in-place distillation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.slim_net import Size, SlimNet

METHODS = ("mutualnet", "usnet", "single", "multiresolution")
PicturesAt = Callable[[Size], Tensor]
"""Size -> the batch at that size, (N, 3, H, W) or clips (N, 3, T, H, W), float, normalised, on the device."""


STRANGER = -1
"""The label of a picture of none of the classes."""


@dataclass(frozen=True)
class Subnet:
    """One forward pass of a training step."""

    width: float
    resolution: Size


def draw_subnets(
    method: str,
    widths: tuple[float, float],
    resolutions: Sequence[Size],
    draw: np.random.Generator,
    random_widths: int = 2,
    choices: Sequence[float] = (),
) -> list[Subnet]:
    """The forward passes of one step, the labelled one first.

    Args:
        method: one of METHODS.
        widths: smallest and largest width; "single" and "multiresolution" use the largest.
        resolutions: sides of pictures in pixels, or (frames, height, width) of clips; the largest is the labelled pass.
        draw: the step's own generator, equal on every process.
        random_widths: draws beside the smallest width.
        choices: widths to draw them from, each at most once; none: uniform between the ends, as published.
    """
    largest = Subnet(widths[1], max(resolutions))
    if method == "single":
        return [largest]
    if method == "multiresolution":
        return [Subnet(widths[1], r) for r in sorted(resolutions, reverse=True)]
    if choices:
        more = draw.choice(np.asarray(choices), min(random_widths, len(choices)), replace=False)
    else:
        more = draw.uniform(widths[0], widths[1], random_widths)
    drawn = sorted([widths[0], *more], reverse=True)
    if method == "usnet":
        return [largest, *(Subnet(float(w), largest.resolution) for w in drawn)]
    return [largest, *(Subnet(float(w), resolutions[int(draw.choice(len(resolutions)))]) for w in drawn)]


def labelled_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, where strangers have the uniform distribution as their target.

    Args:
        logits: (N, classes).
        labels: (N,) int64, a class or STRANGER.
    Returns:
        a scalar.
    """
    strange = labels == STRANGER
    if not bool(strange.any()):
        return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    known = F.cross_entropy(
        logits.float(), labels.where(~strange, 0), label_smoothing=label_smoothing, reduction="none"
    )
    return torch.where(strange, -logits.float().log_softmax(1).mean(1), known).mean()


def accumulate_gradients(
    model: SlimNet,
    pictures_at: PicturesAt,
    labels: Tensor,
    subnets: list[Subnet],
    *,
    label_smoothing: float = 0.0,
    teacher: SlimNet | None = None,
    backward: Callable[[Tensor], None] = lambda loss: loss.backward(),
) -> tuple[Tensor, Tensor]:
    """Run every subnet of a step and add up the gradients.

    The first subnet learns from the labels; the others from its detached softmax, or from the teacher's at the first
    subnet's point (an average of the weights over time, as in DS-Net, arXiv:2103.13258). Weights are equal.

    Args:
        labels: (N,) int64; STRANGER for a picture of none of the classes, whose target is every class alike (outlier
            exposure, Hendrycks et al. 2019, arXiv:1812.04606).
        backward: called with each loss; a gradient scaler goes here.
    Returns:
        the sum of the losses and the labelled subnet's logits (N, classes), both detached.
    """
    first = subnets[0]
    pictures = pictures_at(first.resolution)
    logits = model(pictures, first.width)
    loss = labelled_loss(logits, labels, label_smoothing)
    backward(loss)
    total = loss.detach()
    with torch.no_grad():
        target = (logits if teacher is None else teacher(pictures, first.width)).float().softmax(1).detach()
    for subnet in subnets[1:]:
        student = model(pictures_at(subnet.resolution), subnet.width)
        loss = F.kl_div(student.float().log_softmax(1), target, reduction="batchmean")
        backward(loss)
        total = total + loss.detach()
    return total, logits.detach()


def accumulate_labelled_gradients(
    model: SlimNet,
    pictures_at: PicturesAt,
    labels: Tensor,
    subnets: list[Subnet],
    *,
    label_smoothing: float = 0.0,
    backward: Callable[[Tensor], None] = lambda loss: loss.backward(),
) -> tuple[Tensor, Tensor]:
    """Run every subnet of a step without the full net; each learns from the labels.

    Args and returns as `accumulate_gradients`.
    """
    total, first = torch.zeros((), device=labels.device), None
    for subnet in subnets:
        logits = model(pictures_at(subnet.resolution), subnet.width)
        loss = labelled_loss(logits, labels, label_smoothing)
        backward(loss)
        total = total + loss.detach()
        first = logits.detach() if first is None else first
    return total, first


def accumulate_taught_gradients(
    model: SlimNet,
    pictures_at: PicturesAt,
    labels: Tensor,
    subnets: list[Subnet],
    *,
    teacher: Callable[[Tensor], Tensor],
    teacher_resolution: Size,
    share: float,
    label_smoothing: float = 0.0,
    backward: Callable[[Tensor], None] = lambda loss: loss.backward(),
) -> tuple[Tensor, Tensor]:
    """Run every subnet of a step, the full net if it is among them, and let each learn from a teacher that stays.

    The teacher sees the same crop as its students, as in Beyer et al. 2022, arXiv:2106.05237.

    Args:
        teacher: pictures (N, 3, H, W) -> logits (N, classes); no gradient flows into it.
        teacher_resolution: size of its pictures.
        share: of the loss that is the divergence from the teacher's answer, 0-1; the labels give the rest.
    Other arguments and returns as `accumulate_gradients`.
    """
    with torch.no_grad():
        target = teacher(pictures_at(teacher_resolution)).float().softmax(1)
    total, first = torch.zeros((), device=labels.device), None
    for subnet in subnets:
        logits = model(pictures_at(subnet.resolution), subnet.width)
        taught = F.kl_div(logits.float().log_softmax(1), target, reduction="batchmean")
        loss = share * taught + (1.0 - share) * labelled_loss(logits, labels, label_smoothing)
        backward(loss)
        total = total + loss.detach()
        first = logits.detach() if first is None else first
    return total, first
