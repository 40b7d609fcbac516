"""Fold batch normalisation into the convolution before it, knowing which convolution belongs to which norm."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converters.errors import ConversionError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FOLD_TOLERANCE = 1e-3  # of the largest logit; float32 rounding of tens of layers stays below 1e-5


@dataclass(frozen=True)
class NormPair:
    """A convolution and the norm that reads its output, by module name."""

    convolution: str
    norm: str


@torch.no_grad()
def find_norm_pairs(model: nn.Module, picture: Tensor) -> list[NormPair]:
    """Run the model once and see which norm receives which convolution's output.

    Args:
        model: a plain module in eval mode.
        picture: an input (1, 3, H, W) or (1, 3, T, H, W).
    """
    producers: dict[int, str] = {}
    pairs: list[NormPair] = []
    kept: list[Tensor] = []  # so that no id is reused while the model runs
    handles = []

    def after_convolution(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            producers[id(output)] = name
            kept.append(output)

        return hook

    def before_norm(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            producer = producers.pop(id(inputs[0]), None)
            if producer is not None:
                pairs.append(NormPair(producer, name))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, NORMS):
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        model(picture)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def scale_and_shift(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Per output channel: norm(conv(x)) = conv_without_bias(x) * scale + shift; float64."""
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    return scale, shift


@torch.no_grad()
def fold_norms(model: nn.Module, pairs: list[NormPair], picture: Tensor) -> nn.Module:
    """A copy of the model whose paired norms are folded away.

    Raises:
        ConversionError: the folded model computes something else (a convolution's output has a second reader).
    """
    folded = copy.deepcopy(model)
    for pair in pairs:
        convolution, norm = folded.get_submodule(pair.convolution), folded.get_submodule(pair.norm)
        scale, shift = scale_and_shift(convolution, norm)
        weight = convolution.weight
        shape = (-1,) + (1,) * (weight.dim() - 1)
        weight.copy_((weight.double() * scale.view(shape)).float())
        convolution.bias = nn.Parameter(shift.float())
        parent = folded.get_submodule(pair.norm.rpartition(".")[0])
        setattr(parent, pair.norm.rpartition(".")[2], nn.Identity())
    before, after = model(picture), folded(picture)
    difference = float((before - after).abs().max() / before.abs().max().clamp(min=1e-6))
    if difference > FOLD_TOLERANCE:
        raise ConversionError(
            f"folding batch norms changes the output by {difference:.1e} of its largest value; "
            "a convolution's output is read twice: export this network without folding"
        )
    return folded
