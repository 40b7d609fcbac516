"""Slimmable parts beside convolutions: a bare parameter and layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimLayer, Stats, as_channels, current_width


class SlimParameter(SlimLayer):
    """A tensor with a channel count per axis; calling it gives the active part.

    Blocks that own a bare tensor (layer scale, class token, dynamic kernels) keep it in one of these, so that they
    need not know about widths.

    Args:
        value: at full width; becomes the parameter.
        axes: a count for each axis, an int is fixed.
    """

    def __init__(self, value: Tensor, *axes: Channels | int) -> None:
        super().__init__()
        self.axes = tuple(as_channels(axis) for axis in axes)
        self.weight = nn.Parameter(value)

    def active(self, width: float) -> Tensor:
        """A view (or a copy, where segments are slimmed) of what is used at `width`."""
        tensor = self.weight
        for axis, count in enumerate(self.axes):
            tensor = count.take(tensor, width, axis)
        return tensor

    def forward(self) -> Tensor:
        return self.active(current_width())

    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """The same with a copy of the active part."""
        return PlainParameter(self.active(width).detach().clone())


class PlainParameter(nn.Module):
    """A tensor that is a module, as `SlimParameter` leaves it after materialising."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def forward(self) -> Tensor:
        return self.weight


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over channels that are the last axis, or the second one (`channels_first`)."""

    def __init__(self, channels: int, eps: float, channels_first: bool) -> None:
        super().__init__(channels, eps=eps)
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps, self.channels_first)


class SlimLayerNorm(SlimLayer):
    """Layer normalisation over the active channels.

    It normalises every position by its own statistics, so it needs no calibration and no norm bank.

    Args:
        channels: an int is fixed.
        channels_first: (N, C, H, W) instead of (..., C).
    """

    def __init__(self, channels: Channels | int, *, eps: float = 1e-6, channels_first: bool = False) -> None:
        super().__init__()
        self.channels, self.eps, self.channels_first = as_channels(channels), eps, channels_first
        self.weight = nn.Parameter(torch.ones(self.channels.full))
        self.bias = nn.Parameter(torch.zeros(self.channels.full))

    def forward(self, x: Tensor) -> Tensor:
        width = current_width()
        weight, bias = self.channels.take(self.weight, width), self.channels.take(self.bias, width)
        return layer_norm(x, weight, bias, self.eps, self.channels_first)

    @torch.no_grad()
    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """A plain layer norm with copies of the active affine pair."""
        plain = LayerNorm(self.channels.at(width), self.eps, self.channels_first).to(self.weight.device)
        plain.weight.copy_(self.channels.take(self.weight, width))
        plain.bias.copy_(self.channels.take(self.bias, width))
        return plain

    def extra_repr(self) -> str:
        return f"{self.channels.full}, eps={self.eps}"


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, channels_first: bool) -> Tensor:
    """Normalise each position over its channels."""
    if not channels_first:
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps).permute(0, 3, 1, 2)
