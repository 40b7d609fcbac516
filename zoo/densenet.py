"""DenseNet-BC, slimmable (Huang et al. 2016, arXiv:1608.06993); widths as MutualNet (arXiv:1909.12978)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

GROWTH, STEM_CHANNELS = 32, 64
BOTTLENECK = 4  # the 1x1 convolution of a layer gives so many times the growth


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; the result is appended to what came in.

    The incoming channels are those of every layer before, each slimmed to a prefix of its own.
    """

    def __init__(self, inputs: Joined, growth: Channels) -> None:
        super().__init__()
        hidden = growth.times(BOTTLENECK)
        self.body = nn.Sequential(
            SlimBatchNorm(inputs),
            nn.ReLU(),  # not in place: the input is kept
            SlimConv(inputs, hidden, 1),
            SlimBatchNorm(hidden),
            nn.ReLU(inplace=True),
            SlimConv(hidden, growth, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class DenseNet(SlimNet):
    """DenseNet-BC at any width; a stage is a transition (but for the first) and a dense block.

    The last stage ends with a norm and a ReLU, so its feature map is what the head averages.

    Args:
        num_classes: class scores; not slimmed.
        depths: layers in each of the four dense blocks.
        width_mult: multiplies the growth and the stem's channels (a smaller full network).
        small_input: a 3x3 stem with stride 1 and no pooling, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        depths: tuple[int, ...] = (6, 12, 24, 16),
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        growth, channels = Channels(round(GROWTH * width_mult)), Channels(round(STEM_CHANNELS * width_mult))
        kernel, stride = (3, 1) if small_input else (7, 2)
        pools = [] if small_input else [nn.MaxPool2d(3, stride=2, padding=1)]
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, kernel, stride=stride), SlimBatchNorm(channels), nn.ReLU(inplace=True),
            *pools,
        )  # fmt: skip
        total_stride = 1 if small_input else 4
        self.stages, self.feature_info = nn.ModuleList(), []
        joined = Joined((channels,))
        for stage, depth in enumerate(depths):
            layers: list[nn.Module] = []
            if stage:
                channels = Channels(joined.full // 2)
                layers += [*_transition(joined, channels)]
                joined, total_stride = Joined((channels,)), total_stride * 2
            for _ in range(depth):
                layers.append(DenseLayer(joined, growth))
                joined = Joined((*joined.parts, growth))
            if stage == len(depths) - 1:
                layers += [SlimBatchNorm(joined), nn.ReLU(inplace=True)]
            self.stages.append(nn.Sequential(*layers))
            self.feature_info.append(FeatureInfo(joined.full, total_stride))
        self.classifier = SlimLinear(joined, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, linear."""
        return self.classifier(x.mean((2, 3)))


def _transition(inputs: Joined, outputs: Channels) -> list[nn.Module]:
    """Norm, ReLU, 1x1 to half the channels, average of 2x2 pixels."""
    return [SlimBatchNorm(inputs), nn.ReLU(inplace=True), SlimConv(inputs, outputs, 1), nn.AvgPool2d(2)]


VARIANTS = {
    "densenet121": DenseNet,
    "densenet169": partial(DenseNet, depths=(6, 12, 32, 32)),
    "densenet201": partial(DenseNet, depths=(6, 12, 48, 32)),
}
