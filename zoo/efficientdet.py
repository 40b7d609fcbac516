"""EfficientDet D0 to D7 and Lite0, slimmable: BiFPN and two heads on EfficientNet (Tan et al. 2019, arXiv:1911.09070).

The network ends at maps of class logits and box codes; anchors, decoding, losses and non-maximum suppression are in
zoo.efficientdet_boxes. The backbone is built from the blocks of zoo.efficientnet, without its last convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.efficientdet_boxes import ANCHORS_PER_CELL, STRIDES
from zoo.efficientnet import NORM_EPS, Scaling, backbone_parts
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLayer, Stats
from zoo.slim_net import SlimNet

LEVELS = len(STRIDES)  # P3 to P7
FEATURE_STAGES = (2, 4, 6)  # stages of the backbone that give P3, P4 and P5: the last ones of strides 8, 16 and 32
FUSION_EPS = 1e-4
CLASS_PRIOR = 0.01  # score of every class before training, so that the many empty anchors start with a small loss
PREDICTOR_STD = 0.01


@dataclass(frozen=True)
class Settings:
    """How one detector differs from another."""

    backbone: Scaling
    """Width and depth of the EfficientNet; its resolution is the side in pixels that the detector is published for."""
    channels: int
    """Of every level of the BiFPN and of the heads; a multiple of 8."""
    cells: int
    """How often the BiFPN is repeated."""
    head_depth: int
    """Separable convolutions in each head before its predictor."""
    anchor_scale: float = 4.0
    """Side of the smallest square anchor, in strides of its level."""
    weighted: bool = True
    """Learnt weights where maps meet; False adds them."""
    tensorflow: bool = True
    """As the published weights: TensorFlow's "same" padding, and a bias before each norm, which the norm cancels."""


class SamePool(nn.Module):
    """3x3 max-pool of stride 2 with TensorFlow's "same" padding: none before an even side, one before an odd one.

    Shapes: (N, C, H, W) float -> (N, C, ceil(H / 2), ceil(W / 2)).
    """

    def forward(self, x: Tensor) -> Tensor:
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        return F.max_pool2d(x, 3, 2, padding=odd, ceil_mode=True)  # the last window may end outside


