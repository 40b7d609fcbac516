"""X3D: a picture network grown axis by axis into a small video network (Feichtenhofer 2020, arXiv:2004.04730).

Blocks are inverted bottlenecks with a depthwise 3x3x3 convolution. Every stage halves the picture and none the time,
so one set of weights takes clips of any length and size: XS, S and M are the same network at three clip sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear, make_divisible
from zoo.slim_net import FeatureInfo, SlimNet

CHANNEL_UNIT = 8  # every count between blocks is a multiple of it, at every width
INNER_UNIT = 18  # floor(2.25 c) for c = 8 units: the inner count follows the outer one exactly
STAGE_UNITS = (3, 6, 12, 24)  # 24, 48, 96 and 192 channels
GATE_SHARE = 16  # channels of a gate's bottleneck are one in so many, rounded to eights
HEAD_CHANNELS = 2048
SPATIAL_STRIDE = (1, 2, 2)
DEPTHS = (3, 5, 11, 7)  # 1, 2, 5, 3 blocks times 2.2, rounded up
LARGE_DEPTHS = (5, 10, 25, 15)  # times 5


class Clip(NamedTuple):
    """The clip that a variant is trained and tested on."""

    frames: int
    side_px: int
    """Height and width."""


class Gate(nn.Module):
    """Squeeze and excitation: scales each channel by what the whole clip says (Hu et al. 2017, arXiv:1709.01507).

    Args:
        channels: in and out.
    Shapes: (N, channels, T, H, W) float -> the same.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        hidden = Channels(channels.full // GATE_SHARE, divisor=8)
        self.squeeze = SlimLinear(channels, hidden)
        self.excite = SlimLinear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3, 4))))))
        return x * gate[:, :, None, None, None]


class X3DBlock(nn.Module):
    """1x1x1 to the inner channels, depthwise 3x3x3, gate, Swish, 1x1x1; added to the shortcut, then ReLU.

    Args:
        inputs, inner, outputs: channel counts.
        first: the first block of a stage; it halves the picture, and its shortcut is a convolution with a norm even
            where the channel count stays.
        gated: whether the block has a gate, between the depthwise norm and the Swish.
    Shapes: (N, inputs, T, H, W) float -> (N, outputs, T, H, W), or with halves of H and W, rounded up.
    """

    def __init__(self, inputs: Channels, inner: Channels, outputs: Channels, *, first: bool, gated: bool) -> None:
        super().__init__()
        stride = SPATIAL_STRIDE if first else 1
        self.expand = nn.Sequential(SlimConv(inputs, inner, 1, dims=3), SlimBatchNorm(inner, dims=3), nn.ReLU())
        self.depthwise = nn.Sequential(
            SlimConv(inner, inner, 3, stride=stride, groups=inner, dims=3), SlimBatchNorm(inner, dims=3)
        )
        self.gate: nn.Module = Gate(inner) if gated else nn.Identity()
        self.project = nn.Sequential(SlimConv(inner, outputs, 1, dims=3), SlimBatchNorm(outputs, dims=3))
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = nn.Sequential(
                SlimConv(inputs, outputs, 1, stride=stride, dims=3), SlimBatchNorm(outputs, dims=3)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.gate(self.depthwise(self.expand(x))))
        return F.relu(self.shortcut(x) + self.project(y))


class X3DStem(nn.Module):
    """A 1x3x3 convolution that halves the picture, a depthwise 5x1x1 over time right behind it, norm, ReLU.

    Shapes: (N, in_channels, T, H, W) float -> (N, outputs, T, ceil(H / 2), ceil(W / 2)).
    Raises:
        ValueError: the input is not a batch of clips.
    """

    def __init__(self, in_channels: int, outputs: Channels) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.space = SlimConv(in_channels, outputs, (1, 3, 3), stride=SPATIAL_STRIDE, dims=3)
        self.time = SlimConv(outputs, outputs, (5, 1, 1), groups=outputs, dims=3)
        self.norm = SlimBatchNorm(outputs, dims=3)

    def forward(self, clip: Tensor) -> Tensor:
        if clip.dim() != 5 or clip.shape[1] != self.in_channels:
            raise ValueError(
                f"X3D: input is {tuple(clip.shape)}, expected clips (N, {self.in_channels}, T, H, W); "
                "stack the frames of a clip along axis 2"
            )
        return F.relu(self.norm(self.time(self.space(clip))))


