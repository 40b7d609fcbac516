"""The optimisers that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

OptimizerMaker = Callable[[list[dict[str, Any]], float, float], Optimizer]
"""(parameter groups, learning rate, momentum) -> optimiser."""


def _sgd(groups: list[dict[str, Any]], learning_rate: float, momentum: float) -> Optimizer:
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def _adamw(groups: list[dict[str, Any]], learning_rate: float, momentum: float) -> Optimizer:
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(momentum, 0.999))


OPTIMIZERS: dict[str, OptimizerMaker] = {"sgd": _sgd, "adamw": _adamw}
