"""ResNet with bottleneck blocks, slimmable (He et al. 2015, arXiv:1512.03385; stride in the 3x3 convolution).

Widths and resolutions as MutualNet (Yang et al. 2020, arXiv:1909.12978), which trains ResNet-50 from 0.9 to 1.0.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

EXPANSION = 4
DIVISOR = 2  # inner counts are even, so the expanded ones are multiples of 8; MutualNet's MAdds fit no other rule
STAGE_WIDTHS = (64, 128, 256, 512)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, each with batch norm; the shortcut is projected where shapes change."""

    def __init__(self, inputs: Channels, inner: Channels, outputs: Channels, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SlimConv(inputs, inner, 1),
            SlimBatchNorm(inner),
            nn.ReLU(inplace=True),
            SlimConv(inner, inner, 3, stride=stride),
            SlimBatchNorm(inner),
            nn.ReLU(inplace=True),
            SlimConv(inner, outputs, 1),
            SlimBatchNorm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(SlimConv(inputs, outputs, 1, stride=stride), SlimBatchNorm(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class ResNet(SlimNet):
    """Bottleneck ResNet at any width.

    Args:
        num_classes: class scores; not slimmed.
        depths: blocks in each of the four stages.
        width_mult: multiplies every base channel count (a smaller full network).
        small_input: a 3x3 stem with stride 1 and no pooling, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels = Channels(round(64 * width_mult), DIVISOR)
        kernel, stride = (3, 1) if small_input else (7, 2)
        pool = nn.Identity() if small_input else nn.MaxPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, kernel, stride=stride),
            SlimBatchNorm(channels),
            nn.ReLU(inplace=True),
            pool,
        )
        stride = 1 if small_input else 4
        self.stages, self.feature_info = nn.ModuleList(), []
        for stage, (count, depth) in enumerate(zip(STAGE_WIDTHS, depths, strict=True)):
            inner = Channels(round(count * width_mult), DIVISOR)
            outputs = inner.times(EXPANSION)
            blocks = []
            for index in range(depth):
                blocks.append(Bottleneck(channels, inner, outputs, 2 if stage > 0 and index == 0 else 1))
                channels = outputs
            stride *= 2 if stage > 0 else 1
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(channels.full, stride))
        self.classifier = SlimLinear(channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, linear."""
        return self.classifier(x.mean((2, 3)))


def resnet50(num_classes: int = 1000, **options: object) -> ResNet:
    """ResNet-50."""
    return ResNet(num_classes, depths=(3, 4, 6, 3), **options)
