"""SlowFast networks for clips: few frames in a wide pathway, many in a narrow one (Feichtenhofer et al. 2018).

arXiv:1812.03982. Both pathways are one inflated ResNet (arXiv:1512.03385) with other channel counts and other temporal
kernels; no layer of a pathway has a temporal stride. Lateral convolutions bring what the Fast pathway sees to the Slow
one. `Slow` is the Slow pathway alone. Widths follow the rule of zoo.resnet, in both pathways at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.resnet import DIVISOR, STAGE_WIDTHS
from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

Pathways = tuple[Tensor, ...]
"""One tensor (N, C, T, H, W) for each pathway: slow alone, or slow and fast; H and W are equal, C and T are not."""

CLIP_CHANNELS = 3  # RGB
EXPANSION = 4  # output channels of a bottleneck for each channel inside it
FAST_SHARE = 8  # the Fast pathway has 1/8 of the channels (beta in the paper)
LATERAL_RATIO = 2  # channels that a lateral gives for each fast channel
_R50, _R101 = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks in each stage
SLOW_KERNELS, FAST_KERNELS = (1, 1, 1, 3, 3), (5, 3, 3, 3, 3)  # temporal kernels of the stem and of res2 to res5


def _convolution(
    inputs: Channels | Joined | int, outputs: Channels, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    """A 3-d convolution and its norm."""
    return [SlimConv(inputs, outputs, kernel, stride=stride, dims=3), SlimBatchNorm(outputs, dims=3)]


class Bottleneck3d(nn.Module):
    """ResNet's bottleneck for clips: (k, 1, 1) reduce, (1, 3, 3) with the spatial stride, (1, 1, 1) expand.

    The last norm starts at zero, so that each block starts as its shortcut.

    Args:
        inputs: channels that come in, with those of a lateral.
        planes: channels inside.
        temporal_kernel: k, an odd number of frames.
        stride: in space only.
    Shapes: (N, inputs, T, H, W) float -> (N, 4 * planes, T, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, inputs: Channels | Joined, planes: Channels, temporal_kernel: int, stride: int) -> None:
        super().__init__()
        outputs, one, step = planes.times(EXPANSION), (1, 1, 1), (1, stride, stride)
        self.body = nn.Sequential(
            *_convolution(inputs, planes, (temporal_kernel, 1, 1), one),
            nn.ReLU(inplace=True),
            *_convolution(planes, planes, (1, 3, 3), step),
            nn.ReLU(inplace=True),
            *_convolution(planes, outputs, one, one),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_convolution(inputs, outputs, one, step))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Pathway(nn.ModuleList):
    """The stem and the four stages of one pathway, as five modules; the network runs them, with laterals between.

    Args:
        width: channels of the stem; stage i has width * 2**i inside its blocks.
        kernels: temporal kernels of the stem and of each stage.
        depths: blocks in each stage.
        temporal_blocks: how many first blocks of each stage have the temporal kernel; the others have 1.
        lateral: channels that are joined to each stage's input behind the pathway's own; None without laterals.
    """

    def __init__(
        self,
        width: int,
        kernels: tuple[int, ...],
        depths: tuple[int, ...],
        temporal_blocks: tuple[int, ...],
        lateral: list[Channels] | None = None,
    ) -> None:
        super().__init__()
        channels = Channels(width, DIVISOR)
        self.channels = [channels]
        """What each of the five modules gives."""
        self.append(
            nn.Sequential(
                *_convolution(CLIP_CHANNELS, channels, (kernels[0], 7, 7), (1, 2, 2)),
                nn.ReLU(inplace=True),
                nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            )
        )
        for stage, (depth, temporal, kernel) in enumerate(zip(depths, temporal_blocks, kernels[1:], strict=True)):
            planes = Channels(width * 2**stage, DIVISOR)
            inputs: Channels | Joined = self.channels[-1]
            if lateral is not None:
                inputs = Joined((self.channels[-1], lateral[stage]))
            blocks = []
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                blocks.append(Bottleneck3d(inputs, planes, kernel if index < temporal else 1, stride))
                inputs = planes.times(EXPANSION)
            self.append(nn.Sequential(*blocks))
            self.channels.append(planes.times(EXPANSION))