class X3D(SlimNet):
    """X3D for clips of any length and size, at any width.

    Widths are whole units of 8 channels, and a block's inner count is floor(2.25 c) at each of them. The projection
    to 2048 features keeps its output channels at every width. A feature map has as many frames as the clip. Differs
    from the authors' testing of crops larger than the training ones: the average is over the whole clip and comes
    before the projection, where theirs averages the class probabilities of several windows.

    Statistics depend on the clip's length, too, since its ends are zero-padded; so an operating point is a width and
    (frames, height, width).

    Args:
        num_classes: class scores; not slimmed.
        depths: blocks of the four stages.
        width_mult: multiplies the channel counts (another full network).
        dropout: probability before the classifier, in training.
        in_channels: channels of a frame.
    Shapes: (N, in_channels, T, H, W) float, normalised -> logits (N, num_classes).
    Raises:
        ValueError: `depths`, `width_mult` or `dropout` is out of its range.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        depths: tuple[int, ...] = DEPTHS,
        width_mult: float = 1.0,
        dropout: float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check_options(depths, width_mult, dropout)
        units = [Channels(make_divisible(count * width_mult, 1), divisor=1) for count in STAGE_UNITS]
        channels = units[0].times(CHANNEL_UNIT)
        self.stem = X3DStem(in_channels, channels)
        self.stages, self.feature_info = nn.ModuleList(), []
        for index, (unit, depth) in enumerate(zip(units, depths, strict=True)):
            self.stages.append(nn.Sequential(*_stage_blocks(channels, unit, depth)))
            channels = unit.times(CHANNEL_UNIT)
            self.feature_info.append(FeatureInfo(channels.full, stride=2 ** (index + 2)))
        inner = units[-1].times(INNER_UNIT)
        self.last = nn.Sequential(SlimConv(channels, inner, 1, dims=3), SlimBatchNorm(inner, dims=3), nn.ReLU())
        self.projection = SlimLinear(inner, HEAD_CHANNELS, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = SlimLinear(HEAD_CHANNELS, num_classes)
        _initialise(self)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        """Last 1x1x1 convolution, average over time and space, projection, ReLU, dropout, linear.

        Args:
            x: output of the last stage (N, channels at width, T, H, W) float.
        Returns:
            logits (N, classes).
        """
        features = F.relu(self.projection(self.last(x).mean((2, 3, 4))))
        return self.classifier(self.dropout(features))


def _check_options(depths: tuple[int, ...], width_mult: float, dropout: float) -> None:
    if len(depths) != len(STAGE_UNITS) or min(depths) < 1:
        raise ValueError(f"X3D: depths is {depths}, expected {len(STAGE_UNITS)} counts of at least one block")
    if not (math.isfinite(width_mult) and width_mult > 0.0):
        raise ValueError(f"X3D: width_mult is {width_mult}, expected a finite number above 0")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"X3D: dropout is {dropout}, expected 0 <= dropout < 1")


def _stage_blocks(inputs: Channels, unit: Channels, depth: int) -> Iterator[X3DBlock]:
    """The blocks of a stage; every other one is gated, from the first."""
    inner, outputs = unit.times(INNER_UNIT), unit.times(CHANNEL_UNIT)
    for index in range(depth):
        yield X3DBlock(inputs, inner, outputs, first=index == 0, gated=index % 2 == 0)
        inputs = outputs


def _initialise(model: X3D) -> None:
    """He's normal weights by fan-in, zero biases; blocks start as their shortcut, the classifier near zero."""
    for module in model.modules():
        if isinstance(module, SlimConv | SlimLinear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, X3DBlock):
            nn.init.zeros_(module.project[1].weight)
    nn.init.normal_(model.classifier.weight, std=0.01)


VARIANTS: dict[str, Callable[..., X3D]] = {
    "x3d_xs": X3D,
    "x3d_s": X3D,
    "x3d_m": X3D,
    "x3d_l": partial(X3D, depths=LARGE_DEPTHS),
}

DEFAULT_CLIPS = {
    "x3d_xs": Clip(frames=4, side_px=160),
    "x3d_s": Clip(frames=13, side_px=160),
    "x3d_m": Clip(frames=16, side_px=224),
    "x3d_l": Clip(frames=16, side_px=312),
}
