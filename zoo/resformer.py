"""ResFormer: a vision transformer for any resolution (Tian et al. 2022, arXiv:2212.00776) on DeiT (arXiv:2012.12877).

No table of learned positions: a sine code of the current grid, passed through a depthwise convolution, tells where a
token is in the picture, and a depthwise convolution of the values tells it what lies beside it, in every block. Its own
training shows one picture at several resolutions; `scale_consistency` is the term that ties them together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.export_form import ExportForm
from zoo.slim_layers import Channels, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet
from zoo.slim_parameters import SlimLayerNorm, SlimParameter

HEAD_CHANNELS = 64
DEPTH = 12
STAGES = 4  # the blocks are alike; they are cut into equal parts for early exits and feature users
MLP_RATIO = 4


class Tokens(NamedTuple):
    """The state between blocks."""

    values: Tensor
    """(N, 1 + height * width, channels): the class token, then the patches row by row."""
    height: int
    width: int


class SinePosition(ExportForm):
    """A position code of the patch grid: sines of each axis scaled to a full turn, then a depthwise 3x3 convolution.

    Half of the channels tell the row, half the column; each as sine and cosine of growing wavelength.

    Args:
        channels: of the tokens.
    Shapes: (N, channels, H, W) -> (1, channels, H, W); only the size of the input matters.
    """

    def __init__(self, channels: Channels, temperature: float = 10000.0) -> None:
        super().__init__()
        self.full, self.temperature = channels.full, temperature
        self.mix = SlimConv(channels, channels, 3, groups=channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        # a narrow subnet keeps the first channels, as every other layer does
        return self.mix(self.code(x.shape[-2], x.shape[-1]).to(x)[:, : x.shape[1]])

    def code(self, height: int, width: int) -> Tensor:
        """Sines and cosines (1, full channels, H, W) float32."""
        half = self.full // 2
        exponents = torch.arange(0, half, 2, dtype=torch.float32) / half
        turns = []
        for size in (height, width):
            place = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * (2.0 * math.pi)
            angle = place[:, None] / self.temperature**exponents
            turns.append(torch.stack([angle.sin(), angle.cos()], 2).flatten(1))  # (size, half)
        rows = turns[0].T[:, :, None].expand(-1, -1, width)
        columns = turns[1].T[:, None, :].expand(-1, height, -1)
        return torch.cat([rows, columns]).unsqueeze(0)

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The code of one grid as a constant; a graph for any size computes it anew for each picture."""
        if size_hw is None:
            return self
        channels = self.mix.weight.shape[0]
        return ConstantPosition(self(torch.zeros(1, channels, *size_hw, device=self.mix.weight.device)).detach())


class ConstantPosition(nn.Module):
    """The position code of one grid, computed before export."""

    def __init__(self, code: Tensor) -> None:
        super().__init__()
        self.register_buffer("code", code)

    def forward(self, x: Tensor) -> Tensor:
        return self.code


class Attention(nn.Module):
    """Self-attention in heads of 64 channels, plus a depthwise 3x3 convolution of the patches' values.

    The kernels of that convolution are shared by all heads and start at zero; the class token has no neighbours.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.qkv = SlimLinear(channels, channels.repeated(3))
        self.local = SlimConv(HEAD_CHANNELS, HEAD_CHANNELS, 3, groups=HEAD_CHANNELS, bias=True)
        self.output = SlimLinear(channels, channels)

    def forward(self, tokens: Tokens) -> Tensor:
        """(N, 1 + height * width, channels) -> the same."""
        count, length, channels = tokens.values.shape
        q, k, v = self.qkv(tokens.values).reshape(count, length, 3, -1, HEAD_CHANNELS).permute(2, 0, 3, 1, 4).unbind(0)
        heads = q.shape[1]
        mixed = (q * HEAD_CHANNELS**-0.5 @ k.transpose(2, 3)).softmax(3) @ v
        patches = v[:, :, 1:].transpose(2, 3).reshape(count * heads, HEAD_CHANNELS, tokens.height, tokens.width)
        near = self.local(patches).reshape(count, heads, HEAD_CHANNELS, length - 1).transpose(2, 3)
        mixed = mixed + F.pad(near, (0, 0, 1, 0))
        return self.output(mixed.transpose(1, 2).reshape(count, length, channels))


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each on normalised tokens and added."""

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        hidden = channels.times(MLP_RATIO)
        self.attention_norm, self.mlp_norm = SlimLayerNorm(channels), SlimLayerNorm(channels)
        self.attention = Attention(channels)
        self.mlp = nn.Sequential(SlimLinear(channels, hidden), nn.GELU(), SlimLinear(hidden, channels))

    def forward(self, tokens: Tokens) -> Tokens:
        x = tokens.values + self.attention(tokens._replace(values=self.attention_norm(tokens.values)))
        return tokens._replace(values=x + self.mlp(self.mlp_norm(x)))


