"""HorNet: recursive gated convolution (Rao et al. 2022, arXiv:2207.14284) in the frame of ConvNeXt (arXiv:2201.03545).

A gated convolution multiplies features by spatially filtered ones; doing it again and again on doubling channels gives
interactions of high order at the price of one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo.global_filter import GlobalLocalFilter
from zoo.slim_layers import Channels, Joined, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet
from zoo.slim_parameters import SlimLayerNorm, SlimParameter

DEPTHS = (2, 3, 18, 2)
ORDERS = (2, 3, 4, 5)
FILTER_SCALE = 1.0 / 3.0  # of the filtered features, so that products of several of them stay small
LAYER_SCALE = 1e-6
FILTER_SIZES = (None, None, 14, 7)  # global filters: feature map sizes of stages 3 and 4 at 224 pixels


class GatedConvolution(nn.Module):
    """Recursive gated convolution of order n.

    The input is projected to twice its channels: a first factor of the smallest dimension, and n filtered ones of
    doubling dimensions. The running product is projected to the next dimension and multiplied by the next factor.
    Dimensions are whole numbers of `unit`, and a narrow subnet keeps a prefix of each unit, so that all factors narrow
    alike.

    Args:
        unit: half of the smallest dimension; the block has unit * 2 ** order channels.
        order: n.
        filter_size: None for a depthwise 7x7, else the size that a global filter is learned for.
    Shapes: (N, channels, H, W) -> the same.
    """

    def __init__(self, unit: Channels, order: int, filter_size: int | None) -> None:
        super().__init__()
        self.order = order
        channels = unit.times(2**order)
        dims = [unit.times(2).repeated(2**k) for k in range(order)]
        wide = 2 ** (order + 1) - 2  # units of all factors together
        filtered = unit.repeated(wide) if filter_size else unit.times(2).repeated(wide // 2)
        self.project = SlimConv(channels, Joined((dims[0], filtered)), 1, bias=True)
        if filter_size:
            self.filter: nn.Module = GlobalLocalFilter(unit, wide, filter_size)
        else:
            self.filter = SlimConv(filtered, filtered, 7, groups=filtered, bias=True)
        self.widen = nn.ModuleList(SlimConv(dims[k], dims[k + 1], 1, bias=True) for k in range(order - 1))
        self.output = SlimConv(dims[-1], channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        smallest = x.shape[1] // 2 ** (self.order - 1)
        projected = self.project(x)
        product, others = projected[:, :smallest], projected[:, smallest:]
        factors = (self.filter(others) * FILTER_SCALE).split([smallest * 2**k for k in range(self.order)], 1)
        product = product * factors[0]
        for widen, factor in zip(self.widen, factors[1:], strict=True):
            product = widen(product) * factor
        return self.output(product)


class HorNetBlock(nn.Module):
    """Gated convolution, then two pointwise layers, each on normalised features, scaled and added."""

    def __init__(self, unit: Channels, order: int, filter_size: int | None, layer_scale: float) -> None:
        super().__init__()
        channels = unit.times(2**order)
        self.mix_norm, self.mlp_norm = (SlimLayerNorm(channels, channels_first=True) for _ in range(2))
        self.mix = GatedConvolution(unit, order, filter_size)
        self.mlp = nn.Sequential(
            SlimConv(channels, channels.times(4), 1, bias=True),
            nn.GELU(),
            SlimConv(channels.times(4), channels, 1, bias=True),
        )
        self.mix_scale, self.mlp_scale = (
            SlimParameter(torch.full((channels.full,), layer_scale), channels) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix_scale().view(-1, 1, 1) * self.mix(self.mix_norm(x))
        return x + self.mlp_scale().view(-1, 1, 1) * self.mlp(self.mlp_norm(x))


class HorNet(SlimNet):
    """HorNet at any width.

    All stages narrow together: a width keeps a whole number of units of C / 4 channels, and a stage has
    unit * 2 ** order of them.

    Args:
        num_classes: class scores; not slimmed.
        channels: C, of the first stage; doubles from stage to stage.
        global_filter: global and local filters in stages 3 and 4, instead of 7x7 convolutions.
        depths: blocks in each of the four stages.
        width_mult: multiplies C (a smaller full network); the result is rounded to a multiple of 4.
        small_input: patches of 2x2 instead of 4x4 pixels, and filters for 64-pixel pictures.
        layer_scale: what the blocks' outputs are multiplied with at the start of training.
        in_channels: channels of the picture.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        channels: int = 64,
        global_filter: bool = False,
        depths: tuple[int, ...] = DEPTHS,
        width_mult: float = 1.0,
        small_input: bool = False,
        layer_scale: float = LAYER_SCALE,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        unit = Channels(max(1, round(channels * width_mult / 4)), divisor=1)
        sizes = FILTER_SIZES if global_filter else (None,) * 4
        if small_input:
            sizes = tuple(size and 32 // 2**stage for stage, size in enumerate(sizes))
        patch = 2 if small_input else 4
        first = unit.times(2 ** ORDERS[0])
        self.stem = nn.Sequential(
            SlimConv(in_channels, first, patch, stride=patch, padding=0, bias=True),
            SlimLayerNorm(first, channels_first=True),
        )
        self.stages, self.feature_info = nn.ModuleList(), []
        for stage, (order, depth, size) in enumerate(zip(ORDERS, depths, sizes, strict=True)):
            width = unit.times(2**order)
            layers: list[nn.Module] = []
            if stage:
                half = unit.times(2 ** (order - 1))
                layers = [
                    SlimLayerNorm(half, channels_first=True),
                    SlimConv(half, width, 2, stride=2, padding=0, bias=True),
                ]
            blocks = [HorNetBlock(unit, order, size, layer_scale) for _ in range(depth)]
            self.stages.append(nn.Sequential(*layers, *blocks))
            self.feature_info.append(FeatureInfo(width.full, patch * 2**stage))
        last = unit.times(2 ** ORDERS[-1])
        self.head_norm = SlimLayerNorm(last)
        self.classifier = SlimLinear(last, num_classes)
        _initialise(self)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Global average, layer norm, linear."""
        return self.classifier(self.head_norm(x.mean((2, 3))))


def _initialise(model: nn.Module) -> None:
    """Weights from a normal distribution of 0.02, cut at two; biases zero."""
    for module in model.modules():
        if isinstance(module, SlimConv | SlimLinear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


VARIANTS = {
    "hornet_tiny_7x7": partial(HorNet, channels=64),
    "hornet_tiny_gf": partial(HorNet, channels=64, global_filter=True),
    "hornet_small_7x7": partial(HorNet, channels=96),
    "hornet_small_gf": partial(HorNet, channels=96, global_filter=True),
    "hornet_base_7x7": partial(HorNet, channels=128),
    "hornet_base_gf": partial(HorNet, channels=128, global_filter=True),
    "hornet_large_7x7": partial(HorNet, channels=192),
    "hornet_large_gf": partial(HorNet, channels=192, global_filter=True),
}
