"""Pyramidal convolution: kernels of several sizes side by side (Duta et al. 2020, arXiv:2006.11538)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo.resnet import Plan, ResNet, Site
from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv

# stage -> (kernel size, groups, share of the output channels in quarters); larger kernels see fewer channels each
LEVELS = (
    ((3, 1, 1), (5, 4, 1), (7, 8, 1), (9, 16, 1)),
    ((3, 1, 1), (5, 4, 1), (7, 8, 2)),
    ((3, 1, 2), (5, 4, 2)),
    ((3, 1, 4),),
)
UNITS = 4  # the smallest number of groups beside 1: a width keeps whole groups, so it is a number of quarters


class PyramidalCore(nn.Module):
    """Convolutions of growing kernel and group count over the same input, concatenated.

    A narrow subnet has fewer groups of the same size, since the largest group counts leave one channel in each.

    Args:
        channels: from `pyramidal_inner`.
    Shapes: (N, channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: Channels, site: Site) -> None:
        super().__init__()
        self.levels, counts = nn.ModuleList(), []
        for kernel, groups, quarters in LEVELS[site.stage]:
            outputs = Channels(UNITS, divisor=1).times(channels.ratio // 4 * quarters)
            groups = min(groups, outputs.full)
            several = Channels(UNITS, divisor=1).times(groups // UNITS) if groups > 1 else 1
            self.levels.append(SlimConv(channels, outputs, kernel, stride=site.stride, groups=several))
            counts.append(outputs)
        self.outputs = Joined(tuple(counts))
        self.norm = SlimBatchNorm(self.outputs)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(torch.cat([level(x) for level in self.levels], 1)))


def pyramidal_inner(planes: float) -> Channels:
    """The stage's width in units that every level can divide (multiples of 16)."""
    return Channels(UNITS, divisor=1).times(max(1, round(planes / 16)) * 4)


def pooled_shortcut(inputs: Channels, outputs: Channels, stride: int) -> nn.Module:
    """Max pooling, then 1x1."""
    pool = nn.MaxPool2d(3, stride=stride, padding=1) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, SlimConv(inputs, outputs, 1), SlimBatchNorm(outputs))


PYCONV_PLAN = Plan(inner=pyramidal_inner, core=PyramidalCore, shortcut=pooled_shortcut, stem_pool=False)

VARIANTS = {"pyconv_resnet50": partial(ResNet, plan=PYCONV_PLAN)}
