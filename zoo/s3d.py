"""S3D and S3D-G: Inception in space and time with separable convolutions (Xie et al. 2017, arXiv:1712.04851).

Each k x k x k convolution of an inflated Inception-v1 becomes a 1 x k x k convolution of the frames and a k x 1 x 1
convolution over time, each with its norm and ReLU. S3D-G also scales the channels of each branch by a gate that sees
the whole clip. Differs: the paper gives no code; the plain network follows torchvision's, and the gated ones follow
the networks of MIL-NCE (Miech et al. 2019, arXiv:1912.06430), with its two stems. Widths are our addition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

RGB = 3
CLIP_STRIDE = 2  # of the space-to-depth stem: frames and pixels come in pairs
MIN_FRAMES, MIN_SIDE = 8, 32  # the last stage then has one frame of one pixel
BRANCHES = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Output channels of each block: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after the pool."""
LAYERS = ("stem", "2c", *BRANCHES)
"""The layers that can look over time, in order."""
STAGES = (
    ((1, 3, 3), (1, 2, 2), ("3b", "3c")),
    ((3, 3, 3), (2, 2, 2), ("4b", "4c", "4d", "4e", "4f")),
    ((2, 2, 2), (2, 2, 2), ("5b", "5c")),
)
"""Window and stride of the pool, then the blocks, of each stage after the first one, which holds 2b and 2c."""

Stem = Callable[[Channels, bool, float], nn.Module]
"""(output channels, whether it looks over time, epsilon of the norms) -> module from a clip to half of each size."""


