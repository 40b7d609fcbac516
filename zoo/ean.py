"""EAN, Event Adaptive Network: ResNet-50 over short segments of a clip (Tian et al. 2021, arXiv:2107.10771).

A clip is 8 or 16 segments of five frames. The middle frame of a segment is what the 2-d network sees; what moves
around it enters behind the stem as a latent motion code. Event adaptive blocks before the stages and a shift inside
every block exchange between segments; a transformer over a few soft objects reads the result. The numbers are those of
the authors' release, without the layers that it never uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clips import change_to_next, fold, unfold
from zoo.ean_parts import EventAdaptiveBlock, PatchMotion, SparseObjects, StackedMotion
from zoo.slim_net import FeatureInfo, SlimNet

FRAMES = 5  # of a segment
MIDDLE = 2
TOTAL_STRIDE = 32
EXPANSION = 4


class MotionExcitation(nn.Module):
    """Strengthen the channels that will change in the next segment, weaken the others.

    Args:
        channels: a multiple of 16.
        per_clip: frames of a clip, T.
    Shapes: frames (N*T, channels, H, W) float -> the same.
    """

    def __init__(self, channels: int, per_clip: int) -> None:
        super().__init__()
        few = channels // 16
        self.per_clip = per_clip
        self.reduce = nn.Sequential(nn.Conv2d(channels, few, 1, bias=False), nn.BatchNorm2d(few))
        self.look = nn.Conv2d(few, few, 3, padding=1, groups=few, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(few, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        few = self.reduce(x)
        # the mean of a difference is the difference of means, which are small
        now, later = few.mean((2, 3), keepdim=True), self.look(few).mean((2, 3), keepdim=True)
        return x * (0.5 + self.expand(change_to_next(now, later, self.per_clip)).sigmoid())


class TemporalShift(nn.Module):
    """Each channel's own three taps along time, which start as a shift.

    An eighth of the channels starts with the next frame's values, an eighth with those of the frame before, the rest
    with its own; beyond the clip are zeros.

    Shapes: frames (N*T, channels, H, W) float -> the same.
    """

    def __init__(self, channels: int, per_clip: int) -> None:
        super().__init__()
        self.per_clip, self.fold = per_clip, channels // 8
        self.taps = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = unfold(x, self.per_clip).transpose(1, 2).flatten(3)  # (N, C, T, H*W): one axis for both of space
        return fold(self.taps(rows).unflatten(3, x.shape[2:]))

    @torch.no_grad()
    def reset(self) -> None:
        """Set the taps to the shift."""
        self.taps.weight.zero_()
        self.taps.weight[: self.fold, 0, 2] = 1.0
        self.taps.weight[self.fold : 2 * self.fold, 0, 0] = 1.0
        self.taps.weight[2 * self.fold :, 0, 1] = 1.0


class EventBottleneck(nn.Module):
    """ResNet's bottleneck with motion excitation and a temporal shift before its 3x3 convolution.

    Args:
        inputs: channels of the input.
        planes: channels inside; four times as many leave.
        stride: of the 3x3 convolution.
        per_clip: frames of a clip, T.
    Shapes: frames (N*T, inputs, H, W) float -> (N*T, 4 * planes, H / stride, W / stride).
    """

    def __init__(self, inputs: int, planes: int, stride: int, per_clip: int) -> None:
        super().__init__()
        outputs = EXPANSION * planes
        self.body = nn.Sequential(
            nn.Conv2d(inputs, planes, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            MotionExcitation(planes, per_clip),
            TemporalShift(planes, per_clip),
            nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class EventStem(nn.Module):
    """ResNet's stem on the middle frame of each segment, plus the latent motion code of its five frames.

    Args:
        channels: of the result, a multiple of 16.
        segments: of a clip.
        deep_motion: a second motion branch and hidden layers in the first one; the sum is then weighted.
    Shapes: clips (N, 3, 5 * segments, H, W) float -> frames (N * segments, channels, H / 4, W / 4).
    Raises:
        ValueError: the clip has another shape, or H or W is no multiple of 32.
    """

    def __init__(self, channels: int, segments: int, deep_motion: bool) -> None:
        super().__init__()
        self.segments = segments
        self.appearance = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.patch_motion = PatchMotion(channels, deep_motion)
        self.stacked_motion = StackedMotion(channels) if deep_motion else None

    def forward(self, x: Tensor) -> Tensor:
        _check_clip(x, self.segments)
        segments = x.unflatten(2, (self.segments, FRAMES)).transpose(1, 2).flatten(0, 1)  # (N*T, 3, 5, H, W)
        appearance = self.appearance(segments[:, :, MIDDLE])
        halved = segments[..., ::2, ::2]  # nearest: the first of each two pixels
        differences = halved[:, :, 1:] - halved[:, :, :-1]
        patches = self.patch_motion(differences)
        if self.stacked_motion is None:
            return appearance + patches
        return 0.6 * appearance + 0.2 * patches + 0.2 * self.stacked_motion(differences)


def _check_clip(x: Tensor, segments: int) -> None:
    frames = FRAMES * segments
    if x.dim() != 5 or tuple(x.shape[1:3]) != (3, frames) or x.shape[3] % TOTAL_STRIDE or x.shape[4] % TOTAL_STRIDE:
        raise ValueError(
            f"EAN: the clip has shape {tuple(x.shape)}, expected (N, 3, {frames}, H, W) with H and W multiples of "
            f"{TOTAL_STRIDE}; sample {segments} segments of {FRAMES} neighbouring frames and resize them"
        )


class EAN(SlimNet):
    """EAN on clips (N, 3, 5 * segments, H, W) of normalised float frames; the width is fixed.

    Features between the stages are folded frames (N * segments, C, h, w), one for each segment. The authors use 224
    pixels only; other multiples of 32 are an extension of ours (more or fewer motion patches, a resized position
    code). Training takes two clips or more, since the last norm sees one vector for each clip.

    Args:
        num_classes: class scores.
        segments: of a clip, each of five frames; at least 2.
        deep_motion: the richer motion code of the 16-segment release.
        base: channels of the stem, a multiple of 16; all other counts follow (a smaller network, for tests).
        depths: blocks in each of the four stages.
        dropout: share of the features that training drops before the classifier.
    Raises:
        ValueError: an argument does not fit.
    """

    def __init__(
        self,
        num_classes: int = 174,
        *,
        segments: int = 8,
        deep_motion: bool = False,
        base: int = 64,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check_options(segments, base, depths)
        self.segments = segments
        self.stem = EventStem(base, segments, deep_motion)
        self.stages, self.feature_info, channels = nn.ModuleList(), [], base
        for stage, depth in enumerate(depths):
            planes = base * 2**stage
            layers: list[nn.Module] = [EventAdaptiveBlock(channels, segments)]
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                layers.append(EventBottleneck(channels, planes, stride, segments))
                channels = EXPANSION * planes
            self.stages.append(nn.Sequential(*layers))
            self.feature_info.append(FeatureInfo(channels, 4 * 2**stage))
        self.objects = SparseObjects(channels, segments)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self)
        self.name_norms()

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """Class scores.

        Args:
            x: clips (N, 3, 5 * segments, H, W), float, normalised; H and W are multiples of 32.
            width: 1.0 or None, since the width is fixed.
        Returns:
            logits (N, classes).
        Raises:
            ValueError: another width, or a clip of another shape.
        """
        if width not in (None, 1.0):
            raise ValueError(f"EAN: width is {width}, expected 1.0; EAN has one width only, choose another system")
        return self.forward_head(self.forward_until(x, len(self.stages)))

    def forward_head(self, x: Tensor) -> Tensor:
        """Logits (N, classes) from the frames (N * segments, C, h, w) of the last stage."""
        return self.classifier(self.dropout(self.objects(unfold(x, self.segments).transpose(1, 2))))


def _check_options(segments: int, base: int, depths: tuple[int, ...]) -> None:
    if segments < 2:
        raise ValueError(f"EAN: segments is {segments}, expected at least 2; motion is between neighbouring segments")
    if base < 16 or base % 16:
        raise ValueError(f"EAN: base is {base}, expected a multiple of 16; motion excitation keeps a sixteenth of it")
    if len(depths) != 4 or min(depths) < 1:
        raise ValueError(f"EAN: depths is {depths}, expected four numbers of at least 1, one for each stage")


@torch.no_grad()
def _initialise(model: EAN) -> None:
    """He's normal weights; what is added to the plain ResNet starts small or at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, TemporalShift):
            module.reset()
        elif isinstance(module, EventAdaptiveBlock):
            module.expand.weight.mul_(0.01)
        elif isinstance(module, PatchMotion):
            module.spread[-1].weight.mul_(0.01)
    nn.init.zeros_(model.objects.norm.weight)
    nn.init.normal_(model.classifier.weight, std=0.001)
    nn.init.zeros_(model.classifier.bias)


VARIANTS: dict[str, Callable[..., EAN]] = {
    "ean_r50_8f": partial(EAN, segments=8),
    "ean_r50_16f": partial(EAN, segments=16, deep_motion=True),
}
