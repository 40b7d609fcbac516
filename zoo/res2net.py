"""Res2Net and Res2NeXt: several receptive fields inside one block (Gao et al. 2019, arXiv:1904.01169).

The channels between the two 1x1 convolutions are cut into `scale` groups; each group's 3x3 convolution also sees the
result of the group before, so the last one looks through several of them. Version 1b is the authors' later training
with the stem and shortcut of ResNet-D.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.resnet import Plan, ResNet, Site, average_shortcut, deep_stem
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv


class HierarchicalCore(nn.Module):
    """3x3 convolutions over `scale` channel groups, each fed by the one before; the last group passes through.

    In the first block of a stage the groups do not feed each other and the last one is average-pooled with the stride.
    Every group is a segment of the channels, so a narrow subnet keeps the order of its scales.

    Args:
        channels: all groups together; its segments divide by `scale`.
        groups: convolution groups inside each channel group (Res2NeXt's cardinality).
    Shapes: (N, channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: Channels, site: Site, scale: int, groups: int = 1) -> None:
        super().__init__()
        part = Channels(channels.base, channels.divisor).repeated(groups)
        self.scale, self.first = scale, site.first
        self.convolutions = nn.ModuleList(
            SlimConv(part, part, 3, stride=site.stride, groups=groups) for _ in range(scale - 1)
        )
        self.norms = nn.ModuleList(SlimBatchNorm(part) for _ in range(scale - 1))
        self.pool = nn.AvgPool2d(3, stride=site.stride, padding=1) if site.first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = x.chunk(self.scale, 1)
        outputs: list[Tensor] = []
        for part, convolution, norm in zip(parts, self.convolutions, self.norms, strict=True):
            fed = part if self.first or not outputs else part + outputs[-1]
            outputs.append(F.relu(norm(convolution(fed))))
        return torch.cat([*outputs, self.pool(last)], 1)


def res2net_inner(planes: float, base_width: int, scale: int, groups: int = 1) -> Channels:
    """`scale` groups of planes * base_width / 64 channels (times the cardinality)."""
    return Channels(int(planes * base_width / 64), divisor=1).repeated(groups).repeated(scale)


def res2net_plan(base_width: int, scale: int, groups: int = 1, **slots: object) -> Plan:
    """A ResNet plan with hierarchical cores; `slots` are other fields of the plan."""
    return Plan(
        inner=partial(res2net_inner, base_width=base_width, scale=scale, groups=groups),
        core=partial(HierarchicalCore, scale=scale, groups=groups),
        **slots,
    )


_R50, _R101 = (3, 4, 6, 3), (3, 4, 23, 3)
_V1B = {"stem": deep_stem, "shortcut": average_shortcut}

VARIANTS = {
    "res2net50_48w_2s": partial(ResNet, plan=res2net_plan(48, 2), depths=_R50),
    "res2net50_26w_4s": partial(ResNet, plan=res2net_plan(26, 4), depths=_R50),
    "res2net50_14w_8s": partial(ResNet, plan=res2net_plan(14, 8), depths=_R50),
    "res2net50_26w_6s": partial(ResNet, plan=res2net_plan(26, 6), depths=_R50),
    "res2net50_26w_8s": partial(ResNet, plan=res2net_plan(26, 8), depths=_R50),
    "res2net101_26w_4s": partial(ResNet, plan=res2net_plan(26, 4), depths=_R101),
    "res2net50_v1b_26w_4s": partial(ResNet, plan=res2net_plan(26, 4, **_V1B), depths=_R50),
    "res2net101_v1b_26w_4s": partial(ResNet, plan=res2net_plan(26, 4, **_V1B), depths=_R101),
    "res2next50": partial(ResNet, plan=res2net_plan(4, 4, groups=8), depths=_R50),
}
