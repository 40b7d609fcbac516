"""Multiply-adds of convolutions and matrix products; one multiply with its addition counts as one."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_madds(model: nn.Module, *input_shapes: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass.

    Args:
        model: any module; it is run once on zeros.
        input_shapes: with the batch axis, normally of size 1.
    Returns:
        half of torch's FLOP count. Norms, activations, pooling and interpolation are not counted.
    """
    device = next(model.parameters()).device
    inputs = [torch.zeros(shape, device=device) for shape in input_shapes]
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    return int(counter.get_total_flops() // 2)
