"""MViT v1: multiscale vision transformers for clips and pictures (Fan et al. 2021, arXiv:2104.11227).

A transformer in scales: from one to the next the grid halves and channels and heads double. The grid shrinks by pooling
the queries; keys and values are pooled further, so that attention over early, large grids stays affordable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from zoo.mvit_parts import NORM_EPS, Grid, PatchStem, PoolingBlock, PoolPlan, SeparablePosition, Tokens
from zoo.slim_layers import SlimError
from zoo.slim_net import FeatureInfo, SlimNet

PATCH_STRIDE = 4
FRAME_STRIDE = 2


class MViT(SlimNet):
    """MViT-B and its relatives; resolution and clip length are knobs, the width is fixed.

    The position tables belong to the trained grid and are interpolated to any other. All heads have as many channels as
    the first scale has, which has one head: a narrower subnet has no head to leave out, so there is none.

    Args:
        num_classes: class scores.
        frames: of the training clips, for the size of the position table; None builds the network for pictures, whose
            patches and pooling have no time axis.
        resolution: pixels of a side in training, for the size of the position table.
        depths: blocks of each scale.
        channels: of the first scale, and of every head.
        key_stride: of the pooled keys and values in the first scale; it halves with each scale, down to 1.
        in_frame_pools: the attention pools with kernels of stride + 1 rows and columns inside the frame, and not at all
            where that stride is 1; otherwise with kernels of 3 along every axis.
        drop_path: rate of dropped branches in the last block; it grows linearly from 0 in the first.
        dropout: of the class token before the classifier.
        in_channels: channels of the input.
    Raises:
        ValueError: a number is out of its range.
    Shapes: clips (N, in_channels, T, H, W) float, with frames=None pictures (N, in_channels, H, W) -> logits
        (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        frames: int | None = 16,
        resolution: int = 224,
        depths: Sequence[int] = (1, 2, 11, 2),
        channels: int = 96,
        key_stride: int = 8,
        in_frame_pools: bool = False,
        drop_path: float = 0.2,
        dropout: float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check(frames, resolution, depths, key_stride, drop_path)
        grid: Grid = (_steps(resolution, PATCH_STRIDE),) * 2
        if frames is not None:
            grid = (_steps(frames, FRAME_STRIDE), *grid)
        self.stem = PatchStem(in_channels, channels, grid)
        self.stages = _stages(channels, depths, len(grid), key_stride, in_frame_pools, drop_path)
        last = len(depths) - 1
        widths = [channels * 2 ** min(scale + 1, last) for scale in range(len(depths))]
        self.feature_info = [FeatureInfo(width, PATCH_STRIDE * 2**scale) for scale, width in enumerate(widths)]
        self.head_norm = nn.LayerNorm(widths[-1], eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)
        _initialise(self)
        self.name_norms()

    def at(self, width: float, resolution: int | tuple[int, int]) -> contextlib.AbstractContextManager[None]:
        """As for every network, at the one width that there is.

        Raises:
            SlimError: the width is not 1.
        """
        if width != 1.0:
            raise SlimError(f"MViT: the width is {width}, but this network has one width only; use 1.0")
        return super().at(width, resolution)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The places after each scale as feature maps (N, channels, T, H, W), of pictures (N, channels, H, W).

        The class token is left out. The last block of a scale has the channels of the next one already.
        """
        tokens, features = self.stem(x), []
        for stage in self.stages:
            tokens = stage(tokens)
            features.append(tokens.values[:, 1:].transpose(1, 2).unflatten(2, tokens.grid))
        return features

    def forward_head(self, x: Tokens) -> Tensor:
        """The class token: layer norm, dropout, linear."""
        return self.classifier(self.dropout(self.head_norm(x.values[:, 0])))


def _check(frames: int | None, resolution: int, depths: Sequence[int], key_stride: int, drop_path: float) -> None:
    if not depths or min(depths) < 1:
        raise ValueError(f"MViT: depths is {tuple(depths)}, expected at least one block in each scale")
    if frames is not None and frames < 1:
        raise ValueError(f"MViT: frames is {frames}, expected at least 1, or None for pictures")
    if resolution < 1:
        raise ValueError(f"MViT: resolution is {resolution}, expected at least 1 pixel")
    if key_stride < 1 or key_stride & (key_stride - 1):
        raise ValueError(f"MViT: key_stride is {key_stride}, expected a power of two, which each scale can halve")
    if not 0.0 <= drop_path < 1.0:
        raise ValueError(f"MViT: drop_path is {drop_path}, expected 0 <= drop_path < 1")


def _steps(size: int, stride: int) -> int:
    """How many patches fit: the padding makes it the size over the stride, rounded up."""
    return -(-size // stride)


def _stages(
    channels: int, depths: Sequence[int], axes: int, key_stride: int, in_frame: bool, drop_path: float
) -> nn.ModuleList:
    """The blocks of each scale.

    The first block of a scale pools the queries, the last one doubles the channels for the next scale. The stride of
    keys and values halves in the first block already, whose input is still the larger grid.
    """
    last, total = len(depths) - 1, sum(depths)
    stages, built = nn.ModuleList(), 0
    for scale, depth in enumerate(depths):
        blocks = []
        for place in range(depth):
            plan = PoolPlan(axes, 2 if scale > 0 and place == 0 else 1, max(1, key_stride // 2**scale), in_frame)
            inputs = channels * 2**scale
            outputs = 2 * inputs if scale < last and place == depth - 1 else inputs
            blocks.append(PoolingBlock(inputs, outputs, 2**scale, plan, drop_path * built / max(1, total - 1)))
            built += 1
        stages.append(nn.Sequential(*blocks))
    return stages


def _initialise(model: nn.Module) -> None:
    """Linear layers, class token and position tables from a normal distribution of 0.02; convolutions as torch does."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        if isinstance(module, PatchStem | SeparablePosition):
            for parameter in module.parameters(recurse=False):
                nn.init.trunc_normal_(parameter, std=0.02)


# The published configuration of the 24-block network names no pooling kernel, so that its kernels follow the strides,
# and 400 classes; its published accuracy is for the 600 of Kinetics-600.
VARIANTS: dict[str, Callable[..., MViT]] = {
    "mvit_b_16x4": MViT,
    "mvit_b_32x3": partial(MViT, frames=32),
    "mvit_b_24_32x3": partial(MViT, frames=32, depths=(2, 3, 16, 3), in_frame_pools=True, drop_path=0.3),
    "mvit_b_16_in1k": partial(MViT, num_classes=1000, frames=None, key_stride=4, drop_path=0.1, dropout=0.0),
}