class Lateral(nn.Module):
    """Joins the fast features, brought to the slow rate, to the slow ones behind their channels.

    A (kernel, 1, 1) convolution with temporal stride alpha to twice the fast channels, norm, ReLU. Its output i is
    centred on fast frame i * alpha.

    Args:
        fast: channels of the Fast pathway.
        alpha: fast frames for each slow frame.
        kernel: odd, in fast frames.
    Shapes: (N, C, ceil(T / alpha), H, W) and (N, fast, T, H, W) float
        -> (N, C + 2 * fast, ceil(T / alpha), H, W) and the second as it was.
    """

    def __init__(self, fast: Channels, alpha: int, kernel: int) -> None:
        super().__init__()
        self.bring = nn.Sequential(
            *_convolution(fast, fast.times(LATERAL_RATIO), (kernel, 1, 1), (alpha, 1, 1)), nn.ReLU(inplace=True)
        )

    def forward(self, pathways: Pathways) -> Pathways:
        slow, fast = pathways
        return torch.cat([slow, self.bring(fast)], 1), fast


class Step(nn.Module):
    """One module of each pathway beside each other, then the lateral if there is one.

    Args:
        parts: a module for each pathway.
        lateral: None after the last stage, and where there is one pathway only.
    """

    def __init__(self, parts: list[nn.Module], lateral: Lateral | None = None) -> None:
        super().__init__()
        self.parts, self.lateral = nn.ModuleList(parts), lateral

    def forward(self, pathways: Pathways) -> Pathways:
        outputs = tuple(part(x) for part, x in zip(self.parts, pathways, strict=True))
        return outputs if self.lateral is None else self.lateral(outputs)


class PathwayNet(SlimNet):
    """What Slow and SlowFast share: `stem` and `stages` are `Step`s on tuples of tensors, one for each pathway.

    Statistics of the norm bank belong to a width and to (frames of the clip, height, width).
    """

    def __init__(self, num_classes: int, pathways: list[Pathway], laterals: list[Lateral], dropout: float) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"{type(self).__name__}: num_classes is {num_classes}; give at least 1")
        places = [*laterals, *[None] * (len(STAGE_WIDTHS) + 1 - len(laterals))]
        steps = [Step([p[i] for p in pathways], lateral) for i, lateral in enumerate(places)]
        self.stem, self.stages = steps[0], nn.ModuleList(steps[1:])
        self.dropout = nn.Dropout(dropout)
        self.classifier = SlimLinear(Joined(tuple(pathway.channels[-1] for pathway in pathways)), num_classes)
        self.feature_info = []
        for i, channels in enumerate(pathways[0].channels[1:], 1):
            brought = pathways[1].channels[i].full * LATERAL_RATIO if i < len(laterals) else 0
            self.feature_info.append(FeatureInfo(channels.full + brought, 2 ** (i + 1)))
        _start_weights(self)
        self.name_norms()

    def sample(self, clip: Tensor) -> Pathways:
        """The frames that each pathway takes of a clip (N, 3, T, H, W).

        Raises:
            ValueError: the clip has another shape.
        """
        if clip.dim() != 5 or clip.shape[1] != CLIP_CHANNELS:
            raise ValueError(f"{type(self).__name__}: the clip has shape {tuple(clip.shape)}; give (N, 3, T, H, W)")
        return (clip,)

    def forward(self, clip: Tensor, width: float | None = None) -> Tensor:
        """Class scores.

        Args:
            clip: (N, 3, T, H, W) float, normalised; `sample` says which frame goes where.
            width: 0 < width <= 1; None runs inside the caller's `at` context, or at full width outside any.
        Returns:
            logits (N, classes).
        """
        return self._scores(self.sample(clip), width)

    def forward_features(self, clip: Tensor) -> list[Tensor]:
        """The slow features after each stage, with what the lateral joined: (N, channels, slow frames, H, W)."""
        state, features = self.stem(self.sample(clip)), []
        for stage in self.stages:
            state = stage(state)
            features.append(state[0])
        return features

    def forward_until(self, clip: Tensor, stage: int) -> Pathways:
        """Every pathway after the first `stage` stages (0: after the stem)."""
        return self._run(self.sample(clip), stage)

    def forward_head(self, pathways: Pathways) -> Tensor:
        """Mean of each pathway over frames and pixels, behind each other, then linear: logits (N, classes)."""
        return self.classifier(self.dropout(torch.cat([x.mean((2, 3, 4)) for x in pathways], 1)))

    def dense_probabilities(self, clip: Tensor, window: int, width: float | None = None) -> Tensor:
        """Class probabilities of a picture larger than the training crops, as the paper tests (256 after 224).

        The head looks at each window of the last feature map, all frames at once; the softmax comes before the mean.

        Args:
            clip: (N, 3, T, H, W) float, normalised.
            window: side of the window in feature pixels, the training crop divided by 32 (7 for 224).
            width: as in `forward`.
        Returns:
            (N, classes), each row adds up to 1.
        Raises:
            ValueError: the window is larger than the feature map.
        """
        with self.point_of_call(clip, width):
            ends = self.forward_until(clip, len(self.stages))
            side = min(ends[0].shape[-2:])
            if not 1 <= window <= side:
                raise ValueError(
                    f"{type(self).__name__}: window is {window}, expected 1 to {side}, the side of the last feature map"
                )
            pooled = [F.avg_pool3d(x, (x.shape[2], window, window), stride=1).squeeze(2) for x in ends]
            positions = torch.cat(pooled, 1).flatten(2).transpose(1, 2)  # (N, windows, channels)
            return self.classifier(self.dropout(positions)).softmax(-1).mean(1)

    def _scores(self, pathways: Pathways, width: float | None) -> Tensor:
        with self.point_of_call(pathways[-1], width):
            return self.forward_head(self._run(pathways, len(self.stages)))

    def _run(self, pathways: Pathways, stage: int) -> Pathways:
        state = self.stem(pathways)
        for module in self.stages[:stage]:
            state = module(state)
        return state


