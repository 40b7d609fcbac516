"""Networks of 3-D convolutions and pools in two dimensions, for engines that have no kernels for three.

A 3-D convolution is a sum over the taps of its temporal kernel, each a 2-D convolution of the frames that it meets;
a 3-D pooling is a spatial one of each frame, then a temporal one. The numbers are the same to rounding. ExecuTorch 1.5
has neither conv3d nor max_pool3d, and XNNPACK takes the 2-D ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clips import fold, unfold

Triple = tuple[int, int, int]


class UnsupportedClipLayerError(ValueError):
    """A 3-D layer that has no form in two dimensions here; the message names it."""


class TapConv(nn.Module):
    """A convolution of clips, (N, C, T, H, W) -> (N, C', T', H', W'), as 2-D convolutions of frames.

    Args:
        layer: with zero padding given in numbers.
    """

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.frames_step, *spatial_step = _triple(layer.stride)
        self.frames_pad, *spatial_pad = _triple(layer.padding)
        self.frames_dilation, *spatial_dilation = _triple(layer.dilation)
        self.taps = nn.ModuleList()
        for index in range(layer.kernel_size[0]):
            tap = nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size[1:], spatial_step, spatial_pad,
                spatial_dilation, layer.groups, bias=layer.bias is not None and index == 0,
            )  # fmt: skip
            tap.weight.data = layer.weight.data[:, :, index].clone()
            if tap.bias is not None:
                tap.bias.data = layer.bias.data.clone()
            self.taps.append(tap)

    def forward(self, clip: Tensor) -> Tensor:
        frames = F.pad(clip, (0, 0, 0, 0, self.frames_pad, self.frames_pad))
        starts = [index * self.frames_dilation for index in range(len(self.taps))]
        met = _windows(frames, starts, self.frames_step)
        terms = [tap(fold(part)) for tap, part in zip(self.taps, met, strict=True)]
        return unfold(reduce(torch.add, terms), met[0].shape[2]).transpose(1, 2)


class TapMaxPool(nn.Module):
    """The largest of each window of a clip, first within frames, then over frames."""

    def __init__(self, layer: nn.MaxPool3d) -> None:
        super().__init__()
        kernel, padding, dilation = (_triple(v) for v in (layer.kernel_size, layer.padding, layer.dilation))
        step = _triple(layer.stride)
        self.frames, self.frames_pad, self.frames_step, self.frames_dilation = (
            value[0] for value in (kernel, padding, step, dilation)
        )
        self.spatial = nn.MaxPool2d(kernel[1:], step[1:], padding[1:], dilation[1:], ceil_mode=False)

    def forward(self, clip: Tensor) -> Tensor:
        pooled = unfold(self.spatial(fold(clip)), clip.shape[2]).transpose(1, 2)
        if self.frames_pad:  # below every number there is, without infinities, which int8 cannot hold
            below = pooled.amin((2, 3, 4), keepdim=True).expand(-1, -1, self.frames_pad, *pooled.shape[3:])
            pooled = torch.cat([below, pooled, below], 2)
        starts = [index * self.frames_dilation for index in range(self.frames)]
        return reduce(torch.maximum, _windows(pooled, starts, self.frames_step))


class TapAveragePool(nn.Module):
    """The mean of each window of a clip, first within frames, then over frames; for windows without padding."""

    def __init__(self, layer: nn.AvgPool3d) -> None:
        super().__init__()
        kernel, step = _triple(layer.kernel_size), _triple(layer.stride)
        self.frames, self.frames_step = kernel[0], step[0]
        self.spatial = nn.AvgPool2d(kernel[1:], step[1:])

    def forward(self, clip: Tensor) -> Tensor:
        pooled = unfold(self.spatial(fold(clip)), clip.shape[2]).transpose(1, 2)
        return reduce(torch.add, _windows(pooled, list(range(self.frames)), self.frames_step)) / self.frames


class ClipMean(nn.Module):
    """The mean over frames and pixels, (N, C, 1, 1, 1)."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip.mean((2, 3, 4), keepdim=True)


def two_dimensional(model: nn.Module) -> nn.Module:
    """A copy of a network whose 3-D layers work in two dimensions; clips go in and out as before.

    Args:
        model: plain torch layers, in eval mode (`zoo.materialise` of a slimmable one).
    Raises:
        UnsupportedClipLayerError: a 3-D layer cannot be turned: padding in words, ceil mode, padded averages.
    """
    return _replaced(copy.deepcopy(model), type(model).__name__)


def _replaced(module: nn.Module, name: str) -> nn.Module:
    for kind, convert in CONVERTERS.items():
        if isinstance(module, kind):
            _require_plain(module, name)
            return convert(module)
    for child, inner in module.named_children():
        setattr(module, child, _replaced(inner, f"{name}.{child}"))
    return module


def _require_plain(layer: nn.Module, name: str) -> None:
    what = None
    if isinstance(layer, nn.Conv3d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        what = "padding other than zeros in numbers"
    elif isinstance(layer, nn.MaxPool3d | nn.AvgPool3d) and layer.ceil_mode:
        what = "ceil mode"
    elif isinstance(layer, nn.AvgPool3d) and (any(_triple(layer.padding)) or layer.divisor_override):
        what = "averages over padding"
    elif isinstance(layer, nn.AdaptiveAvgPool3d) and _triple(layer.output_size) != (1, 1, 1):
        what = "adaptive averages of more than one cell"
    if what is not None:
        raise UnsupportedClipLayerError(f"{name}: {what} has no form in two dimensions; rewrite this layer for export")


def _triple(value: int | tuple[int, ...]) -> Triple:
    if isinstance(value, int):
        return value, value, value
    first, second, third = value
    return first, second, third


def _windows(clip: Tensor, starts: list[int], step: int) -> list[Tensor]:
    """For each tap the frames that it meets, as many for all."""
    count = (clip.shape[2] - starts[-1] - 1) // step + 1
    return [clip[:, :, start : start + (count - 1) * step + 1 : step] for start in starts]


CONVERTERS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv3d: TapConv,
    nn.MaxPool3d: TapMaxPool,
    nn.AvgPool3d: TapAveragePool,
    nn.AdaptiveAvgPool3d: lambda layer: ClipMean(),
}
