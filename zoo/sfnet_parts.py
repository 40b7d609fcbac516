"""Parts of SFNet (Li et al., arXiv:2002.10120) and SFNet-Lite (arXiv:2207.04415): flow alignment, heads, loss.

A small map of meaning is not simply enlarged: a convolution that sees both maps says, for each fine position, where
in the coarse map to read. SFNet does so at every level of a pyramid; SFNet-Lite once, in both directions, and mixes
the two results by a gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.export_form import ExportForm
from zoo.sfnet_backbones import Counts, convolution_norm_relu
from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv

POOLED_SIZES = (1, 2, 3, 6)
DROPPED = 0.1  # share of the channels that training drops behind the pyramid pooling and before auxiliary scores
IGNORED = 255  # label of a pixel that no loss counts (Cityscapes)
CERTAIN = 0.7  # pixels whose own class is more probable than this are easy
MIN_KEPT = 100_000  # pixels of a batch that the loss keeps at least


def resize(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Bilinear, corner pixels stay corners: (N, C, H, W) float -> (N, C, *size_hw)."""
    return F.interpolate(x, size=(size_hw[0], size_hw[1]), mode="bilinear", align_corners=True)


def base_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Where each pixel of a map reads when nothing moves.

    Returns:
        (1, height, width, 2) float32: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom).
    """
    rows, columns = (torch.linspace(-1.0, 1.0, size, device=device) for size in (height, width))
    grid = [columns.view(1, -1).expand(height, width), rows.view(-1, 1).expand(height, width)]
    return torch.stack(grid, 2).unsqueeze(0)


def warp(feature: Tensor, flow: Tensor, grid: Tensor | None = None) -> Tensor:
    """Read a feature map at the positions that a flow says, bilinearly; outside of the map it is zero.

    Args:
        feature: (N, C, h, w) float.
        flow: (N, 2, H, W) float: x and y in half pixels of the output (a flow of W is half of the map), whatever the
            size of the feature.
        grid: `base_grid(H, W)` on the flow's device, where it is computed already.
    Returns:
        (N, C, H, W) of the feature's type; positions are float32 at least, half precision would miss pixels.
    Raises:
        ValueError: the flow is not two channels for each picture of the feature's batch.
    """
    if flow.dim() != 4 or flow.shape[:2] != (feature.shape[0], 2):
        raise ValueError(
            f"warp: flow is {tuple(flow.shape)}, expected ({feature.shape[0]}, 2, H, W): x and y for each picture"
        )
    height, width = flow.shape[-2:]
    if grid is None:
        grid = base_grid(height, width, flow.device)
    places = grid + torch.stack([flow[:, 0] / width, flow[:, 1] / height], 3)
    values = feature.to(places.dtype)
    return F.grid_sample(values, places, mode="bilinear", padding_mode="zeros", align_corners=True).to(feature.dtype)


class BaseGrid(ExportForm):
    """`base_grid` of the size of its input; in a graph for one size it is a constant.

    Shapes: (N, C, H, W) float -> (1, H, W, 2) float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        return base_grid(x.shape[-2], x.shape[-1], x.device)

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The grid of this size, computed before export."""
        return self if size_hw is None else ConstantGrid(base_grid(*size_hw))


class ConstantGrid(nn.Module):
    """A grid that was computed before; the input is not looked at."""

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.register_buffer("grid", grid)

    def forward(self, x: Tensor) -> Tensor:
        return self.grid


class PyramidPooling(ExportForm):
    """Averages over 1, 2x2, 3x3 and 6x6 parts of the picture beside the feature (Zhao et al., arXiv:1612.01105).

    Exported for one size: a graph for any size cannot say which pixels belong to a part. Training needs a batch of two
    pictures or more, since a norm follows the average of the whole picture.

    Args:
        inputs: channel counts of the feature.
        outputs: channels of each average and of the result.
    Shapes: (N, inputs, H, W) float -> (N, outputs, H, W).
    """

    needs_size = True

    def __init__(self, inputs: Counts, outputs: Channels) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), SlimConv(Joined(inputs), outputs, 1), SlimBatchNorm(outputs))
            for size in POOLED_SIZES
        )
        joined = Joined((outputs,) * len(POOLED_SIZES) + inputs)
        self.join = nn.Sequential(convolution_norm_relu(joined, outputs, 1), nn.Dropout2d(DROPPED))

    def forward(self, x: Tensor) -> Tensor:
        averages = [resize(branch(x), x.shape[-2:]) for branch in self.branches]
        return self.join(torch.cat([*averages, x], 1))

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The module itself: at one size its averages have fixed parts."""
        return self