class Slow(PathwayNet):
    """The Slow pathway alone (Feichtenhofer et al. 2018, arXiv:1812.03982): a ResNet with time in its last stages.

    `forward` takes frames that are sampled already (Slow 8x8: 8 frames, each 8 after the one before); any T is allowed.

    Args:
        num_classes: class scores; not slimmed.
        depths: blocks in each of the four stages.
        width_mult: multiplies every base channel count (a smaller full network).
        dropout: share of the pooled features that training drops.
    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, num_classes: int = 400, *, depths: tuple[int, ...] = _R50, width_mult: float = 1.0, dropout: float = 0.5
    ) -> None:
        _check_depths("Slow", depths, depths)
        pathway = Pathway(_stem_width("Slow", width_mult, 1), SLOW_KERNELS, depths, depths)
        super().__init__(num_classes, [pathway], [], dropout)


class SlowFast(PathwayNet):
    """SlowFast (Feichtenhofer et al. 2018, arXiv:1812.03982) at any width.

    `forward` takes the frames of the Fast pathway, any number, and picks the slow ones out of them.

    Args:
        num_classes: class scores; not slimmed.
        depths: blocks in each of the four stages, of both pathways.
        alpha: fast frames for each slow frame.
        lateral_kernel: frames that a lateral convolution sees, odd.
        temporal_blocks: how many first blocks of each stage have the stage's temporal kernel; None is all.
        width_mult: multiplies every base channel count (a smaller full network).
        dropout: share of the pooled features that training drops.
    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        depths: tuple[int, ...] = _R50,
        alpha: int = 4,
        lateral_kernel: int = 7,
        temporal_blocks: tuple[int, ...] | None = None,
        width_mult: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        temporal = depths if temporal_blocks is None else temporal_blocks
        _check_depths("SlowFast", depths, temporal)
        if alpha < 1:
            raise ValueError(f"SlowFast: alpha is {alpha}; give at least 1 fast frame for each slow frame")
        if lateral_kernel < 1 or lateral_kernel % 2 == 0:
            raise ValueError(f"SlowFast: lateral_kernel is {lateral_kernel}; give an odd number of frames")
        slow_width, fast_width = (_stem_width("SlowFast", width_mult, share) for share in (1, FAST_SHARE))
        fast = Pathway(fast_width, FAST_KERNELS, depths, temporal)
        joined = fast.channels[:-1]  # after the stem, res2, res3 and res4
        laterals = [Lateral(channels, alpha, lateral_kernel) for channels in joined]
        brought = [channels.times(LATERAL_RATIO) for channels in joined]
        slow = Pathway(slow_width, SLOW_KERNELS, depths, temporal, brought)
        super().__init__(num_classes, [slow, fast], laterals, dropout)
        self.alpha = alpha

    def sample(self, clip: Tensor) -> Pathways:
        """Slow frames 0, alpha, 2 alpha, ..., on which the laterals are centred, and all frames for the Fast pathway.

        The authors' code takes as many frames evenly from the first to the last instead (0, 10, 20, 31 of 32 for
        alpha 8): for weights that were trained so, give those to `forward_pathways`.

        Raises:
            ValueError: the clip has another shape.
        """
        (fast,) = super().sample(clip)
        return fast[:, :, :: self.alpha], fast

    def forward_pathways(self, slow: Tensor, fast: Tensor, width: float | None = None) -> Tensor:
        """Class scores where the caller has chosen the frames.

        Args:
            slow: (N, 3, ceil(T / alpha), H, W) float, normalised.
            fast: (N, 3, T, H, W) of the same moments.
            width: as in `forward`.
        Returns:
            logits (N, classes).
        Raises:
            ValueError: the two do not belong together.
        """
        expected = tuple(self.sample(fast)[0].shape)
        if tuple(slow.shape) != expected:
            raise ValueError(
                f"SlowFast: slow has shape {tuple(slow.shape)}, expected {expected} for fast of shape "
                f"{tuple(fast.shape)}; give one slow frame for {self.alpha} fast ones"
            )
        return self._scores((slow, fast), width)