class FixedSum(nn.Module):
    """Add maps of one shape, each multiplied by a constant.

    Args:
        shares: one factor for each map.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        super().__init__()
        self.shares = tuple(shares)

    def forward(self, *maps: Tensor) -> Tensor:
        terms = [x if share == 1.0 else x * share for x, share in zip(maps, self.shares, strict=True)]
        return reduce(torch.add, terms)


class WeightedSum(SlimLayer):
    """Fast normalised fusion (section 3.3): learnt weights, not below 0, divided by their sum.

    Materialising makes the weights constants of the graph.

    Args:
        count: maps that meet here.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))

    def shares(self) -> Tensor:
        """What each map is multiplied by, (count,) float."""
        weights = self.weights.relu()
        return weights / (weights.sum() + FUSION_EPS)

    def forward(self, *maps: Tensor) -> Tensor:
        return reduce(torch.add, [x * share for x, share in zip(maps, self.shares().unbind(), strict=True)])

    def materialise(self, width: float, stats: Stats | None = None) -> FixedSum:
        """The same sum with constant factors."""
        return FixedSum(self.shares().tolist())


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, then 1x1 to the outputs, with nothing between.

    Shapes: (N, inputs, H, W) float -> (N, outputs, H, W).
    """

    def __init__(self, inputs: Channels, outputs: Channels, bias: bool) -> None:
        super().__init__()
        self.depthwise = SlimConv(inputs, inputs, 3, groups=inputs)
        self.pointwise = SlimConv(inputs, outputs, 1, bias=bias)


class FusionNode(nn.Module):
    """One node of the BiFPN: fuse the maps that meet, activation, separable convolution, norm.

    Shapes: `count` times (N, channels, H, W) float -> (N, channels, H, W).
    """

    def __init__(self, count: int, channels: Channels, settings: Settings) -> None:
        super().__init__()
        self.fuse = WeightedSum(count) if settings.weighted else FixedSum([1.0] * count)
        self.activation = _activation(settings)
        self.convolution = SeparableConv(channels, channels, settings.tensorflow)
        self.norm = SlimBatchNorm(channels, eps=NORM_EPS)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.norm(self.convolution(self.activation(self.fuse(*maps))))


class BiFPNCell(nn.Module):
    """One repetition of the BiFPN (figure 2d): information flows from P7 to P3, then from P3 to P7.

    Every edge from an input with other channels has its own 1x1 convolution, so P4 and P5 of the backbone are
    projected twice: for the way down and for the way up.

    Args:
        inputs: channels of P3 to P7 as they come.
        outputs: channels of every level afterwards.
    Shapes: five maps (N, inputs, H, W) float, each half as large as the one before -> five (N, outputs, H, W).
    """

    def __init__(self, inputs: Sequence[Channels], outputs: Channels, settings: Settings) -> None:
        super().__init__()
        self.down_edges = nn.ModuleList(_projection(count, outputs, settings) for count in inputs)
        self.up_edges = nn.ModuleList(_projection(count, outputs, settings) for count in inputs[1:-1])
        self.down_nodes = nn.ModuleList(FusionNode(2, outputs, settings) for _ in range(LEVELS - 1))
        self.up_nodes = nn.ModuleList(FusionNode(3, outputs, settings) for _ in range(LEVELS - 2))
        self.last_node = FusionNode(2, outputs, settings)
        self.pool = _pool(settings)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        sides = [edge(x) for edge, x in zip(self.down_edges, features, strict=True)]
        down = [sides[-1]]  # from P7 on, put in front level by level
        for side, node in zip(sides[-2::-1], self.down_nodes, strict=True):
            down.insert(0, node(side, F.interpolate(down[0], size=side.shape[-2:], mode="nearest")))
        outputs = [down[0]]
        for edge, x, middle, node in zip(self.up_edges, features[1:-1], down[1:-1], self.up_nodes, strict=True):
            outputs.append(node(edge(x), middle, self.pool(outputs[-1])))
        outputs.append(self.last_node(sides[-1], self.pool(outputs[-1])))
        return outputs


class DetectionHead(nn.Module):
    """Separable convolutions shared by the levels, each level with norms of its own, and a shared predictor.

    Args:
        values: predicted for each anchor; channel anchor * values + i of the output is value i of that anchor.
    Shapes: five maps (N, channels, H, W) float -> five (N, anchors * values, H, W).
    """

    def __init__(self, channels: Channels, values: int, settings: Settings) -> None:
        super().__init__()
        depth = range(settings.head_depth)
        self.convolutions = nn.ModuleList(SeparableConv(channels, channels, settings.tensorflow) for _ in depth)
        self.norms = nn.ModuleList(
            nn.ModuleList(SlimBatchNorm(channels, eps=NORM_EPS) for _ in range(LEVELS)) for _ in depth
        )
        self.activation = _activation(settings)
        self.predictor = SeparableConv(channels, Channels.fixed(ANCHORS_PER_CELL * values), bias=True)
        nn.init.normal_(self.predictor.pointwise.weight, std=PREDICTOR_STD)
        nn.init.zeros_(self.predictor.pointwise.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        outputs = []
        for level, x in enumerate(features):
            for convolution, norms in zip(self.convolutions, self.norms, strict=True):
                x = self.activation(norms[level](convolution(x)))
            outputs.append(self.predictor(x))
        return outputs


class EfficientDet(SlimNet):
    """EfficientDet at any width (Tan et al. 2019, arXiv:1911.09070); the class and box outputs keep their channels.

    Differs from the paper: no stochastic depth, and widths below 1 (the paper has none). Norms track no running
    statistics in training (zoo.slim_layers.SlimBatchNorm): calibrate each operating point afterwards.

    Args:
        num_classes: class scores of each anchor; the published weights have 90, the slots of COCO.
        settings: one of SETTINGS, or your own.
    Raises:
        ValueError: a count is below 1, or the channels are not a multiple of 8.
    """

    def __init__(self, num_classes: int = 90, *, settings: Settings) -> None:
        super().__init__()
        _check(num_classes, settings)
        self.num_classes, self.settings = num_classes, settings
        padding = "same" if settings.tensorflow else "symmetric"
        self.stem, self.stages, counts, self.feature_info = backbone_parts(settings.backbone, padding)
        backbone = [counts[index] for index in FEATURE_STAGES]
        channels = Channels(settings.channels)
        self.reduce_p6 = nn.Sequential(_projection(backbone[-1], channels, settings), _pool(settings))
        self.reduce_p7 = _pool(settings)
        same = [channels] * LEVELS
        first = [*backbone, *same[len(backbone) :]]
        self.cells = nn.ModuleList(
            BiFPNCell(same if index else first, channels, settings) for index in range(settings.cells)
        )
        self.class_head = DetectionHead(channels, num_classes, settings)
        self.box_head = DetectionHead(channels, 4, settings)
        nn.init.constant_(self.class_head.predictor.pointwise.bias, math.log(CLASS_PRIOR / (1.0 - CLASS_PRIOR)))
        self.name_norms()

    def forward(self, x: Tensor, width: float | None = None) -> list[Tensor]:
        """Maps of class logits and box codes; zoo.efficientdet_boxes.flatten_maps joins the levels.

        Args:
            x: pictures (N, 3, H, W), float, normalised; the published nets have H and W of a multiple of 128 pixels.
            width: 0 < width <= 1; None runs inside the caller's `at` context, or at full width outside any.
        Returns:
            ten maps, five (N, 9 * num_classes, h, w) of class logits and five (N, 9 * 4, h, w) of box codes, each from
            P3 to P7 with h = ceil(H / stride) for the strides 8, 16, 32, 64 and 128.
        Raises:
            ValueError: x is no batch of pictures with three channels; or, in training, level 7 has a single value
                for each channel, which its norm cannot use.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"EfficientDet: input is {tuple(x.shape)}, expected (N, 3, H, W); give it RGB pictures")
        if self.training and x.shape[0] * math.ceil(x.shape[2] / STRIDES[-1]) * math.ceil(x.shape[3] / STRIDES[-1]) < 2:
            raise ValueError(
                f"EfficientDet: training on one picture of {x.shape[2]}x{x.shape[3]} leaves level 7 one value for its "
                f"norm, expected two or more; take several pictures or a side above {STRIDES[-1]}"
            )
        with self.point_of_call(x, width):
            return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Sequence[Tensor]) -> list[Tensor]:
        """The ten maps of `forward` from the outputs of all stages (`forward_features`), not of the last one alone."""
        features = [x[index] for index in FEATURE_STAGES]
        features.append(self.reduce_p6(features[-1]))
        features.append(self.reduce_p7(features[-1]))
        for cell in self.cells:
            features = cell(features)
        return [*self.class_head(features), *self.box_head(features)]


