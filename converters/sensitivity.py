"""Which convolutions suffer most from int8, found by quantizing one at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from converters.norm_folding import CONVOLUTIONS


def squared_change(reference: Tensor, found: Tensor) -> float:
    """Mean squared difference of two outputs of one shape."""
    return float((found - reference).square().mean())


@torch.no_grad()
def rank_layers(
    folded: nn.Module, pictures: Tensor, largest: int, change: Callable[[Tensor, Tensor], float] = squared_change
) -> list[tuple[str, float]]:
    """Convolutions with the damage that quantizing each alone does, worst first.

    Args:
        folded: the float subnet, norms folded, in eval mode; it is not changed.
        pictures: (N, 3, H, W) or clips (N, 3, T, H, W) float32, real ones.
        largest: largest magnitude of an integer weight.
        change: of outputs, reference first.
    Returns:
        (module name, change of the outputs).
    """
    reference = folded(pictures)
    ranked = []
    for name, module in folded.named_modules():
        if isinstance(module, CONVOLUTIONS):
            ranked.append((name, _damage(folded, module, pictures, reference, largest, change)))
    return sorted(ranked, key=lambda row: -row[1])


def _damage(
    model: nn.Module, layer: nn.Module, pictures: Tensor, reference: Tensor, largest: int,
    change: Callable[[Tensor, Tensor], float],
) -> float:  # fmt: skip
    weight = layer.weight.data
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / largest
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    handles = [
        layer.register_forward_pre_hook(lambda module, inputs: (_rounded(inputs[0]),)),
        layer.register_forward_hook(lambda module, inputs, output: _rounded(output)),
    ]
    try:
        layer.weight.data = torch.round(weight / scale) * scale
        return change(reference, model(pictures))
    finally:
        layer.weight.data = weight
        for handle in handles:
            handle.remove()


def _rounded(x: Tensor) -> Tensor:
    """Through 256 levels between the smallest and the largest value."""
    low, high = x.amin().clamp(max=0.0), x.amax().clamp(min=0.0)
    step = ((high - low) / 255).clamp(min=1e-8)
    return torch.round((x - low) / step) * step + low
