"""The optimisers that a recipe may name, what they decay, and the learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from zoo.slim_layers import SlimConv

OptimizerMaker = Callable[[list[dict[str, Any]], float, float], Optimizer]
"""(parameter groups, learning rate, momentum) -> optimiser."""


def _sgd(groups: list[dict[str, Any]], learning_rate: float, momentum: float) -> Optimizer:
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def _adamw(groups: list[dict[str, Any]], learning_rate: float, momentum: float) -> Optimizer:
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(momentum, 0.999))


OPTIMIZERS: dict[str, OptimizerMaker] = {"sgd": _sgd, "adamw": _adamw}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No decay on norms, biases and depthwise convolutions."""
    depthwise = {
        id(m.weight) for m in model.modules() if isinstance(m, SlimConv) and not isinstance(m.groups, int)
    }  # fmt: skip
    decayed = [p for p in model.parameters() if p.dim() > 1 and id(p) not in depthwise]
    chosen = {id(p) for p in decayed}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def set_cosine_rate(optimizer: Optimizer, largest: float, step: int, total: int, warmup_steps: int = 0) -> None:
    """Cosine from `largest` to zero over `total` steps, after a linear warm-up."""
    rate = largest * 0.5 * (1.0 + math.cos(math.pi * step / total))
    if step < warmup_steps:
        rate = largest * (step + 1) / warmup_steps
    for group in optimizer.param_groups:
        group["lr"] = rate
