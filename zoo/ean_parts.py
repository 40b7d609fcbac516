"""Parts of EAN: latent motion code, event adaptive block, transformer over soft objects (arXiv:2107.10771).

Their width is fixed: the mix of channels that the event adaptive block predicts is one full matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clips import fold, unfold

PATCH = 16  # pixels of the halved frame; eight feature pixels at a quarter of the frame's size
FEATURE_PATCH = 8
COLOURS = 3
DIFFERENCES = 4  # between the five frames of a segment
GRID = 7  # the position code's rows and columns: the last feature map of 224 pixels
OBJECTS = 4  # tokens per segment
HEADS = 8


def cut_patches(x: Tensor, size: int) -> Tensor:
    """Square patches as channels.

    Args:
        x: (N, C, T, rows * size, columns * size), float.
        size: side of a patch in pixels.
    Returns:
        (N, size * size * C, T, rows, columns); a channel is row in the patch, then column, then C, slowest first.
    """
    count, channels, times, height, width = x.shape
    cut = x.reshape(count, channels, times, height // size, size, width // size, size)
    return cut.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3)


def join_patches(x: Tensor, size: int) -> Tensor:
    """Put patches that lie in the channels back in their places, the reverse of `cut_patches`.

    Args:
        x: (N, size * size * C, T, rows, columns), float.
        size: side of a patch in pixels.
    Returns:
        (N, C, T, rows * size, columns * size).
    """
    count, values, times, rows, columns = x.shape
    cut = x.reshape(count, size, size, values // (size * size), times, rows, columns)
    return cut.permute(0, 3, 4, 5, 1, 6, 2).reshape(count, -1, times, rows * size, columns * size)


def conv_norm(inputs: int, outputs: int, kernel_size: int, groups: int = 1) -> list[nn.Module]:
    """A 3-d convolution without bias that keeps the size, and its batch norm."""
    padding = kernel_size // 2
    convolution = nn.Conv3d(inputs, outputs, kernel_size, padding=padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm3d(outputs)]


class PatchMotion(nn.Module):
    """What moves between neighbouring frames of a segment, patch by patch.

    Each difference of two frames is cut into patches of 16x16; every patch becomes one vector, two residual blocks
    look at neighbours in space and time, and each vector becomes 8x8 pixels again.

    Args:
        channels: of the result, four times what each difference contributes.
        deep: a hidden layer with batch norm in the way in and in the way out.
    Shapes: (N, 3, 4, H, W) float -> (N, channels, H / 2, W / 2); H and W are multiples of 16.
    """

    def __init__(self, channels: int, deep: bool) -> None:
        super().__init__()
        vector, pixels = 4 * channels, COLOURS * PATCH**2
        feature_pixels = FEATURE_PATCH**2 * (channels // DIFFERENCES)
        last = nn.Conv3d(vector, feature_pixels, 1, bias=False)
        if deep:
            inward = [*conv_norm(pixels, vector, 1), nn.ReLU(inplace=True), nn.Conv3d(vector, vector, 1, bias=False)]
            outward = [*conv_norm(vector, vector, 1), nn.ReLU(inplace=True), last]
        else:
            inward, outward = [nn.Conv3d(pixels, vector, 1, bias=False)], [last]
        self.project, self.spread = nn.Sequential(*inward), nn.Sequential(*outward)
        self.first = nn.Sequential(
            *conv_norm(vector, vector, 3, groups=16), nn.ReLU(inplace=True), *conv_norm(vector, vector, 1)
        )
        self.second = nn.Sequential(*conv_norm(vector, vector, 3, groups=16))

    def forward(self, differences: Tensor) -> Tensor:
        x = self.project(cut_patches(differences, PATCH))
        x = x + self.first(x)
        x = x + self.second(x)
        return join_patches(self.spread(x), FEATURE_PATCH).flatten(1, 2)


class StackedMotion(nn.Module):
    """2-d convolutions over the four differences of a segment lying behind each other.

    Shapes: (N, 3, 4, H, W) float -> (N, channels, H / 2, W / 2); H and W are even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(COLOURS * DIFFERENCES, 24, 3, stride=2, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(24),
            nn.Conv2d(24, channels, 3, padding=1, groups=4, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1, groups=16, bias=False),
        )

    def forward(self, differences: Tensor) -> Tensor:
        return self.body(differences.flatten(1, 2))


