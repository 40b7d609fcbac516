"""One slimmable ResNet with slots: He et al. 2015, arXiv:1512.03385, the stride in the 3x3 convolution.

A `Plan` says what stands in each slot (convolution, block core, gate, shortcut, stem, stage wrapper); the papers that
change one part of ResNet are plans in files of their own. Widths and resolutions as MutualNet (Yang et al. 2020,
arXiv:1909.12978), which trains ResNet-50 from 0.9 to 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

DIVISOR = 2  # inner counts are even, so the expanded ones are multiples of 8; MutualNet's MAdds fit no other rule
STAGE_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class Site:
    """Where a block stands."""

    stage: int
    """0-3."""
    first: bool
    """It is the first block of its stage."""
    stride: int


Convolution = Callable[..., nn.Module]
"""(inputs, outputs, kernel_size, *, stride=1, groups=1) -> module, as SlimConv."""
Core = Callable[[Channels, Site], nn.Module]
"""(inner channels, site) -> module between the 1x1 convolutions, with its own norms and activations.

A core whose results lie otherwise than `inner channels` (several convolutions side by side) says so in `outputs`.
"""


def plain_inner(planes: float) -> Channels:
    """As many channels inside the block as the stage is wide."""
    return Channels(round(planes), DIVISOR)


def convolution_core(channels: Channels, site: Site, convolution: Convolution = SlimConv, groups: int = 1) -> nn.Module:
    """The 3x3 convolution of ResNet (grouped: ResNeXt)."""
    return nn.Sequential(
        convolution(channels, channels, 3, stride=site.stride, groups=groups),
        SlimBatchNorm(channels),
        nn.ReLU(inplace=True),
    )


def plain_shortcut(inputs: Channels, outputs: Channels, stride: int) -> nn.Module:
    """1x1 convolution with the block's stride."""
    return nn.Sequential(SlimConv(inputs, outputs, 1, stride=stride), SlimBatchNorm(outputs))


def average_shortcut(inputs: Channels, outputs: Channels, stride: int) -> nn.Module:
    """Average pooling, then 1x1 (ResNet-D: no input pixel is skipped)."""
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, SlimConv(inputs, outputs, 1), SlimBatchNorm(outputs))


def plain_stem(in_channels: int, channels: Channels, small_input: bool) -> nn.Module:
    """7x7 with stride 2; 3x3 with stride 1 for small pictures."""
    kernel, stride = (3, 1) if small_input else (7, 2)
    return nn.Sequential(
        SlimConv(in_channels, channels, kernel, stride=stride), SlimBatchNorm(channels), nn.ReLU(inplace=True)
    )


