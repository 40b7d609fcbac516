"""Parts of MViT (zoo/mvit.py): tokens on a grid, separable position codes, pooling attention and its block.

Everything here works on clips, whose grid is (T, H, W), and on pictures, whose grid is (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, ...]
NORM_EPS = 1e-6
MLP_RATIO = 4
_INTERPOLATION = {1: "linear", 2: "bilinear"}


class Tokens(NamedTuple):
    """The state between blocks."""

    values: Tensor
    """(N, 1 + places, channels) float: the class token, then the grid's places, the last axis fastest."""
    grid: Grid
    """(T, H, W) of a clip, (H, W) of a picture."""


def convolution(
    inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int], *, groups: int = 1, bias: bool = True
) -> nn.Module:
    """A padded convolution over as many axes as the kernel has: three for clips, two for pictures."""
    kind: type[nn.Conv2d | nn.Conv3d] = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
    padding = tuple(size // 2 for size in kernel)
    return kind(inputs, outputs, tuple(kernel), tuple(stride), padding, groups=groups, bias=bias)


def resized_table(table: Tensor, trained: Grid, grid: Grid) -> Tensor:
    """A table of position codes for another grid than the one it was learned on.

    Args:
        table: (1, places of the trained grid, channels), the last axis of the grid fastest.
        trained: the table's grid, one axis (frames) or two (rows, columns).
        grid: the wanted one, with as many axes.
    Returns:
        (1, places, channels): the table itself at its own grid, elsewhere (bi)linearly between the cell centres,
        and beyond the outermost centres the code of the border.
    """
    if grid == trained:
        return table
    cells = table.transpose(1, 2).unflatten(2, trained)
    return F.interpolate(cells, grid, mode=_INTERPOLATION[len(grid)], align_corners=False).flatten(2).transpose(1, 2)


class SeparablePosition(nn.Module):
    """Learned position codes: of the place in the frame plus of the frame, and one of the class token.

    Args:
        trained: the grid of the tables, (T, H, W), or (H, W) where there are no frames.
        channels: of the tokens.
    """

    def __init__(self, trained: Grid, channels: int) -> None:
        super().__init__()
        self.trained = trained
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.spatial = nn.Parameter(torch.zeros(1, trained[-2] * trained[-1], channels))
        self.temporal = nn.Parameter(torch.zeros(1, trained[0], channels)) if len(trained) == 3 else None

    def forward(self, grid: Grid) -> Tensor:
        """Codes (1, 1 + places, channels) for any grid, class token first."""
        places = resized_table(self.spatial, self.trained[-2:], grid[-2:])
        if self.temporal is not None:
            frames = resized_table(self.temporal, self.trained[:1], grid[:1])
            places = (frames[:, :, None] + places[:, None]).flatten(1, 2)
        return torch.cat([self.class_token, places], 1)


class PatchStem(nn.Module):
    """Overlapping patches (cubes of a clip) to tokens, with the class token in front and the position codes added.

    Patches are 7x7 pixels, every 4; of a clip they span 3 frames, every 2.

    Args:
        in_channels: of the input.
        channels: of the tokens.
        trained: the grid of the position tables; its axes tell clips from pictures.
    Shapes: (N, in_channels, T, H, W) or (N, in_channels, H, W) float -> Tokens.
    Raises:
        ValueError: in the forward pass, the input has other axes or channels.
    """

    def __init__(self, in_channels: int, channels: int, trained: Grid) -> None:
        super().__init__()
        self.axes, self.in_channels = len(trained), in_channels
        self.patches = convolution(in_channels, channels, (3, 7, 7)[-self.axes :], (2, 4, 4)[-self.axes :])
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.position = SeparablePosition(trained, channels)

    def forward(self, x: Tensor) -> Tokens:
        if x.dim() != self.axes + 2 or x.shape[1] != self.in_channels:
            expected = "clips (N, {}, T, H, W)" if self.axes == 3 else "pictures (N, {}, H, W)"
            raise ValueError(
                f"MViT: the input is {tuple(x.shape)}, expected {expected.format(self.in_channels)}; "
                "pictures are for mvit_b_16_in1k, clips for the other variants"
            )
        x = self.patches(x)
        grid = tuple(x.shape[2:])
        values = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return Tokens(values + self.position(grid), grid)


class TokenPool(nn.Module):
    """Pools the places of each head: a depthwise convolution, then layer norm over the head.

    All heads share its kernels. The class token has no neighbours and is normalised only.

    Args:
        channels: of one head.
        kernel: odd sizes along the axes of the grid.
        stride: in rows and columns; frames are never skipped.
    """

    def __init__(self, channels: int, kernel: Grid, stride: int) -> None:
        super().__init__()
        strides = (1, stride, stride)[-len(kernel) :]
        self.convolution = convolution(channels, channels, kernel, strides, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)

    def forward(self, tokens: Tokens) -> Tokens:
        """(N, heads, 1 + places, channels) -> the same with fewer places."""
        class_token, places = tokens.values[:, :, :1], tokens.values[:, :, 1:]
        cells = self.convolution(places.transpose(2, 3).flatten(0, 1).unflatten(2, tokens.grid))
        places = cells.flatten(2).unflatten(0, (-1, class_token.shape[1])).transpose(2, 3)
        return Tokens(self.norm(torch.cat([class_token, places], 2)), tuple(cells.shape[2:]))


class PoolPlan(NamedTuple):
    """What one block's attention pools, and with which kernels."""

    axes: int
    """Of the grid: 3 for clips, 2 for pictures."""
    query_stride: int
    """In rows and columns; with 1 the queries stay as they are."""
    key_stride: int
    """Of keys and values."""
    in_frame: bool
    """Kernels of stride + 1 rows and columns in one frame, and none for stride 1, instead of 3 along every axis."""

    def pool(self, channels: int, stride: int) -> nn.Module:
        """A pool of heads of so many channels; one that changes nothing where `in_frame` has no kernel."""
        if self.in_frame and stride == 1:
            return nn.Identity()
        kernel = (1, stride + 1, stride + 1) if self.in_frame else (3, 3, 3)
        return TokenPool(channels, kernel[-self.axes :], stride)


class PoolingAttention(nn.Module):
    """Multi-head attention whose keys and values are pooled, and at a change of scale the queries too.

    Args:
        channels: of the tokens; divides by `heads`.
        heads: of the attention.
        plan: the pools.
    """

    def __init__(self, channels: int, heads: int, plan: PoolPlan) -> None:
        super().__init__()
        self.heads, per_head = heads, channels // heads
        self.scale = per_head**-0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.query_pool = plan.pool(per_head, plan.query_stride) if plan.query_stride > 1 else nn.Identity()
        self.key_pool, self.value_pool = (plan.pool(per_head, plan.key_stride) for _ in range(2))

    def forward(self, tokens: Tokens) -> Tokens:
        """(N, 1 + places, channels) -> the same on the grid of the pooled queries."""
        qkv = self.qkv(tokens.values).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = (Tokens(values, tokens.grid) for values in qkv.unbind(0))
        q, k, v = self.query_pool(q), self.key_pool(k), self.value_pool(v)
        mixed = (q.values * self.scale @ k.values.transpose(2, 3)).softmax(3) @ v.values
        return Tokens(self.output(mixed.transpose(1, 2).flatten(2)), q.grid)


def max_pooled(tokens: Tokens) -> Tensor:
    """The places pooled by 3x3 maxima with stride 2 inside each frame; the class token stays.

    Returns:
        values (N, 1 + pooled places, channels).
    """
    count, _, channels = tokens.values.shape
    frames = tokens.values[:, 1:].reshape(-1, *tokens.grid[-2:], channels).permute(0, 3, 1, 2)
    pooled = F.max_pool2d(frames, 3, stride=2, padding=1).permute(0, 2, 3, 1)
    return torch.cat([tokens.values[:, :1], pooled.reshape(count, -1, channels)], 1)


class DropPath(nn.Module):
    """In training, drops a residual branch for whole samples (Huang et al. 2016, arXiv:1603.09382).

    Args:
        rate: probability of dropping; the kept ones are scaled up, so that the mean stays.
    Shapes: (N, ...) -> the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(1.0 - self.rate)
        return x * kept / (1.0 - self.rate)


class PoolingBlock(nn.Module):
    """Pooling attention and two linear layers, each on normalised tokens and added to what came in.

    Where the queries are pooled, the tokens that they are added to are max-pooled. Where the channels change, the
    second layer pair changes them, and what it is added to is a linear layer of its normalised input.

    Args:
        inputs, outputs: channels before and after.
        heads: of the attention.
        plan: the pools of the attention.
        drop_path: rate of `DropPath` on both branches.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, plan: PoolPlan, drop_path: float) -> None:
        super().__init__()
        self.pools = plan.query_stride > 1
        self.attention_norm = nn.LayerNorm(inputs, eps=NORM_EPS)
        self.attention = PoolingAttention(inputs, heads, plan)
        self.mlp_norm = nn.LayerNorm(inputs, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(inputs, MLP_RATIO * inputs), nn.GELU(), nn.Linear(MLP_RATIO * inputs, outputs)
        )
        self.widening = None if inputs == outputs else nn.Linear(inputs, outputs)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tokens) -> Tokens:
        attended, grid = self.attention(tokens._replace(values=self.attention_norm(tokens.values)))
        x = (max_pooled(tokens) if self.pools else tokens.values) + self.drop_path(attended)
        normed = self.mlp_norm(x)
        base = x if self.widening is None else self.widening(normed)
        return Tokens(base + self.drop_path(self.mlp(normed)), grid)
