"""Train wide channels while the narrow subnet inside them stays as it is.

A subnet reads a prefix of the channels of each layer. Once it is good, wider subnets can learn with only what lies
beyond that prefix: "progressive shrinking" of Once-for-all (Cai et al. 2020, arXiv:1908.09791) turned round, from the
inside out, without a loss for the narrow one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from zoo.slim_layers import SlimError, SlimLayer
from zoo.slim_net import SlimNet


class HeldSubnet:
    """The parameters that one width reads, kept at their present values through any number of optimiser steps.

    Call `mask_gradients` after the backward passes and `restore` after the optimiser's step, which may move held
    values by weight decay or by momentum from before.

    Args:
        model: a slimmable network; not changed.
        width: of the subnet that stays.
    Raises:
        SlimError: a layer computes new weights for a width, so that none of its parameters can be told to be read.
    """

    def __init__(self, model: SlimNet, width: float) -> None:
        self.width = width
        masks = read_parameters(model, width)
        named = dict(model.named_parameters())
        self._held = [(named[name], mask, named[name].detach().clone()) for name, mask in masks.items()]

    def mask_gradients(self) -> None:
        """Set the gradients of what is held to zero, so that they do not count where gradients are clipped."""
        for parameter, mask, _ in self._held:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """Write the held values back."""
        for parameter, mask, value in self._held:
            parameter.copy_(torch.where(mask, value, parameter))


def read_parameters(model: SlimNet, width: float) -> dict[str, Tensor]:
    """Which entries of each parameter the subnet of this width reads.

    Returns:
        name -> bool of the parameter's shape and device; parameters outside slimmable layers are read by every width.
    Raises:
        SlimError: as `HeldSubnet`.
    """
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in model.named_parameters()}
    inside = ""
    for name, module in model.named_modules():
        if isinstance(module, SlimLayer) and not (inside and name.startswith(inside)):
            inside = f"{name}."
            masks.update({inside + key: mask for key, mask in _read_in_layer(module, width, name).items()})
    return masks


@torch.no_grad()
def _read_in_layer(layer: SlimLayer, width: float, name: str) -> dict[str, Tensor]:
    """Number the layer's parameters from 1 on, materialise it, and see which numbers arrive."""
    numbered = copy.deepcopy(layer).double()
    parameters, count = dict(numbered.named_parameters()), 0
    for parameter in parameters.values():
        numbers = torch.arange(count + 1, count + parameter.numel() + 1, device=parameter.device)
        parameter.copy_(numbers.view(parameter.shape))
        count += parameter.numel()
    arrived = [value.flatten() for value in _numbered_parts(numbered.materialise(width))]
    found = torch.cat(arrived).round().long() if arrived else torch.zeros(0, dtype=torch.long)
    if len(found) and (found.min() < 1 or found.max() > count or len(found.unique()) != len(found)):
        raise SlimError(f"{name}: computes its weights anew for width {width}; it cannot be held while others train")
    read = torch.zeros(count + 1, dtype=torch.bool, device=found.device)
    read[found] = True
    return {key: read[value.round().long()] for key, value in parameters.items()}


def _numbered_parts(plain: nn.Module) -> list[Tensor]:
    return [value for value in plain.parameters() if value.is_floating_point()]
