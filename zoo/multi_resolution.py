"""ResFormer's own training: each step shows the same pictures at every resolution (Tian et al. 2022, arXiv:2212.00776).

Each resolution learns the labels, and its class token is drawn to that of the next larger one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.mutual import PicturesAt, Subnet, labelled_loss
from zoo.resformer import ResFormer, scale_consistency


def accumulate_multi_resolution_gradients(
    model: ResFormer,
    pictures_at: PicturesAt,
    labels: Tensor,
    subnets: list[Subnet],
    *,
    label_smoothing: float = 0.0,
    backward: Callable[[Tensor], None] = lambda loss: loss.backward(),
) -> tuple[Tensor, Tensor]:
    """Run a step at every resolution, largest first, and add up the gradients.

    Args and returns as `zoo.mutual.accumulate_gradients`; the subnets are of one width and of falling resolution.
    """
    total, larger, first = torch.zeros((), device=labels.device), None, None
    for subnet in subnets:
        with model.at(subnet.width, subnet.resolution):
            token = model.forward_class_token(pictures_at(subnet.resolution))
            logits = model.classifier(token)
        loss = labelled_loss(logits, labels, label_smoothing)
        if larger is not None:
            loss = loss + scale_consistency([larger, token])
        backward(loss)
        total, larger = total + loss.detach(), token.detach()
        first = logits.detach() if first is None else first
    return total, first
