"""Quantization-aware training: convolutions see weights and inputs rounded as int8 will round them.

Jacob et al. 2018, arXiv:1712.05877, with straight-through gradients. The rounding is that of the converters: one scale
for each output channel of the *full* weight, before normalisation is folded, so that every width trains with a prefix
of the very integers that the bundle will store. Differs from the paper: the range of an input is that of the batch, not
a running average, since a subnet's activations belong to one (width, resolution); and norms are not folded while
training, because folding changes the scale of a channel and not its integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.slim_layers import SlimConv

LEVELS = 255


def round_weight(weight: Tensor, largest: int = 127) -> Tensor:
    """The weight as its int8 form represents it.

    Args:
        weight: (outputs, ...) float; not folded.
        largest: largest magnitude of an integer: 127, or 63 for processors whose 16-bit sums saturate.
    Returns:
        the same shape; each output channel a multiple of its own scale. The gradient passes where nothing was cut off.
    """
    scale = (weight.detach().float().flatten(1).abs().amax(1) / largest).clamp(min=1e-12)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -largest, largest)


@torch.no_grad()
def round_weights(model: nn.Module, largest: int = 127) -> None:
    """Round the weights of every `SlimConv` for good; doing it again changes nothing but the last bit."""
    for layer in model.modules():
        if isinstance(layer, SlimConv):
            layer.weight.copy_(round_weight(layer.weight, largest))


def round_activation(x: Tensor) -> Tensor:
    """Activations on the 256 steps between the smallest and the largest of this batch; zero stays exact.

    Args:
        x: any shape, float.
    Returns:
        the same shape. The gradient passes everywhere, since the range leaves nothing out.
    """
    return _RoundActivation.apply(x)


class _RoundActivation(torch.autograd.Function):
    """Passes over memory that are vectorised; torch's own fake quantization of a tensor takes 2.4 times as long."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        # aminmax would copy a channels-last tensor first
        ends = torch.aminmax(x.permute(0, 2, 3, 1) if x.dim() == 4 else x)
        low, high = ends.min.float().clamp(max=0.0), ends.max.float().clamp(min=0.0)
        scale = ((high - low) / LEVELS).clamp(min=1e-8)
        zero_point = torch.round(-low / scale)
        steps = torch.round_(x * (1.0 / scale))
        return steps.clamp_(-zero_point, LEVELS - zero_point).mul_(scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


@contextmanager
def quantization_aware(model: nn.Module, largest: int = 127) -> Iterator[None]:
    """Inside, every `SlimConv` of the model computes with rounded weights and inputs; the stored weights stay float.

    Linear layers stay float, as in the converters.

    Args:
        model: a slimmable network.
        largest: of an integer weight.
    """
    layers = [m for m in model.modules() if isinstance(m, SlimConv)]
    with ExitStack() as stack:
        for layer in layers:
            layer.weight_rounding = lambda weight: round_weight(weight, largest)
            stack.callback(setattr, layer, "weight_rounding", None)
            stack.callback(layer.register_forward_pre_hook(_round_input).remove)
        yield


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (round_activation(inputs[0]), *inputs[1:])
