"""SDA-xNet: selective depth attention, a softmax over the blocks of a stage (Guo et al. 2022, arXiv:2209.10327).

All blocks of a stage see one resolution but grow in receptive field. The stage's output is their sum, weighted per
channel by what the whole picture says: an attention over depth, beside those over space, channels and branches. It is
a stage wrapper, so every block that can give its sum before the activation takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.pyconv import PYCONV_PLAN
from zoo.res2net import res2net_plan
from zoo.resnet import Block, Plan, ResNet, convolution_core
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv
from zoo.squeeze_excitation import SqueezeExcitation


class DepthAttention(nn.Module):
    """Weights that sum to one over the blocks of a stage, for each channel.

    Args:
        channels: of the stage.
        depth: blocks.
        reduction, smallest: the hidden layer has channels / reduction, but not fewer than `smallest`.
    Shapes: depth tensors (N, channels, H, W) -> (depth, N, channels, 1, 1).
    """

    def __init__(self, channels: Channels, depth: int, reduction: int = 16, smallest: int = 64) -> None:
        super().__init__()
        hidden = Channels(max(channels.full // reduction, smallest))
        self.reduce, self.norm = SlimConv(channels, hidden, 1), SlimBatchNorm(hidden)
        self.select = nn.ModuleList(SlimConv(hidden, channels, 1, bias=True) for _ in range(depth))

    def forward(self, sums: Sequence[Tensor]) -> Tensor:
        total = sums[0]
        for x in sums[1:]:
            total = total + x
        hidden = F.relu(self.norm(self.reduce(total.mean((2, 3), keepdim=True))))
        return torch.stack([select(hidden) for select in self.select]).softmax(0)


class DepthAttentionStage(nn.Module):
    """The blocks of a stage and the attention over them; every block's output stays in memory until the end.

    Shapes: (N, C, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(self, blocks: Sequence[Block], channels: Channels) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = DepthAttention(channels, len(blocks))

    def forward(self, x: Tensor) -> Tensor:
        sums: list[Tensor] = []
        for block in self.blocks:
            sums.append(block.residual_sum(x))
            x = F.relu(sums[-1])
        weights = self.attention(sums)
        selected = sums[0] * weights[0]
        for depth, one in enumerate(sums[1:], start=1):
            selected = selected + one * weights[depth]
        return F.relu(selected)


GROUPS = 8  # of the 3x3 in SDA-ResNet; not in the paper's text, its parameter count fits no other


def grouped_inner(planes: float) -> Channels:
    """The stage's width in as many segments as groups."""
    return Channels(round(planes / GROUPS), divisor=1).repeated(GROUPS)


def _with_depth_attention(plan: Plan) -> Plan:
    return replace(plan, stage=DepthAttentionStage, pooled_norm=True)


_GROUPED = Plan(inner=grouped_inner, core=partial(convolution_core, groups=GROUPS))
_DEPTHS = (5, 6, 12, 5)

VARIANTS = {
    "SDA-ResNet-86": partial(ResNet, plan=_with_depth_attention(_GROUPED), depths=_DEPTHS),
    "SDA-Res2Net-86": partial(ResNet, plan=_with_depth_attention(res2net_plan(26, 4)), depths=_DEPTHS),
    "SDA-SENet-86": partial(ResNet, plan=_with_depth_attention(Plan(gate=SqueezeExcitation)), depths=_DEPTHS),
    "SDA-PyConv-86": partial(ResNet, plan=_with_depth_attention(PYCONV_PLAN), depths=_DEPTHS),
}
