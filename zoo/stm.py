"""STM: motion between neighbouring frames inside a 2-d network (Jiang et al. 2019, arXiv:1908.02486).

Every bottleneck of a ResNet-50 gets two branches in place of its 3x3 convolution. One mixes each channel over three
frames and then looks at each frame (channel-wise spatio-temporal, CSTM); the other compares features of the next frame
with those of this one (channel-wise motion, CMM). The rest sees frames as pictures; the scores of a clip are the mean
of those of its frames.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from zoo.clips import change_to_next, clips_of, fold, frames_of_clips, unfold
from zoo.resnet import Plan, ResNet, Site, convolution_core
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv
from zoo.slim_net import Size

MOTION_REDUCTION = 16
SHIFT_PERIOD = ("past", "present", "future", "present")
"""What each channel of the temporal convolution passes on at first; in turn, so that narrow subnets have every kind."""


class TemporalConvolution(nn.Module):
    """A convolution over three neighbouring frames, each channel and each place for itself; without bias.

    Starts as a shift: a quarter of the channels come from the frame before, a quarter from the frame behind, half
    stay. A missing neighbour counts as zeros. As a 2-d convolution over (frames, places), since mobile engines have
    none in 3-d.

    Args:
        channels: in and out.
        per_clip: T, frames of a clip, where the network that runs does not say (zoo.clips.clips_of).
    Shapes: (N*T, channels, H, W) float -> the same.
    """

    def __init__(self, channels: Channels, per_clip: int) -> None:
        super().__init__()
        self.per_clip = per_clip
        self.mix = SlimConv(channels, channels, (3, 1), groups=channels)
        tap = {"past": 0, "present": 1, "future": 2}
        with torch.no_grad():
            self.mix.weight.zero_()
            for start, source in enumerate(SHIFT_PERIOD):
                self.mix.weight[start :: len(SHIFT_PERIOD), 0, tap[source]] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        clip = unfold(x, frames_of_clips(self.per_clip)).transpose(1, 2)  # (N, C, T, H, W)
        return fold(self.mix(clip.flatten(3)).unflatten(3, clip.shape[3:]))


class ChannelMotion(nn.Module):
    """The change from each frame to the next, in few channels, as features; the last frame of a clip gives zeros.

    The next frame passes a depthwise 3x3 convolution before this one is subtracted, which lets things move a pixel.

    Args:
        channels: in and out; 1/16 of them (at least one) carry the change.
        per_clip: T, frames of a clip, where the network that runs does not say (zoo.clips.clips_of).
        stride: 1, or 2 for 2x2 max pooling of the result (a last odd row or column is kept).
    Shapes: (N*T, channels, H, W) float -> (N*T, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: Channels, per_clip: int, stride: int) -> None:
        super().__init__()
        few = Channels(max(1, channels.full // MOTION_REDUCTION), divisor=1)
        self.per_clip = per_clip
        self.reduce = nn.Sequential(SlimConv(channels, few, 1), SlimBatchNorm(few))
        self.local = SlimConv(few, few, 3, groups=few)
        self.expand = SlimConv(few, channels, 1)
        self.pool = nn.MaxPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        few = self.reduce(x)
        return self.pool(self.expand(change_to_next(few, self.local(few), frames_of_clips(self.per_clip))))


class MotionCore(nn.Module):
    """What stands between the 1x1 convolutions of an STM block: the sum of both branches.

    Args:
        channels: in and out.
        site: where the block stands.
        per_clip: T, frames of a clip, where the network that runs does not say (zoo.clips.clips_of).
    Shapes: (N*T, channels, H, W) float -> (N*T, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: Channels, site: Site, per_clip: int) -> None:
        super().__init__()
        self.spatiotemporal = nn.Sequential(TemporalConvolution(channels, per_clip), convolution_core(channels, site))
        self.motion = ChannelMotion(channels, per_clip, site.stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatiotemporal(x) + self.motion(x)


class STM(ResNet):
    """STM on ResNet-50 (Jiang et al. 2019, arXiv:1908.02486), at any width, resolution and number of frames.

    No weight depends on the number of frames; calibrated normalisation statistics do.

    Args:
        num_classes: class scores; not slimmed. 174: Something-Something.
        frames: T of the clips where it cannot be seen: in `forward_head` alone, and in the key of a point that is
            named by its resolution. At least 2.
        options: of `zoo.resnet.ResNet` except the plan (depths, width_mult, small_input, in_channels, dropout).
    Shapes: clips (N, C, T, H, W) float, normalised -> logits (N, num_classes).
    Raises:
        ValueError: fewer than two frames; when called, something else than such clips.
    """

    def __init__(self, num_classes: int = 174, *, frames: int = 8, **options: object) -> None:
        if frames < 2:
            raise ValueError(f"STM: frames is {frames}, expected at least 2; motion is a change between frames")
        super().__init__(num_classes, plan=Plan(core=partial(MotionCore, per_clip=frames)), **options)
        self.frames = frames

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """Class scores of clips (N, C, T, H, W) of any number of frames: (N, num_classes)."""
        with clips_of(_require_clips(x).shape[2]):
            return super().forward(x, width)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The output of each stage for clips (N, C, T, H, W), frames in the batch: (N*T, channels, h, w)."""
        with clips_of(_require_clips(x).shape[2]):
            return super().forward_features(fold(x))

    def forward_until(self, x: Tensor, stage: int) -> Tensor:
        """What clips (N, C, T, H, W) are after the first `stage` stages, frames in the batch: (N*T, channels, h, w)."""
        with clips_of(_require_clips(x).shape[2]):
            return super().forward_until(fold(x), stage)

    def forward_head(self, x: Tensor) -> Tensor:
        """Logits of each clip (N, classes) from the last stage's frames (N*T, channels, h, w): the frames' mean."""
        return self._frame_logits(x).mean(1)

    def forward_frames(self, x: Tensor) -> Tensor:
        """The logits that each frame gives, before their mean.

        Args:
            x: clips (N, C, T, H, W), float, normalised.
        Returns:
            (N, T, classes). The width is that of the caller's `at` context, or full outside any.
        Raises:
            ValueError: the clips have another shape.
        """
        with clips_of(_require_clips(x).shape[2]):
            return self._frame_logits(self.forward_until(x, len(self.stages)))

    def point_key(self, width: float, resolution: Size) -> str:
        """The key of an operating point in the norm bank; clips have `frames` frames where none are named."""
        if isinstance(resolution, int) or len(resolution) == 2:
            sides = (resolution, resolution) if isinstance(resolution, int) else resolution
            resolution = (self.frames, *sides)
        return super().point_key(width, resolution)

    def _frame_logits(self, frames: Tensor) -> Tensor:
        return unfold(super().forward_head(frames), frames_of_clips(self.frames))


def _require_clips(x: Tensor) -> Tensor:
    if x.dim() != 5 or x.shape[2] < 2:
        raise ValueError(
            f"STM: input is {tuple(x.shape)}, expected clips (N, C, T, H, W) of at least two frames; "
            "stack the frames of a clip along axis 2"
        )
    return x


VARIANTS: dict[str, Callable[..., STM]] = {"stm50_8f": partial(STM, frames=8), "stm50_16f": partial(STM, frames=16)}
