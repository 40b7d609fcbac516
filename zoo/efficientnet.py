"""EfficientNet-B0 to B3 and EfficientNet-Lite0 to Lite2, slimmable (Tan and Le 2019, arXiv:1905.11946).

The Lite nets (published by Google in 2020 without a paper) have no squeeze-excite, ReLU6 in place of swish, and a stem
and a last convolution of the same size in every variant. Widths as MutualNet's MobileNetV2 (arXiv:1909.12978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear, make_divisible
from zoo.slim_net import FeatureInfo, SlimNet

# expansion, output channels of B0 at width 1.0, blocks, stride of the first block, kernel of the depthwise convolution
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
NORM_EPS = 1e-3
EXCITE_SHARE = 4  # squeeze-excite keeps a quarter of the block's input channels
PADDINGS = ("symmetric", "even", "same")


@dataclass(frozen=True)
class Scaling:
    """How a net differs from B0."""

    width: float
    """Multiplies channel counts."""
    depth: float
    """Multiplies the blocks of each stage, rounded up."""
    resolution: int
    """Side in pixels that the published accuracy belongs to."""
    lite: bool = False


SCALINGS = {
    "b0": Scaling(1.0, 1.0, 224),
    "b1": Scaling(1.0, 1.1, 240),
    "b2": Scaling(1.1, 1.2, 260),
    "b3": Scaling(1.2, 1.4, 300),
    "lite0": Scaling(1.0, 1.0, 224, lite=True),
    "lite1": Scaling(1.0, 1.1, 240, lite=True),
    "lite2": Scaling(1.1, 1.2, 260, lite=True),
}


class SamePad(nn.Module):
    """TensorFlow's "same" padding before a convolution of stride 2: one pixel less on top and left of an even side.

    Shapes: (N, C, H, W) -> (N, C, H + kernel - 2 + H % 2, W + kernel - 2 + W % 2).
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.after = (kernel_size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        before = self.after - 1
        return F.pad(x, (before + width % 2, self.after, before + height % 2, self.after))


def _padded_conv(
    inputs: Channels | int, outputs: Channels, kernel_size: int, stride: int, padding: str, groups: Channels | int = 1
) -> list[nn.Module]:
    """Padding and convolution; two entries in any case, so that all paddings have one naming."""
    if padding != "symmetric" and stride == 2:
        after = (kernel_size - 1) // 2
        pad = SamePad(kernel_size) if padding == "same" else nn.ZeroPad2d((after - 1, after, after - 1, after))
        return [pad, SlimConv(inputs, outputs, kernel_size, stride=stride, padding=0, groups=groups)]
    return [nn.Identity(), SlimConv(inputs, outputs, kernel_size, stride=stride, groups=groups)]


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate that a two-layer net computes from the global average.

    The reduced count is a quarter of the *block's input* at the active width, so it follows the width as the input
    does; a make_divisible by 8 commutes with a division by 4 when the divisor becomes 2.
    """

    def __init__(self, block_inputs: Channels, hidden: Channels) -> None:
        super().__init__()
        reduced = Channels(block_inputs.base // EXCITE_SHARE, block_inputs.divisor // EXCITE_SHARE)
        self.reduce = SlimConv(hidden, reduced, 1, bias=True)
        self.activation = nn.SiLU(inplace=True)
        self.expand = SlimConv(reduced, hidden, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class MBConv(nn.Module):
    """Expand 1x1, depthwise, squeeze-excite (not in Lite), project 1x1; the input is added where shapes allow."""

    def __init__(
        self, inputs: Channels, outputs: Channels, *, expansion: int, kernel_size: int, stride: int, lite: bool,
        padding: str,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = inputs.times(expansion)
        self.residual = stride == 1 and inputs == outputs
        self.expand: nn.Module = nn.Identity()
        if expansion != 1:
            self.expand = nn.Sequential(SlimConv(inputs, hidden, 1), _norm(hidden), _activation(lite))
        self.depthwise = nn.Sequential(
            *_padded_conv(hidden, hidden, kernel_size, stride, padding, groups=hidden),
            _norm(hidden),
            _activation(lite),
        )
        self.excite: nn.Module = nn.Identity() if lite else SqueezeExcite(inputs, hidden)
        self.project = nn.Sequential(SlimConv(hidden, outputs, 1), _norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class BackboneParts(NamedTuple):
    """EfficientNet without its last convolution and classifier."""

    stem: nn.Module
    stages: nn.ModuleList
    channels: list[Channels]
    """What each stage gives."""
    feature_info: list[FeatureInfo]


def backbone_parts(
    facts: Scaling, padding: str, *, width_mult: float = 1.0, stem_stride: int = 2, in_channels: int = 3
) -> BackboneParts:
    """Stem and stages of an EfficientNet, with fresh weights.

    Args:
        facts: width, depth, and whether it is a Lite.
        padding: one of PADDINGS, as `EfficientNet` explains.
        width_mult: multiplies every base channel count.
        stem_stride: 1 or 2.
        in_channels: channels of the picture.
    """
    lite, scale = facts.lite, facts.width * width_mult
    channels = Channels(make_divisible(STEM_CHANNELS * (width_mult if lite else scale)))
    convolution = _padded_conv(in_channels, channels, 3, stem_stride, padding)
    stem = nn.Sequential(*convolution, _norm(channels), _activation(lite))
    stages, counts, info, stride = nn.ModuleList(), [], [], stem_stride
    for index, (expansion, count, blocks, first_stride, kernel_size) in enumerate(STAGES):
        outputs = Channels(make_divisible(count * scale))
        fixed_depth = lite and index in (0, len(STAGES) - 1)
        stage = []
        for position in range(blocks if fixed_depth else math.ceil(blocks * facts.depth)):
            block_stride = first_stride if position == 0 else 1
            shape = {"expansion": expansion, "kernel_size": kernel_size, "stride": block_stride}
            stage.append(MBConv(channels, outputs, **shape, lite=lite, padding=padding))
            channels = outputs
        stride *= first_stride
        stages.append(nn.Sequential(*stage))
        counts.append(channels)
        info.append(FeatureInfo(channels.full, stride))
    return BackboneParts(stem, stages, counts, info)


class EfficientNet(SlimNet):
    """EfficientNet at any width; the last 1x1 convolution keeps its output channels at every width.

    The expanded width is the rounded count of the block's input times the expansion. Differs from the paper: no
    dropout and no stochastic depth, since the subnets of a MutualNet step regularise one another.

    Args:
        num_classes: class scores; not slimmed.
        variant: a key of SCALINGS.
        padding: of convolutions with stride 2. "same" is TensorFlow's, which depends on whether a side is even, and
            which the published weights need. "even" equals it where every map before a stride has even sides (pictures
            of a multiple of 32 pixels, or of 16 but for the last stride), and is constant, so engines fuse it.
            "symmetric" is PyTorch's.
        width_mult: multiplies every base channel count (a smaller full network); the last ones do not shrink below.
        small_input: stride 1 in the stem, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    Raises:
        ValueError: the variant or the padding is unknown.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        variant: str = "b0",
        padding: str = "symmetric",
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if variant not in SCALINGS:
            raise ValueError(f"EfficientNet: variant is {variant!r}, expected one of {', '.join(SCALINGS)}")
        if padding not in PADDINGS:
            raise ValueError(f"EfficientNet: padding is {padding!r}, expected one of {', '.join(PADDINGS)}")
        facts = SCALINGS[variant]
        self.stem, self.stages, counts, self.feature_info = backbone_parts(
            facts, padding, width_mult=width_mult, stem_stride=1 if small_input else 2, in_channels=in_channels
        )
        last = LAST_CHANNELS if facts.lite else make_divisible(LAST_CHANNELS * facts.width)
        self.last = nn.Sequential(SlimConv(counts[-1], last, 1), _norm(last), _activation(facts.lite))
        self.classifier = SlimLinear(last, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Last 1x1 convolution, global average, linear."""
        return self.classifier(self.last(x).mean((2, 3)))


def _norm(channels: Channels | int) -> SlimBatchNorm:
    return SlimBatchNorm(channels, eps=NORM_EPS)


def _activation(lite: bool) -> nn.Module:
    return nn.ReLU6(inplace=True) if lite else nn.SiLU(inplace=True)


VARIANTS = {f"efficientnet_{name}": partial(EfficientNet, variant=name) for name in SCALINGS}