def deep_stem(in_channels: int, channels: Channels, small_input: bool) -> nn.Module:
    """Three 3x3 convolutions, the first two half as wide (ResNet-C)."""
    half = Channels(channels.base // 2, channels.divisor)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((in_channels, half, 1 if small_input else 2), (half, half, 1), (half, channels, 1)):
        layers += [SlimConv(inputs, outputs, 3, stride=stride), SlimBatchNorm(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """A residual block whose sum can be taken before the activation."""

    expansion: int
    body: nn.Module
    shortcut: nn.Module

    def residual_sum(self, x: Tensor) -> Tensor:
        """Body plus shortcut, before the ReLU."""
        return self.body(x) + self.shortcut(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual_sum(x))


class Bottleneck(Block):
    """1x1 reduce, core, 1x1 expand, gate; the shortcut is projected where shapes change."""

    expansion = 4

    def __init__(self, plan: Plan, inputs: Channels, planes: float, outputs: Channels, site: Site) -> None:
        super().__init__()
        inner = plan.inner(planes)
        core = plan.core(inner, site)
        self.body = nn.Sequential(
            plan.convolution(inputs, inner, 1),
            SlimBatchNorm(inner),
            nn.ReLU(inplace=True),
            core,
            plan.convolution(getattr(core, "outputs", inner), outputs, 1),
            SlimBatchNorm(outputs),
            *plan.gates(outputs),
        )
        self.shortcut = nn.Identity()
        if site.stride != 1 or inputs != outputs:
            self.shortcut = plan.shortcut(inputs, outputs, site.stride)


class BasicBlock(Block):
    """Two 3x3 convolutions (ResNet-18 and 34); the core slot stays empty."""

    expansion = 1

    def __init__(self, plan: Plan, inputs: Channels, planes: float, outputs: Channels, site: Site) -> None:
        super().__init__()
        self.body = nn.Sequential(
            plan.convolution(inputs, outputs, 3, stride=site.stride),
            SlimBatchNorm(outputs),
            nn.ReLU(inplace=True),
            plan.convolution(outputs, outputs, 3),
            SlimBatchNorm(outputs),
            *plan.gates(outputs),
        )
        self.shortcut = nn.Identity()
        if site.stride != 1 or inputs != outputs:
            self.shortcut = plan.shortcut(inputs, outputs, site.stride)


def plain_stage(blocks: Sequence[Block], channels: Channels) -> nn.Module:
    """One block after the other."""
    return nn.Sequential(*blocks)


@dataclass(frozen=True)
class Plan:
    """What stands in each slot of a ResNet."""

    block: Callable[..., Block] = Bottleneck
    inner: Callable[[float], Channels] = plain_inner
    """Stage width (times width_mult) -> channels between the 1x1 convolutions."""
    core: Core = convolution_core
    convolution: Convolution = SlimConv
    """The other convolutions of the block."""
    gate: Callable[[Channels], nn.Module] | None = None
    """Acts on the body's output before the shortcut is added."""
    shortcut: Callable[[Channels, Channels, int], nn.Module] = plain_shortcut
    stem: Callable[[int, Channels, bool], nn.Module] = plain_stem
    stem_pool: bool = True
    """3x3 max pooling after the stem; without it the first stage halves the picture instead."""
    stage: Callable[[Sequence[Block], Channels], nn.Module] = plain_stage
    pooled_norm: bool = False
    """Batch norm after the global average."""

    def gates(self, channels: Channels) -> list[nn.Module]:
        """The gate as a list, empty without one."""
        return [] if self.gate is None else [self.gate(channels)]


class ResNet(SlimNet):
    """ResNet after a plan, at any width.

    Args:
        num_classes: class scores; not slimmed.
        plan: what stands in the slots.
        depths: blocks in each of the four stages.
        width_mult: multiplies every base channel count (a smaller full network).
        small_input: a 3x3 stem with stride 1 and no pooling, for pictures of about 64 pixels.
        in_channels: channels of the picture.
        dropout: share of the pooled features that training drops.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        plan: Plan = Plan(),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = Channels(round(64 * width_mult), DIVISOR)
        pools = [nn.MaxPool2d(3, stride=2, padding=1)] if plan.stem_pool and not small_input else []
        self.stem = nn.Sequential(*plan.stem(in_channels, channels, small_input), *pools)
        first_stride = 1 if plan.stem_pool or small_input else 2
        total_stride = 1 if small_input else 2 ** (1 + len(pools))
        self.stages, self.feature_info = nn.ModuleList(), []
        for stage, (count, depth) in enumerate(zip(STAGE_WIDTHS, depths, strict=True)):
            planes, stride = count * width_mult, 2 if stage else first_stride
            outputs = Channels(round(planes), DIVISOR).times(plan.block.expansion)
            blocks = []
            for index in range(depth):
                site = Site(stage, index == 0, stride if index == 0 else 1)
                blocks.append(plan.block(plan, channels, planes, outputs, site))
                channels = outputs
            total_stride *= stride
            self.stages.append(plan.stage(blocks, channels))
            self.feature_info.append(FeatureInfo(channels.full, total_stride))
        self.pooled = nn.Sequential(*([SlimBatchNorm(channels, dims=0)] if plan.pooled_norm else []))
        self.dropout = nn.Dropout(dropout)
        self.classifier = SlimLinear(channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, linear."""
        return self.classifier(self.dropout(self.pooled(x.mean((2, 3)))))


def resnet50(num_classes: int = 1000, **options: object) -> ResNet:
    """ResNet-50: no slot changed, the usual depths."""
    return ResNet(num_classes, **options)
