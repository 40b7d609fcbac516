"""A slimmable network small enough to check by hand."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet


class TinyNet(SlimNet):
    """Stem, one depthwise stage, one dense stage and a linear head: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        narrow, wide = Channels(16), Channels(32)
        self.stem = _block(SlimConv(3, narrow, 3), narrow)
        self.stages = nn.ModuleList(
            [
                _block(SlimConv(narrow, narrow, 3, groups=narrow), narrow),
                _block(SlimConv(narrow, wide, 3, stride=2), wide),
            ]
        )
        self.feature_info = [FeatureInfo(16, 1), FeatureInfo(32, 2)]
        self.classifier = SlimLinear(wide, classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


def _block(conv: SlimConv, channels: Channels) -> nn.Sequential:
    return nn.Sequential(conv, SlimBatchNorm(channels), nn.ReLU())