def _check(num_classes: int, settings: Settings) -> None:
    counts = {"num_classes": num_classes, "cells": settings.cells, "head_depth": settings.head_depth}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"EfficientDet: {name} is {count}, expected 1 or more")
    if settings.channels < 8 or settings.channels % 8:
        raise ValueError(f"EfficientDet: channels is {settings.channels}, expected a multiple of 8")


def _activation(settings: Settings) -> nn.Module:
    return nn.ReLU6(inplace=True) if settings.backbone.lite else nn.SiLU(inplace=True)


def _pool(settings: Settings) -> nn.Module:
    return SamePool() if settings.tensorflow else nn.MaxPool2d(3, stride=2, padding=1)


def _projection(inputs: Channels, outputs: Channels, settings: Settings) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        SlimConv(inputs, outputs, 1, bias=settings.tensorflow), SlimBatchNorm(outputs, eps=NORM_EPS)
    )  # fmt: skip


# backbone's width and depth, side in pixels; channels, cells, depth of the heads (table 1)
SETTINGS: dict[str, Settings] = {
    "tf_efficientdet_d0": Settings(Scaling(1.0, 1.0, 512), 64, 3, 3),
    "tf_efficientdet_d1": Settings(Scaling(1.0, 1.1, 640), 88, 4, 3),
    "tf_efficientdet_d2": Settings(Scaling(1.1, 1.2, 768), 112, 5, 3),
    "tf_efficientdet_d3": Settings(Scaling(1.2, 1.4, 896), 160, 6, 4),
    "tf_efficientdet_d4": Settings(Scaling(1.4, 1.8, 1024), 224, 7, 4),
    "tf_efficientdet_d5": Settings(Scaling(1.6, 2.2, 1280), 288, 7, 4),
    "tf_efficientdet_d6": Settings(Scaling(1.8, 2.6, 1280), 384, 8, 5, weighted=False),
    "tf_efficientdet_d7": Settings(Scaling(1.8, 2.6, 1536), 384, 8, 5, weighted=False, anchor_scale=5.0),
    "tf_efficientdet_lite0": Settings(
        Scaling(1.0, 1.0, 320, lite=True), 64, 3, 3, weighted=False, anchor_scale=3.0
    ),
    "efficientdet_d0": Settings(Scaling(1.0, 1.0, 512), 64, 3, 3, tensorflow=False),
}  # fmt: skip


def changed_detector(
    name: str, num_classes: int = 90, *, backbone_width: float | None = None, backbone_depth: float | None = None,
    **changes: object,
) -> EfficientDet:  # fmt: skip
    """A variant, some of its settings changed.

    Args:
        name: a key of SETTINGS.
        num_classes: as `EfficientDet`.
        backbone_width, backbone_depth: in place of the variant's `Scaling`.
        changes: fields of `Settings` but the backbone.
    Raises:
        TypeError: there is no such setting.
        ValueError: as `EfficientDet`.
    """
    settings = SETTINGS[name]
    backbone = settings.backbone
    width, depth = backbone_width or backbone.width, backbone_depth or backbone.depth
    backbone = replace(backbone, width=width, depth=depth)
    return EfficientDet(num_classes, settings=replace(settings, **{"backbone": backbone, **changes}))


VARIANTS: dict[str, Callable[..., EfficientDet]] = {name: partial(changed_detector, name) for name in SETTINGS}
