"""MobileNetV1, slimmable (Howard et al. 2017, arXiv:1704.04861); widths as MutualNet (arXiv:1909.12978)."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

# output channels at width 1.0 and the stride of the first block, for each stage
STAGES = (((64,), 1), ((128, 128), 2), ((256, 256), 2), ((512,) * 6, 2), ((1024, 1024), 2))


class DepthwiseSeparable(nn.Sequential):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, inputs: Channels, outputs: Channels, stride: int) -> None:
        super().__init__(
            SlimConv(inputs, inputs, 3, stride=stride, groups=inputs),
            SlimBatchNorm(inputs),
            nn.ReLU(inplace=True),
            SlimConv(inputs, outputs, 1),
            SlimBatchNorm(outputs),
            nn.ReLU(inplace=True),
        )


class MobileNetV1(SlimNet):
    """MobileNetV1 at any width from 0.25 to 1.0.

    Args:
        num_classes: class scores; not slimmed.
        width_mult: multiplies every base channel count (a smaller full network).
        small_input: stride 1 in the stem, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    """

    def __init__(
        self, num_classes: int = 1000, *, width_mult: float = 1.0, small_input: bool = False, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = Channels(round(32 * width_mult))
        stride = 1 if small_input else 2
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, 3, stride=stride), SlimBatchNorm(channels), nn.ReLU(inplace=True)
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for counts, first_stride in STAGES:
            blocks = []
            for index, count in enumerate(counts):
                outputs = Channels(round(count * width_mult))
                blocks.append(DepthwiseSeparable(channels, outputs, first_stride if index == 0 else 1))
                channels = outputs
            stride *= first_stride
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(channels.full, stride))
        self.classifier = SlimLinear(channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, linear."""
        return self.classifier(x.mean((2, 3)))