def unit(
    inputs: Channels | Joined | int,
    outputs: Channels,
    kernel: tuple[int, int, int],
    eps: float,
    *,
    stride: int | tuple[int, int, int] = 1,
    padding: tuple[int, int, int] | None = None,
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; (N, inputs, T, H, W) -> (N, outputs, T', H', W')."""
    return nn.Sequential(
        SlimConv(inputs, outputs, kernel, stride=stride, padding=padding, dims=3),
        SlimBatchNorm(outputs, eps=eps, dims=3),
        nn.ReLU(inplace=True),
    )


def separable(
    inputs: Channels | int, outputs: Channels, size: int, temporal: bool, eps: float, *, stride: int = 1
) -> nn.Sequential:
    """A 1 x size x size unit, then a size x 1 x 1 unit; without `temporal` the first one alone, with all strides.

    Shapes: (N, inputs, T, H, W) -> (N, outputs, T, H, W), each size divided by `stride`, rounded up.
    """
    if not temporal:
        return unit(inputs, outputs, (1, size, size), eps, stride=stride)
    return nn.Sequential(
        *unit(inputs, outputs, (1, size, size), eps, stride=(1, stride, stride)),
        *unit(outputs, outputs, (size, 1, 1), eps, stride=(stride, 1, 1)),
    )


def separable_stem(channels: Channels, temporal: bool, eps: float) -> nn.Module:
    """1x7x7 and 7x1x1 with stride 2; without `temporal` every other frame, 1x7x7."""
    return separable(RGB, channels, 7, temporal, eps, stride=2)


def joint_stem(channels: Channels, temporal: bool, eps: float) -> nn.Module:
    """One 3x7x7 convolution with stride 2; without `temporal` every other frame, 1x7x7."""
    return unit(RGB, channels, (3 if temporal else 1, 7, 7), eps, stride=2)


class SpaceToDepthStem(nn.Module):
    """Cubes of 2x2x2 pixels become 24 channels, then a 2x4x4 convolution; it looks over time at every setting.

    Shapes: (N, 3, T, H, W) of even sizes -> (N, channels, T/2, H/2, W/2).
    """

    def __init__(self, channels: Channels, temporal: bool, eps: float) -> None:
        super().__init__()
        self.convolution = unit(RGB * CLIP_STRIDE**3, channels, (2, 4, 4), eps, padding=(1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        # even kernels reach one further back than forward; the reference drops the first of each axis for it
        return self.convolution(space_to_depth(x))[:, :, 1:, 1:, 1:]


def space_to_depth(x: Tensor) -> Tensor:
    """Cubes of 2x2x2 pixels as channels; frame, row and column in the cube come before the colour.

    Args:
        x: (N, C, T, H, W) of even sizes.
    Returns:
        (N, 8 * C, T/2, H/2, W/2).
    Raises:
        ValueError: a size is odd.
    """
    if any(size % CLIP_STRIDE for size in x.shape[2:]):
        raise ValueError(
            f"S3D: clip is {tuple(x.shape[2:])} (T, H, W), expected even sizes for the space-to-depth stem"
        )
    cubes = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (N, C, T/2, 2, H/2, 2, W/2, 2)
    return cubes.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)


class Pool(nn.Module):
    """Maximum over a window.

    Args:
        kernel, stride: (T, H, W).
        pad_after: TensorFlow's padding for even sizes: only at the end, and a window may hang over it. Without it,
            half of the kernel at both ends (none for kernels of 2), and no window hangs over.
    Shapes: (N, C, T, H, W), not negative where `pad_after` -> each size divided by the stride; rounded up, but
        rounded down for kernels of 2 without `pad_after`.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int], pad_after: bool) -> None:
        super().__init__()
        self.padding: tuple[int, ...] = ()
        if pad_after:
            after = [k - s for k, s in zip(kernel, stride, strict=True)]
            self.padding = (0, after[2], 0, after[1], 0, after[0])
        both = (0, 0, 0) if pad_after else tuple((k - 1) // 2 for k in kernel)
        self.pool = nn.MaxPool3d(kernel, stride, both, ceil_mode=pad_after)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.pad(x, self.padding) if any(self.padding) else x)


class Gate(nn.Module):
    """Scale each channel by a sigmoid of a linear layer of the mean over the clip (the G of S3D-G).

    Shapes: (N, channels, T, H, W) -> the same.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.linear = SlimLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear(x.mean((2, 3, 4))))[:, :, None, None, None]


@dataclass(frozen=True)
class Flavour:
    """What the published networks do differently."""

    stem: Stem
    eps: float
    """Of the batch norms."""
    pad_after: bool
    """Pools between the stages pad as `Pool` says."""
    paired_frames: bool
    """Scores are the average over pairs of neighbouring frames, so the first and the last frame count half."""
    dropout: float
    """Before the classifier."""


TORCHVISION = Flavour(separable_stem, eps=1e-3, pad_after=False, paired_frames=True, dropout=0.2)
MILNCE = Flavour(joint_stem, eps=1e-5, pad_after=True, paired_frames=False, dropout=0.0)
MILNCE_S2D = Flavour(SpaceToDepthStem, eps=1e-5, pad_after=True, paired_frames=False, dropout=0.0)


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1; twice 1x1 and a separable 3x3; 3x3x3 pool and 1x1.

    Args:
        inputs: of the block before.
        branches: a row of `BRANCHES`.
        temporal: the 3x3 convolutions look over time. The pool does so in every block.
        gated: each branch ends with a gate.
        eps: of the norms.
    Shapes: (N, inputs, T, H, W) -> (N, outputs, T, H, W).
    """

    def __init__(
        self, inputs: Channels | Joined, branches: tuple[Channels, ...], temporal: bool, gated: bool, eps: float
    ) -> None:
        super().__init__()
        point, reduced, outer, reduced_2, outer_2, pooled = branches
        one = (1, 1, 1)
        self.outputs = Joined((point, outer, outer_2, pooled))
        self.branches = nn.ModuleList(
            [
                unit(inputs, point, one, eps),
                nn.Sequential(unit(inputs, reduced, one, eps), separable(reduced, outer, 3, temporal, eps)),
                nn.Sequential(unit(inputs, reduced_2, one, eps), separable(reduced_2, outer_2, 3, temporal, eps)),
                nn.Sequential(nn.MaxPool3d(3, 1, 1), unit(inputs, pooled, one, eps)),
            ]
        )
        self.gates = nn.ModuleList(Gate(part) if gated else nn.Identity() for part in self.outputs.parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([gate(branch(x)) for branch, gate in zip(self.branches, self.gates, strict=True)], 1)


class S3D(SlimNet):
    """S3D at any clip length, picture size and width; the parts of a concatenation are slimmed one by one.

    The stem halves the frames, and so do the pools before 4b and 5b; features of the four stages have every second,
    second, fourth and eighth frame.

    Args:
        num_classes: class scores; not slimmed.
        flavour: which published network.
        gating: S3D-G: a gate on the output of 2c and on each branch.
        temporal_from: the first of `LAYERS` whose convolutions look over time; layers before it are 1 x k x k
            ("top-heavy" in the paper). None: none does. Pools keep their sizes.
        width_mult: multiplies all channels (a smaller full network).
    Raises:
        ValueError: the layer is unknown.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        flavour: Flavour = TORCHVISION,
        gating: bool = False,
        temporal_from: str | None = "stem",
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        eps = flavour.eps
        over_time = _layers_over_time(temporal_from)
        start, second = Channels(round(64 * width_mult)), Channels(round(192 * width_mult))
        self.paired_frames = flavour.paired_frames
        self.stem = nn.Sequential(
            flavour.stem(start, "stem" in over_time, eps), Pool((1, 3, 3), (1, 2, 2), flavour.pad_after)
        )
        first_stage = [unit(start, start, (1, 1, 1), eps), separable(start, second, 3, "2c" in over_time, eps)]
        self.stages = nn.ModuleList([nn.Sequential(*first_stage, *([Gate(second)] if gating else []))])
        self.feature_info = [FeatureInfo(second.full, 4)]
        inputs: Channels | Joined = second
        for kernel, stride, names in STAGES:
            layers: list[nn.Module] = [Pool(kernel, stride, flavour.pad_after)]
            for name in names:
                branches = tuple(Channels(round(count * width_mult)) for count in BRANCHES[name])
                block = InceptionBlock(inputs, branches, name in over_time, gating, eps)
                layers.append(block)
                inputs = block.outputs
            self.stages.append(nn.Sequential(*layers))
            self.feature_info.append(FeatureInfo(inputs.full, self.feature_info[-1].stride * stride[1]))
        self.dropout = nn.Dropout(flavour.dropout)
        self.classifier = SlimLinear(inputs, num_classes)
        _initialise(self)
        self.name_norms()

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """Class scores.

        Args:
            x: clips (N, 3, T, H, W), float, normalised; at least 8 frames of 32x32 pixels, even sizes for the
                space-to-depth stem.
            width: as `SlimNet.forward`.
        Returns:
            logits (N, classes).
        Raises:
            ValueError: the clips have another form.
        """
        if x.dim() != 5 or x.shape[1] != RGB or x.shape[2] < MIN_FRAMES or min(x.shape[3:]) < MIN_SIDE:
            raise ValueError(
                f"S3D: input is {tuple(x.shape)}, expected clips (N, {RGB}, T, H, W) of at least {MIN_FRAMES} frames "
                f"with sides of at least {MIN_SIDE}; repeat frames or resize"
            )
        return super().forward(x, width)

    def forward_head(self, x: Tensor) -> Tensor:
        """Average over the picture, scores of each pair of frames, average of the scores."""
        if not self.paired_frames or x.shape[2] == 1:
            return self.classifier(self.dropout(x.mean((2, 3, 4))))
        frames = x.mean((3, 4)).transpose(1, 2)
        pairs = (frames[:, 1:] + frames[:, :-1]) / 2
        return self.classifier(self.dropout(pairs)).mean(1)


def _layers_over_time(temporal_from: str | None) -> tuple[str, ...]:
    """The layers from this one on."""
    if temporal_from is None:
        return ()
    if temporal_from not in LAYERS:
        raise ValueError(f"S3D: temporal_from is {temporal_from!r}, expected None or one of {', '.join(LAYERS)}")
    return LAYERS[LAYERS.index(temporal_from) :]


@torch.no_grad()
def _initialise(model: nn.Module) -> None:
    """He's normal weights; convolutions over time start by passing their frame on, gates near one half."""
    for module in model.modules():
        if isinstance(module, SlimConv):
            time, height, _ = module.kernel_size
            if time > height:
                nn.init.zeros_(module.weight)
                module.weight[:, :, time // 2, 0, 0].fill_diagonal_(1.0)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, SlimLinear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


VARIANTS: dict[str, Callable[..., S3D]] = {
    "s3d": S3D,
    # 512: the published ones end with an embedding that a text network shares
    "s3dg_milnce_plain_stem": partial(S3D, num_classes=512, flavour=MILNCE, gating=True),
    "s3dg_milnce_s2d": partial(S3D, num_classes=512, flavour=MILNCE_S2D, gating=True),
}