class PatchStem(nn.Module):
    """Patches to tokens, with the position code added and the class token in front."""

    def __init__(self, in_channels: int, channels: Channels, patch: int) -> None:
        super().__init__()
        self.patches = SlimConv(in_channels, channels, patch, stride=patch, padding=0, bias=True)
        self.position = SinePosition(channels)
        self.class_token = SlimParameter(torch.zeros(1, 1, channels.full), 1, 1, channels)

    def forward(self, x: Tensor) -> Tokens:
        x = self.patches(x)
        x = x + self.position(x)
        values = torch.cat([self.class_token().expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return Tokens(values, x.shape[2], x.shape[3])


class ResFormer(SlimNet):
    """ResFormer at any resolution that whole patches tile, square or not; widths are whole heads.

    Args:
        num_classes: class scores; not slimmed.
        heads: of 64 channels each.
        depth: blocks; a multiple of four.
        width_mult: multiplies the heads (a smaller full network).
        small_input: patches of 8 instead of 16 pixels.
        in_channels: channels of the picture.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        heads: int = 3,
        depth: int = DEPTH,
        width_mult: float = 1.0,
        small_input: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if depth % STAGES:
            raise ValueError(f"ResFormer: depth is {depth}, expected a multiple of {STAGES}")
        channels = Channels(max(1, round(heads * width_mult)), divisor=1).times(HEAD_CHANNELS)
        patch = 8 if small_input else 16
        self.stem = PatchStem(in_channels, channels, patch)
        self.stages = nn.ModuleList(
            nn.Sequential(*(TransformerBlock(channels) for _ in range(depth // STAGES))) for _ in range(STAGES)
        )
        self.feature_info = [FeatureInfo(channels.full, patch) for _ in range(STAGES)]
        self.head_norm = SlimLayerNorm(channels)
        self.classifier = SlimLinear(channels, num_classes)
        _initialise(self)
        self.name_norms()

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The patches after each stage as feature maps, without the class token."""
        tokens, features = self.stem(x), []
        for stage in self.stages:
            tokens = stage(tokens)
            patches = tokens.values[:, 1:].transpose(1, 2)
            features.append(patches.reshape(*patches.shape[:2], tokens.height, tokens.width))
        return features

    def forward_class_token(self, x: Tensor) -> Tensor:
        """The normalised class token (N, channels), which `scale_consistency` compares."""
        return self.head_norm(self.forward_until(x, len(self.stages)).values[:, 0])

    def forward_head(self, x: Tokens) -> Tensor:
        """The class token, layer norm, linear."""
        return self.classifier(self.head_norm(x.values[:, 0]))


def scale_consistency(class_tokens: Sequence[Tensor]) -> Tensor:
    """How far each resolution's class token is from the next larger resolution's.

    Args:
        class_tokens: (N, channels) for each resolution, largest first. The larger one is the target: detached and
            layer-normalised.
    Returns:
        the sum of the smooth L1 distances, a scalar.
    """
    total = class_tokens[0].new_zeros(())
    for target, token in itertools.pairwise(class_tokens):
        total = total + F.smooth_l1_loss(token, F.layer_norm(target.detach(), target.shape[-1:]))
    return total


def _initialise(model: nn.Module) -> None:
    """Weights and class token from a normal distribution of 0.02, biases and local position kernels at zero."""
    for module in model.modules():
        if isinstance(module, SlimLinear | SlimConv):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, SlimParameter):
            nn.init.trunc_normal_(module.weight, std=0.02)
    for module in model.modules():
        if isinstance(module, Attention):
            nn.init.zeros_(module.local.weight)


VARIANTS = {
    "resformer_tiny_patch16": partial(ResFormer, heads=3),
    "resformer_small_patch16": partial(ResFormer, heads=6),
    "resformer_base_patch16": partial(ResFormer, heads=12),
}