class ThreeFields(nn.Module):
    """Three receptive fields side by side: a third of the channels as it is, a third convolved, the rest dilated by 2.

    Shapes: (N, channels, T, H, W) float -> the same; the kernel has one or three taps along each of T, H and W.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int, int]) -> None:
        super().__init__()
        third = channels // 3
        rest = channels - 2 * third
        near, far = (tuple(size // 2 * dilation for size in kernel_size) for dilation in (1, 2))
        self.sizes = (third, third, rest)
        self.near = nn.Conv3d(third, third, kernel_size, padding=near, bias=False)
        self.far = nn.Conv3d(rest, rest, kernel_size, padding=far, dilation=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        same, near, far = x.split(self.sizes, 1)
        return torch.cat([same, self.near(near), self.far(far)], 1)


class MixPredictor(nn.Module):
    """A small 3-d network that looks at a clip and gives one matrix over the channels.

    Shapes: (N, channels, T, H, W) float -> (N, channels out, channels in).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        width = max(1, channels // 16)
        self.body = nn.Sequential(*conv_norm(channels, width, 1), nn.ReLU(inplace=True))
        for inputs, outputs, stride in ((1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 2, 1), (2, 4, 2)):
            # padding is as large as the stride: the strided convolutions also look one step beyond the border
            self.body.append(nn.Conv3d(inputs * width, outputs * width, 3, stride=stride, padding=stride))
            self.body.extend([nn.BatchNorm3d(outputs * width), nn.ReLU(inplace=True)])
        self.to_matrix = nn.Linear(4 * width, channels * channels)

    def forward(self, x: Tensor) -> Tensor:
        summary = self.body(x).mean((2, 3, 4))
        return self.to_matrix(summary).unflatten(1, (self.channels, self.channels))


class EventAdaptiveBlock(nn.Module):
    """Receptive fields of several sizes in time and in space, combined anew for each clip.

    A matrix that the clip itself predicts stands between the temporal and the spatial fields, so each spatial field
    sees the mix of durations that suits the event: this is a convolution whose scale is dynamic. Residual; starts
    almost as the identity.

    Args:
        channels: a multiple of 16.
        per_clip: frames of a clip, T.
    Shapes: frames (N*T, channels, H, W) float -> the same.
    """

    def __init__(self, channels: int, per_clip: int) -> None:
        super().__init__()
        inner = channels // 4
        self.per_clip = per_clip
        self.reduce = nn.Conv3d(channels, inner, 1, groups=4, bias=False)
        self.predict_mix = MixPredictor(inner)
        self.temporal = nn.Sequential(ThreeFields(inner, (3, 1, 1)), nn.BatchNorm3d(inner), nn.ReLU(inplace=True))
        self.spatial = ThreeFields(inner, (1, 3, 3))
        self.strongest = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), nn.Conv3d(inner, inner, 1, bias=False))
        self.expand = nn.Conv3d(inner, channels, 1, groups=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(unfold(x, self.per_clip).transpose(1, 2))
        fields = self.temporal(reduced)
        # a batched product, not a convolution grouped by clips: a graph for any batch size can hold it
        mixed = (self.predict_mix(reduced) @ fields.flatten(2)).reshape(fields.shape)
        return x + fold(self.expand(self.spatial(mixed) + self.strongest(reduced)))


class TokenAttention(nn.Module):
    """Self-attention in eight heads over batch-normalised tokens, added to them.

    Shapes: (N, tokens, channels) float -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, channels = x.shape
        qkv = self.qkv(self.norm(x.transpose(1, 2)).transpose(1, 2))
        q, k, v = qkv.reshape(count, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(2, 3) * (channels // HEADS) ** -0.5).softmax(3)
        return x + self.output((weights @ v).transpose(1, 2).reshape(count, tokens, channels))


class TokenLayers(nn.Module):
    """Three linear layers with batch norm on each token, added to it.

    Shapes: (N, tokens, channels) float -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = [nn.Linear(channels, channels), nn.BatchNorm1d(channels), nn.ReLU(inplace=True)]
        again = [nn.Linear(channels, channels), nn.BatchNorm1d(channels), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(nn.BatchNorm1d(channels), *hidden, *again, nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x.flatten(0, 1)).reshape(x.shape)


class SparseObjects(nn.Module):
    """SOI-Tr: four tokens for each segment, a transformer over all of them, added to the pooled features.

    A token is a weighted sum over the positions of its segment, by a map that a small network scores. The selection is
    soft: every position has some weight. The position code is learned on a 7x7 grid and resized to other grids.

    Args:
        channels: of the features; the tokens have a quarter of them.
        per_clip: segments of a clip, T; the position code has one grid for each.
    Shapes: clips (N, channels, T, H, W) float -> (N, channels).
    """

    def __init__(self, channels: int, per_clip: int) -> None:
        super().__init__()
        inner, scored = channels // 4, channels // 16
        self.squeeze = nn.Conv3d(channels, inner, 1, bias=False)
        layers: list[nn.Module] = []
        for inputs, kernel in ((inner, (1, 1, 1)), (scored, (3, 3, 3)), (scored, (1, 3, 3))):
            padding = tuple(size // 2 for size in kernel)
            layers += [nn.Conv3d(inputs, scored, kernel, padding=padding), nn.ReLU(inplace=True)]
            layers += [nn.BatchNorm3d(scored)]
        self.score = nn.Sequential(*layers, nn.Conv3d(scored, OBJECTS, (1, 3, 3), padding=(0, 1, 1)))
        self.position = nn.Parameter(torch.randn(inner, per_clip * GRID * GRID))
        self.transformer = nn.Sequential(
            *(layer for _ in range(2) for layer in (TokenAttention(inner), TokenLayers(inner)))
        )
        self.expand = nn.Linear(inner, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.transformer(self.tokens(self.squeeze(x)))
        return self.norm(self.expand(tokens.mean(1))) + x.mean((2, 3, 4))

    def tokens(self, x: Tensor) -> Tensor:
        """Weighted sums over positions: (N, channels / 4, T, H, W) -> (N, 4 * T, channels / 4)."""
        weights = self.score(x).flatten(3).softmax(3)  # (N, 4, T, H*W)
        values = (x + self.position_code(x.shape[3], x.shape[4])).flatten(3)
        return (values.unsqueeze(2) * weights.unsqueeze(1)).sum(4).flatten(2).transpose(1, 2)

    def position_code(self, height: int, width: int) -> Tensor:
        """The code (channels / 4, T, height, width), bilinear between the learned positions."""
        code = self.position.unflatten(1, (-1, GRID, GRID))
        if (height, width) == (GRID, GRID):
            return code
        return F.interpolate(code, (height, width), mode="bilinear", align_corners=False)