class FlowAlignment(nn.Module):
    """FAM: a coarse map on the grid of a fine one, each position read where the flow between the two says.

    Args:
        channels: of both maps; an even number.
    Shapes: fine (N, channels, H, W), coarse (N, channels, h, w) float -> (N, channels, H, W).
    """

    flows = 1

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        half = Channels(channels.base // 2, channels.divisor)
        self.reduce_fine, self.reduce_coarse = SlimConv(channels, half, 1), SlimConv(channels, half, 1)
        self.flow = SlimConv(Joined((half, half)), 2 * self.flows, 3)
        self.grid = BaseGrid()

    def compare(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """The flows (N, 2 * flows, H, W), and the coarse map with half of its channels, resized (N, half, H, W)."""
        reduced = resize(self.reduce_coarse(coarse), fine.shape[-2:])
        return self.flow(torch.cat([reduced, self.reduce_fine(fine)], 1)), reduced

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        flow, _ = self.compare(fine, coarse)
        return warp(coarse, flow, self.grid(flow))


class GatedDualFlow(FlowAlignment):
    """GD-FAM: one flow moves the coarse map, another the fine one, and a gate for each position mixes the two.

    The gate sees mean and maximum over channels of the resized, reduced coarse map and of the fine map, which is not
    reduced (as in the authors' code).

    Shapes: fine (N, channels, H, W), coarse (N, channels, h, w) float -> (N, channels, H, W).
    """

    flows = 2

    def __init__(self, channels: Channels) -> None:
        super().__init__(channels)
        self.gate = SlimConv(4, 1, 3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        flow, reduced = self.compare(fine, coarse)
        grid = self.grid(flow)
        maps = (reduced, fine)
        seen = [x.mean(1, keepdim=True) for x in maps] + [x.amax(1, keepdim=True) for x in maps]
        gate = self.gate(torch.cat(seen, 1)).sigmoid()
        return gate * warp(coarse, flow[:, :2], grid) + (1 - gate) * warp(fine, flow[:, 2:], grid)


class Merged(NamedTuple):
    """What a head makes of the backbone's features."""

    joined: Tensor
    """(N, channels together, H, W) on the grid of the finest feature."""
    levels: list[Tensor]
    """Maps (N, channels, h, w) that deep supervision reads, finest first."""


class FlowHead(nn.Module):
    """From the features of a backbone to class scores on the grid of the finest one.

    Subclasses give `merge` and the number of maps that it joins and supervises.

    Args:
        channels: of every map in the head.
        joined: maps that `merge` puts behind each other.
        supervised: levels with scores of their own, in training only; 0 without deep supervision.
        num_classes: class scores; not slimmed.
    Shapes: features (N, counts of the stage, h, w) float, finest first -> (N, num_classes, H, W).
    """

    def __init__(self, channels: Channels, joined: int, supervised: int, num_classes: int) -> None:
        super().__init__()
        self.supervision = nn.ModuleList(_auxiliary_scores(channels, num_classes) for _ in range(supervised))
        self.classifier = nn.Sequential(
            convolution_norm_relu(Joined((channels,) * joined), channels, 3),
            SlimConv(channels, num_classes, 1, bias=True),
        )

    def merge(self, features: Sequence[Tensor]) -> Merged:
        """Bring meaning from the coarse maps to the fine ones."""
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.merge(features).joined)

    def forward_supervised(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The scores of `forward`, then those of each supervised level on its own grid."""
        merged = self.merge(features)
        levels = zip(self.supervision, merged.levels, strict=True)
        return [self.classifier(merged.joined), *(scores(level) for scores, level in levels)]


class FlowPyramid(FlowHead):
    """The head of SFNet: a feature pyramid whose every step down is a flow alignment; all levels are joined.

    Args:
        counts: channels of each feature, finest first.
        channels: of the pyramid.
        num_classes: class scores.
        deep_supervision: scores for every level below the top, in training only.
    """

    def __init__(self, counts: Sequence[Counts], channels: Channels, num_classes: int, deep_supervision: bool) -> None:
        steps = len(counts) - 1
        super().__init__(channels, len(counts), steps if deep_supervision else 0, num_classes)
        self.context = PyramidPooling(counts[-1], channels)
        self.laterals = nn.ModuleList(_lateral(inputs, channels) for inputs in counts[:-1])
        self.alignments = nn.ModuleList(FlowAlignment(channels) for _ in range(steps))
        self.smoothing = nn.ModuleList(convolution_norm_relu(channels, channels, 3) for _ in range(steps))

    def merge(self, features: Sequence[Tensor]) -> Merged:
        """Top down: lateral plus aligned coarser level; the levels, each smoothed, on the finest grid."""
        coarse = self.context(features[-1])
        levels: list[Tensor] = []
        joined = [coarse]
        steps = zip(self.laterals, self.alignments, self.smoothing, features[:-1], strict=True)
        for lateral, align, smooth, feature in reversed(list(steps)):
            fine = lateral(feature)
            coarse = fine + align(fine, coarse)
            levels.insert(0, coarse)
            joined.insert(0, smooth(coarse))
        size_hw = joined[0].shape[-2:]
        return Merged(torch.cat([joined[0], *(resize(level, size_hw) for level in joined[1:])], 1), levels)


class LiteHead(FlowHead):
    """The head of SFNet-Lite: one gated dual flow between the finest feature and the pooled last one.

    The third feature (stride 16) is resized and joined. Deep supervision reads the result of the dual flow; the
    authors' code builds these scores without using them.

    Args:
        counts: channels of the four features, finest first.
        channels: of every map in the head.
        num_classes: class scores.
        deep_supervision: scores for the aligned map, in training only.
    Raises:
        ValueError: there are not four features.
    """

    def __init__(self, counts: Sequence[Counts], channels: Channels, num_classes: int, deep_supervision: bool) -> None:
        if len(counts) != 4:
            raise ValueError(f"LiteHead: {len(counts)} features, expected 4; choose a ResNet-D or STDC backbone")
        super().__init__(channels, 2, int(deep_supervision), num_classes)
        self.context = PyramidPooling(counts[3], channels)
        self.fine, self.middle = _lateral(counts[0], channels), _lateral(counts[2], channels)
        self.alignment = GatedDualFlow(channels)

    def merge(self, features: Sequence[Tensor]) -> Merged:
        """The aligned map and the resized third feature."""
        aligned = self.alignment(self.fine(features[0]), self.context(features[3]))
        middle = resize(self.middle(features[2]), aligned.shape[-2:])
        return Merged(torch.cat([aligned, middle], 1), [aligned])


def hard_pixel_loss(
    logits: Tensor, labels: Tensor, *, certain: float = CERTAIN, min_kept: int = MIN_KEPT, ignored: int = IGNORED
) -> Tensor:
    """Cross-entropy of the hard pixels (OHEM, Shrivastava et al., arXiv:1604.03540).

    Hard are pixels whose own class has probability `certain` or less; where these are fewer than `min_kept`, the
    `min_kept` least probable ones of the batch.

    Args:
        logits: (N, classes, H, W) float.
        labels: (N, H, W) int64 on the same device.
        certain: 0 < certain < 1.
        min_kept: at least 1.
        ignored: label that is not counted.
    Returns:
        the mean over the kept pixels, a scalar; zero where no pixel counts.
    Raises:
        ValueError: shapes do not fit, or a number is out of its range.
    """
    if not 0.0 < certain < 1.0 or min_kept < 1:
        raise ValueError(
            f"hard_pixel_loss: certain is {certain} and min_kept {min_kept}, expected 0 < certain < 1 and min_kept >= 1"
        )
    if logits.dim() != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"hard_pixel_loss: labels are {tuple(labels.shape)} and logits {tuple(logits.shape)}, expected (N, H, W) "
            "and (N, classes, H, W); resize the logits to the labels"
        )
    losses = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none")[labels != ignored]
    if losses.numel() == 0:
        return logits.sum() * 0.0
    if losses.numel() > min_kept:
        last_kept = losses.detach().topk(min_kept).values[-1]
        losses = losses[losses >= last_kept.clamp(max=-math.log(certain))]
    return losses.mean()


def _lateral(inputs: Counts, channels: Channels) -> nn.Sequential:
    """A feature of the backbone with the channels of the head."""
    return nn.Sequential(SlimConv(Joined(inputs), channels, 1, bias=True), SlimBatchNorm(channels), nn.ReLU())


def _auxiliary_scores(channels: Channels, num_classes: int) -> nn.Sequential:
    """Class scores of one level, for deep supervision."""
    return nn.Sequential(
        SlimConv(channels, channels, 3, bias=True),
        SlimBatchNorm(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(DROPPED),
        SlimConv(channels, num_classes, 1, bias=True),
    )
