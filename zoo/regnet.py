"""RegNetY, slimmable by whole groups (Radosavovic et al. 2020, arXiv:2003.13678); widths as MutualNet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

STEM_CHANNELS = 32
EXCITE_SHARE = 0.25  # of the block's input channels


@dataclass(frozen=True)
class Design:
    """The paper's parameters of a network: block j is w_0 + w_a j channels wide, rounded to powers of w_m."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int

    def stages(self) -> list[tuple[int, int]]:
        """(channels, blocks) of each stage; channels are whole groups."""
        widths = []
        for block in range(self.depth):
            power = round(math.log((self.w_0 + self.w_a * block) / self.w_0) / math.log(self.w_m))
            eights = round(self.w_0 * self.w_m**power / 8) * 8
            widths.append(round(eights / self.group_width) * self.group_width)
        return [(width, len(list(blocks))) for width, blocks in groupby(widths)]


DESIGNS = {
    "600m": Design(15, 48, 32.54, 2.32, 16),
    "800m": Design(14, 56, 38.84, 2.4, 16),
    "1.6g": Design(27, 48, 20.71, 2.65, 24),
}


class Excite(nn.Module):
    """Squeeze-and-excitation whose bottleneck follows the *block's input*, not the channels that it scales."""

    def __init__(self, block_inputs: Channels, channels: Channels) -> None:
        super().__init__()
        reduced = Channels(round(block_inputs.full * EXCITE_SHARE), divisor=1)
        self.squeeze = SlimConv(channels, reduced, 1, bias=True)
        self.excite = SlimConv(reduced, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))


class GroupBottleneck(nn.Module):
    """1x1, grouped 3x3, squeeze-excite, 1x1, all of one width; a narrower subnet keeps the first groups.

    Args:
        inputs, outputs: channels; the outputs are whole groups at every width.
        group_width: channels of a group.
        stride: of the 3x3 convolution and the shortcut.
    """

    def __init__(self, inputs: Channels, outputs: Channels, group_width: int, stride: int) -> None:
        super().__init__()
        groups = Channels(outputs.base // group_width, divisor=1)
        self.body = nn.Sequential(
            SlimConv(inputs, outputs, 1),
            SlimBatchNorm(outputs),
            nn.ReLU(inplace=True),
            SlimConv(outputs, outputs, 3, stride=stride, groups=groups),
            SlimBatchNorm(outputs),
            nn.ReLU(inplace=True),
            Excite(inputs, outputs),
            SlimConv(outputs, outputs, 1),
            SlimBatchNorm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(SlimConv(inputs, outputs, 1, stride=stride), SlimBatchNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class RegNet(SlimNet):
    """RegNetY at any width.

    Args:
        num_classes: class scores; not slimmed.
        design: a key of DESIGNS.
        width_mult: multiplies every channel count, in whole groups (a smaller full network).
        depths: blocks in each stage; the design's when None.
        small_input: stride 1 in the stem, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    Raises:
        ValueError: the design is unknown.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        design: str = "600m",
        width_mult: float = 1.0,
        depths: tuple[int, ...] | None = None,
        small_input: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if design not in DESIGNS:
            raise ValueError(f"RegNet: design is {design!r}, expected one of {', '.join(DESIGNS)}")
        group_width = DESIGNS[design].group_width
        stages = DESIGNS[design].stages()
        channels = Channels(max(8, round(STEM_CHANNELS * width_mult)))
        total_stride = 1 if small_input else 2
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, 3, stride=total_stride), SlimBatchNorm(channels), nn.ReLU(inplace=True)
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for (count, designed), depth in zip(stages, depths or [blocks for _, blocks in stages], strict=True):
            groups = max(1, round(count * width_mult / group_width))
            outputs = Channels(groups * group_width, divisor=group_width)
            blocks = []
            for index in range(depth or designed):
                blocks.append(GroupBottleneck(channels, outputs, group_width, 2 if index == 0 else 1))
                channels = outputs
            total_stride *= 2
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(channels.full, total_stride))
        self.classifier = SlimLinear(channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, linear."""
        return self.classifier(x.mean((2, 3)))


VARIANTS = {f"regnety_{name}": partial(RegNet, design=name) for name in DESIGNS}
