"""Train a part of a network's values while the rest stays: wide channels around a narrow subnet, or that subnet alone.

A subnet reads a prefix of the channels of each layer. Once it is good, wider subnets can learn with only what lies
beyond that prefix: "progressive shrinking" of Once-for-all (Cai et al. 2020, arXiv:1908.09791) turned round, from the
inside out, without a loss for the narrow one. Batch norms are not held: the wider subnets have scales and shifts of
their own, as in the first slimmable networks (Yu et al. 2019, arXiv:1812.08928). That costs nothing here: they can be
written as statistics (zoo.point_tuning), of which each operating point has its own anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.slim_layers import SlimBatchNorm, SlimError, SlimLayer, Stats
from zoo.slim_net import SlimNet

LEAST_SCALE = 0.01
"""Of its first value a scale never becomes less, so that it keeps its sign and can be written as statistics; a scale of
0 stays, and so does its shift."""
Norms = dict[str, tuple[Tensor, Tensor]]
"""Scale and shift of batch norms by layer name, each (channels at full width,)."""


class HeldSubnet:
    """Values that stay through any number of optimiser steps; where they are a subnet's, with the norms that it had.

    Call `mask_gradients` after the backward passes and `restore` after the optimiser's step, which may move held
    values by weight decay or by momentum from before; in the end `return_norms`.

    Args:
        model: a slimmable network; not changed.
        width: of the subnet that stays; None: no subnet does.
        norms: those of the subnet, when the training goes on and the model has others by now; None: the model's.
        widest: what no subnet of this width reads stays too.
        layers: names of layers that stay whole, with the layers inside them.
    Raises:
        SlimError: a layer computes new weights for a width, so that none of its parameters can be told to be read; or
            there is no layer of a name.
    """

    def __init__(
        self, model: SlimNet, width: float | None, norms: Norms | None = None, *, widest: float = 1.0,
        layers: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.width = width
        found = {n: m for n, m in model.named_modules() if isinstance(m, SlimBatchNorm)}
        self._layers = {} if width is None else found
        self.norms = norms or {n: (m.weight.detach().clone(), m.bias.detach().clone()) for n, m in self._layers.items()}
        of_norms = {f"{name}.{key}" for name in found for key in ("weight", "bias")}
        named = dict(model.named_parameters())
        masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in named.items()}
        if width is not None:
            masks.update((n, mask) for n, mask in read_parameters(model, width).items() if n not in of_norms)
        if widest < 1.0:
            masks.update((n, masks[n] | ~mask) for n, mask in read_parameters(model, widest).items())
        for layer in layers:
            inside = [name for name in named if name.startswith(f"{layer}.")]
            if not inside:
                raise SlimError(f"there is no layer {layer!r} with parameters in {type(model).__name__}")
            masks.update((name, torch.ones_like(masks[name])) for name in inside)
        kept = [(n, mask) for n, mask in masks.items() if bool(mask.any())]
        self._held = [(named[name], mask, named[name].detach().clone()) for name, mask in kept]

    def mask_gradients(self) -> None:
        """Set the gradients of what is held to zero, so that they do not count where gradients are clipped."""
        for parameter, mask, _ in self._held:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)

    @torch.no_grad()
    def restore(self) -> None:
        """Write the held values back, and keep the scales of the batch norms from 0."""
        for parameter, mask, value in self._held:
            parameter.copy_(torch.where(mask, value, parameter))
        for name, layer in self._layers.items():
            scale, shift = beside(self.norms[name], (layer.weight, layer.bias))
            layer.weight.copy_(scale)
            layer.bias.copy_(shift)

    @torch.no_grad()
    def return_norms(self, model: SlimNet) -> None:
        """Give the batch norms of the subnet back, and write those of the wider ones as statistics in the norm bank.

        Args:
            model: calibrated at wider points; those of the held width, and of narrower ones, come afterwards.
        """
        for entry in model.norm_bank.entries.values():
            for name, stats in entry.items():
                entry[name] = _rewritten(stats, self._layers[name], self.norms[name])
        for name, layer in self._layers.items():
            layer.weight.copy_(self.norms[name][0])
            layer.bias.copy_(self.norms[name][1])


def beside(first: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """New scales and shifts, (channels,) each, no further from the first ones than statistics can say (LEAST_SCALE)."""
    (scale, shift), (new_scale, new_shift) = first, new
    too_small = new_scale * scale < LEAST_SCALE * scale.square()
    kept = torch.where(too_small | (scale == 0.0), LEAST_SCALE * scale, new_scale)
    return kept, torch.where(scale == 0.0, shift, new_shift)


def _rewritten(stats: Stats, layer: SlimBatchNorm, shared: tuple[Tensor, Tensor]) -> Stats:
    """Statistics with which the shared scale and shift give what the layer's own give with the present ones."""
    mean, variance = stats
    active = len(mean)
    own_scale, own_shift = layer.weight[:active].cpu(), layer.bias[:active].cpu()
    scale, shift = (value[:active].cpu() for value in shared)
    live = own_scale != 0.0
    ratio = torch.where(live, scale / torch.where(live, own_scale, 1.0), 1.0)
    deviation = ((variance + layer.eps).sqrt() * ratio).clamp_min(layer.eps**0.5)
    back = torch.where(scale != 0.0, deviation / torch.where(scale != 0.0, scale, 1.0), 0.0)
    return mean - (own_shift - shift) * back, (deviation.square() - layer.eps).clamp_min(0.0)


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
