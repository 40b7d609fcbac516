"""Backbones of SFNet: dilated ResNet-D (arXiv:1812.01187), DFNet (arXiv:1903.03777) and STDC (arXiv:2104.13188).

Each is a stem and stages without a classifier; the features behind the stages are what the segmentation heads read.
Every layer is slimmable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.resnet import BasicBlock, Block, Bottleneck, Plan, Site, deep_stem
from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv

DILATIONS = {2: 2, 3: 4}  # of the block's second convolution, by stage; the strides stay, so the total is 32
STAGE_PLANES = (64, 128, 256, 512)
STDC_PLANES = (256, 512, 1024)
Counts = tuple[Channels, ...]
"""Channel counts that lie behind each other in one axis."""


@dataclass(frozen=True)
class Backbone:
    """A feature extractor in parts."""

    stem: nn.Module
    stages: Sequence[nn.Module]
    channels: Sequence[Counts]
    """What each stage gives."""
    strides: Sequence[int]
    """Picture pixels per feature pixel behind each stage."""


def convolution_norm_relu(
    inputs: Channels | Joined | int, outputs: Channels, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """A convolution without bias, batch norm, ReLU.

    Shapes: (N, inputs, H, W) float -> (N, outputs, ceil(H / stride), ceil(W / stride)).
    """
    return nn.Sequential(
        SlimConv(inputs, outputs, kernel_size, stride=stride), SlimBatchNorm(outputs), nn.ReLU(inplace=True)
    )


class DilatedBasicBlock(BasicBlock):
    """The two 3x3 convolutions of ResNet-18, the second one dilated in stages 3 and 4."""

    def __init__(self, plan: Plan, inputs: Channels, planes: float, outputs: Channels, site: Site) -> None:
        super().__init__(plan, inputs, planes, outputs, site)
        second = 3  # behind convolution, norm and ReLU
        self.body[second] = SlimConv(outputs, outputs, 3, dilation=DILATIONS.get(site.stage, 1))


def dilated_core(channels: Channels, site: Site) -> nn.Module:
    """The 3x3 convolution of a bottleneck with the block's stride, dilated in stages 3 and 4."""
    dilation = DILATIONS.get(site.stage, 1)
    return nn.Sequential(
        SlimConv(channels, channels, 3, stride=site.stride, dilation=dilation),
        SlimBatchNorm(channels),
        nn.ReLU(inplace=True),
    )


class ShortTermBlock(nn.Module):
    """STDC's block: a 1x1 and three 3x3 convolutions in a row, ever narrower, whose results are concatenated.

    With stride 2 the first result is halved by a depthwise convolution on the way to the second one, and by average
    pooling on the way to the output.

    Args:
        inputs: channel counts of the input.
        planes: channels of the output: a half, a quarter and twice an eighth of it.
        stride: 1 or 2.
    Shapes: (N, inputs, H, W) float -> (N, planes, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, inputs: Counts, planes: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = (Channels(planes // share) for share in (2, 4, 8))
        self.outputs: Counts = (half, quarter, eighth, eighth)
        self.first = convolution_norm_relu(Joined(inputs), half, 1)
        self.halve: nn.Module = nn.Identity()
        self.pool: nn.Module = nn.Identity()
        if stride == 2:
            self.halve = nn.Sequential(SlimConv(half, half, 3, stride=2, groups=half), SlimBatchNorm(half))
            self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.following = nn.ModuleList(
            convolution_norm_relu(fed, given, 3)
            for fed, given in ((half, quarter), (quarter, eighth), (eighth, eighth))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        results, x = [self.pool(x)], self.halve(x)
        for convolution in self.following:
            x = convolution(x)
            results.append(x)
        return torch.cat(results, 1)


def resnet_d_backbone(
    in_channels: int, width_mult: float, *, depths: Sequence[int], bottleneck: bool = False
) -> Backbone:
    """ResNet behind three 3x3 convolutions; stages 3 and 4 keep their strides and are dilated.

    Args:
        in_channels: channels of the picture.
        width_mult: multiplies every channel count.
        depths: blocks in each of the four stages.
        bottleneck: 1x1, 3x3, 1x1 blocks (ResNet-50 and deeper) instead of two 3x3.
    """
    plan = Plan(block=Bottleneck if bottleneck else DilatedBasicBlock, core=dilated_core)
    channels = Channels(round(128 * width_mult))
    stem = nn.Sequential(deep_stem(in_channels, channels, small_input=False), nn.MaxPool2d(3, stride=2, padding=1))
    stages, counts = [], []
    for stage, (planes, depth) in enumerate(zip(STAGE_PLANES, depths, strict=True)):
        blocks, channels = _residual_stage(plan, channels, planes * width_mult, depth, stage, 2 if stage else 1)
        stages.append(blocks)
        counts.append((channels,))
    return Backbone(stem, stages, counts, [4, 8, 16, 32])


def dfnet_backbone(
    in_channels: int, width_mult: float, *, groups: Sequence[Sequence[tuple[int, int, int]]], strides: Sequence[int]
) -> Backbone:
    """DFNet: two strided 3x3 convolutions, then groups of basic blocks.

    Args:
        in_channels: channels of the picture.
        width_mult: multiplies every channel count.
        groups: for the rest of the stem and for each stage, rows of (channels, blocks, stride of the first block).
        strides: picture pixels per feature pixel behind each stage.
    """
    half, channels = Channels(round(32 * width_mult)), Channels(round(64 * width_mult))
    start = (convolution_norm_relu(in_channels, half, 3, 2), convolution_norm_relu(half, channels, 3, 2))
    parts, counts = [], []
    for rows in groups:
        blocks = []
        for planes, depth, stride in rows:
            block, channels = _residual_stage(Plan(block=BasicBlock), channels, planes * width_mult, depth, 0, stride)
            blocks.append(block)
        parts.append(nn.Sequential(*blocks))
        counts.append((channels,))
    return Backbone(nn.Sequential(*start, parts[0]), parts[1:], counts[1:], strides)


def stdc_backbone(in_channels: int, width_mult: float, *, depths: Sequence[int]) -> Backbone:
    """STDC without its classifier: two strided 3x3 convolutions, then three stages of short-term blocks.

    Args:
        in_channels: channels of the picture.
        width_mult: multiplies every channel count.
        depths: blocks in each of the last three stages.
    """
    half, whole = Channels(round(32 * width_mult)), Channels(round(64 * width_mult))
    stages: list[nn.Module] = [convolution_norm_relu(half, whole, 3, 2)]
    counts: list[Counts] = [(whole,)]
    for planes, depth in zip(STDC_PLANES, depths, strict=True):
        channels, blocks = counts[-1], []
        for index in range(depth):
            block = ShortTermBlock(channels, round(planes * width_mult), 1 if index else 2)
            channels = block.outputs
            blocks.append(block)
        stages.append(nn.Sequential(*blocks))
        counts.append(channels)
    return Backbone(convolution_norm_relu(in_channels, half, 3, 2), stages, counts, [4, 8, 16, 32])


def _residual_stage(
    plan: Plan, inputs: Channels, planes: float, depth: int, stage: int, stride: int
) -> tuple[nn.Module, Channels]:
    """Blocks of one stage and the channels that they give."""
    outputs = Channels(round(planes)).times(plan.block.expansion)
    blocks: list[Block] = []
    for index in range(depth):
        site = Site(stage, index == 0, 1 if index else stride)
        blocks.append(plan.block(plan, inputs if index == 0 else outputs, planes, outputs, site))
    return nn.Sequential(*blocks), outputs
