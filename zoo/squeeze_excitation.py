"""Squeeze-and-Excitation: scale each channel by what the whole picture says (Hu et al. 2017, arXiv:1709.01507)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.resnet import Plan, ResNet
from zoo.slim_layers import Channels, SlimConv


class SqueezeExcitation(nn.Module):
    """Global mean, a bottleneck of two 1x1 convolutions, a sigmoid, and a product per channel.

    Args:
        channels: in and out.
        reduction: channels of the bottleneck are one in so many.
    Shapes: (N, channels, H, W) -> the same.
    """

    def __init__(self, channels: Channels, reduction: int = 16) -> None:
        super().__init__()
        hidden = Channels(channels.full // reduction, divisor=1)
        self.squeeze = SlimConv(channels, hidden, 1, bias=True)
        self.excite = SlimConv(hidden, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))


VARIANTS = {"se_resnet50": partial(ResNet, plan=Plan(gate=SqueezeExcitation))}
