"""MobileNetV3-Large, slimmable (Howard et al. 2019, arXiv:1905.02244); widths as MutualNet (arXiv:1909.12978)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear, make_divisible
from zoo.slim_net import FeatureInfo, SlimNet


@dataclass(frozen=True)
class BlockPlan:
    """One row of the paper's table 1."""

    kernel: int
    expansion: float
    outputs: int
    excite: bool
    activation: type[nn.Module]
    stride: int = 1


RELU, SWISH = nn.ReLU, nn.Hardswish
STAGES = (
    (BlockPlan(3, 1, 16, False, RELU),),
    (BlockPlan(3, 4, 24, False, RELU, 2), BlockPlan(3, 3, 24, False, RELU)),
    (BlockPlan(5, 3, 40, True, RELU, 2), *(BlockPlan(5, 3, 40, True, RELU),) * 2),
    (
        BlockPlan(3, 6, 80, False, SWISH, 2),
        BlockPlan(3, 2.5, 80, False, SWISH),
        *(BlockPlan(3, 2.3, 80, False, SWISH),) * 2,
    ),
    (BlockPlan(3, 6, 112, True, SWISH),) * 2,
    (BlockPlan(5, 6, 160, True, SWISH, 2), *(BlockPlan(5, 6, 160, True, SWISH),) * 2),
)
STEM_CHANNELS, MAP_CHANNELS, VECTOR_CHANNELS = 16, 960, 1280
EXCITE_SHARE = 4  # squeeze-excite keeps a quarter of the expanded channels, in multiples of 8


class HardSqueezeExcite(nn.Module):
    """Squeeze-and-excitation with a piecewise linear gate, so that no exponential is needed."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        reduced = Channels(make_divisible(channels.full / EXCITE_SHARE))
        self.reduce = SlimConv(channels, reduced, 1, bias=True)
        self.expand = SlimConv(reduced, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(mean))))


class HardInvertedResidual(nn.Module):
    """Expand 1x1, depthwise, squeeze-excite where planned, project 1x1; the input is added where shapes allow."""

    def __init__(self, plan: BlockPlan, inputs: Channels, outputs: Channels) -> None:
        super().__init__()
        hidden = inputs if plan.expansion == 1 else Channels(make_divisible(inputs.full * plan.expansion))
        self.residual = plan.stride == 1 and inputs == outputs
        expand: list[nn.Module] = []
        if plan.expansion != 1:
            expand = [SlimConv(inputs, hidden, 1), SlimBatchNorm(hidden), plan.activation(inplace=True)]
        self.body = nn.Sequential(
            *expand,
            SlimConv(hidden, hidden, plan.kernel, stride=plan.stride, groups=hidden),
            SlimBatchNorm(hidden),
            plan.activation(inplace=True),
            *([HardSqueezeExcite(hidden)] if plan.excite else []),
            SlimConv(hidden, outputs, 1),
            SlimBatchNorm(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV3(SlimNet):
    """MobileNetV3-Large; the head pools before its wide layer, which keeps its outputs at every width.

    The last stage ends with the 1x1 convolution to 960 channels. Differs from the paper: no dropout and no stochastic
    depth, since the subnets of a MutualNet step regularise one another.

    Args:
        num_classes: class scores; not slimmed.
        width_mult: multiplies every channel count but the 1280 of the head (a smaller or larger full network).
        small_input: stride 1 in the stem, for pictures of about 64 pixels.
        in_channels: channels of the picture.
    """

    def __init__(
        self, num_classes: int = 1000, *, width_mult: float = 1.0, small_input: bool = False, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = Channels(make_divisible(STEM_CHANNELS * width_mult))
        stride = 1 if small_input else 2
        self.stem = nn.Sequential(
            SlimConv(in_channels, channels, 3, stride=stride), SlimBatchNorm(channels), SWISH(inplace=True)
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for plans in STAGES:
            blocks: list[nn.Module] = []
            for plan in plans:
                outputs = Channels(make_divisible(plan.outputs * width_mult))
                blocks.append(HardInvertedResidual(plan, channels, outputs))
                channels, stride = outputs, stride * plan.stride
            if plans is STAGES[-1]:
                widest = Channels(make_divisible(MAP_CHANNELS * width_mult))
                blocks += [SlimConv(channels, widest, 1), SlimBatchNorm(widest), SWISH(inplace=True)]
                channels = widest
            self.stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(channels.full, stride))
        self.widen = SlimConv(channels, VECTOR_CHANNELS, 1, bias=True)
        self.classifier = SlimLinear(VECTOR_CHANNELS, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, 1x1 convolution to 1280, linear."""
        return self.classifier(F.hardswish(self.widen(x.mean((2, 3), keepdim=True))).flatten(1))


VARIANTS = {
    "mobilenetv3_large_100": MobileNetV3,
    "mobilenetv3_large_125": partial(MobileNetV3, width_mult=1.25),
}
