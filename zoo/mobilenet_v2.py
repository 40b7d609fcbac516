"""MobileNetV2, slimmable (Sandler et al. 2018, arXiv:1801.04381); widths as MutualNet (arXiv:1909.12978)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

# expansion, output channels at width 1.0, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LAST_CHANNELS = 1280
Convolution = Callable[..., nn.Module]


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; the input is added where shapes allow."""

    def __init__(
        self, inputs: Channels, outputs: Channels, expansion: int, stride: int, convolution: Convolution = SlimConv
    ) -> None:
        super().__init__()
        hidden = inputs.times(expansion)
        self.residual = stride == 1 and inputs == outputs
        expand: list[nn.Module] = []
        if expansion != 1:
            expand = [convolution(inputs, hidden, 1), SlimBatchNorm(hidden), nn.ReLU6(inplace=True)]
        self.body = nn.Sequential(
            *expand,
            convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            SlimBatchNorm(hidden),
            nn.ReLU6(inplace=True),
            convolution(hidden, outputs, 1),
            SlimBatchNorm(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(SlimNet):
    """MobileNetV2; the last 1x1 convolution keeps its output channels at every width, as in MutualNet.

    MutualNet trains it from 0.7 to 1.0; lower widths work too. The expanded width is the rounded count of the block's
    input times the expansion (divide by the ratio before rounding).

    Args:
        num_classes: class scores; not slimmed.
        width_mult: multiplies every base channel count (a smaller full network); the last 1280 do not shrink below.
        small_input: stride 1 in the stem, for pictures of about 64 pixels.
        in_channels: channels of the picture.
        last_channels: output of the last 1x1 convolution.
        dropout: share of the pooled features that training drops.
        convolution: every convolution but the stem's: (inputs, outputs, kernel_size, *, stride, groups) -> module.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
        last_channels: int = LAST_CHANNELS,
        dropout: float = 0.0,
        convolution: Convolution = SlimConv,
    ) -> None:
        super().__init__()
        channels = Channels(round(32 * width_mult))
        stride = 1 if small_input else 2
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, 3, stride=stride), SlimBatchNorm(channels), nn.ReLU6(inplace=True)
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for expansion, count, depth, first_stride in STAGES:
            blocks = []
            for index in range(depth):
                outputs = Channels(round(count * width_mult))
                block_stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, expansion, block_stride, convolution))
                channels = outputs
            stride *= first_stride
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(channels.full, stride))
        self.last = nn.Sequential(
            convolution(channels, last_channels, 1), SlimBatchNorm(last_channels), nn.ReLU6(inplace=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = SlimLinear(last_channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Last 1x1 convolution, global average, linear."""
        return self.classifier(self.dropout(self.last(x).mean((2, 3))))