def _check_depths(name: str, depths: tuple[int, ...], temporal: tuple[int, ...]) -> None:
    if len(depths) != len(STAGE_WIDTHS) or min(depths) < 1:
        raise ValueError(f"{name}: depths are {depths}; give four numbers of blocks, each at least 1")
    if len(temporal) != len(depths) or any(not 0 <= t <= d for t, d in zip(temporal, depths, strict=True)):
        raise ValueError(f"{name}: temporal_blocks are {temporal}; give four numbers from 0 to the depths {depths}")


def _stem_width(name: str, width_mult: float, share: int) -> int:
    width = round(STAGE_WIDTHS[0] * width_mult / share)
    if width < DIVISOR or width % DIVISOR:
        raise ValueError(
            f"{name}: width_mult {width_mult} gives a stem of {width} channels; choose one that gives a multiple of "
            f"{DIVISOR} in each pathway, as 0.25, 0.5 and 1.0 do"
        )
    return width


@torch.no_grad()
def _start_weights(model: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) by the outgoing side; each block's last norm zero; a small classifier."""
    for module in model.modules():
        if isinstance(module, SlimConv):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck3d):
            nn.init.zeros_(module.body[-1].weight)
        elif isinstance(module, SlimLinear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


# The laterals of both R101 networks see 5 frames: their parameter counts fit no other kernel.
VARIANTS: dict[str, Callable[..., PathwayNet]] = {
    "slowfast_r50_4x16": partial(SlowFast, alpha=8, lateral_kernel=5),
    "slowfast_r50_8x8": SlowFast,
    "slowfast_r101_8x8": partial(SlowFast, depths=_R101, lateral_kernel=5),
    "slowfast_16x8_r101_50_50": partial(SlowFast, depths=_R101, lateral_kernel=5, temporal_blocks=_R50),
    "slow_r50_8x8": Slow,
}
