"""SFNet and SFNet-Lite: semantic segmentation by aligned features (arXiv:2002.10120 and arXiv:2207.04415).

A backbone, a head that moves meaning from coarse to fine maps along a learned flow, and scores for every pixel.
Backbones stand in sfnet_backbones.py, flow, heads and loss in sfnet_parts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from zoo.sfnet_backbones import Backbone, Counts, dfnet_backbone, resnet_d_backbone, stdc_backbone
from zoo.sfnet_parts import (
    CERTAIN,
    MIN_KEPT,
    FlowAlignment,
    FlowHead,
    FlowPyramid,
    GatedDualFlow,
    LiteHead,
    hard_pixel_loss,
    resize,
)
from zoo.slim_layers import Channels, SlimConv
from zoo.slim_net import FeatureInfo, SlimNet

SMALL_START = 0.01  # deviation of first weights without a norm: flows below a pixel, gates at 1/2, scores near zero


class SFNet(SlimNet):
    """SFNet (Li et al. 2020, arXiv:2002.10120) or SFNet-Lite (Li et al. 2022, arXiv:2207.04415) at any width.

    Differs from the authors' code: no classifier in an STDC backbone, no lateral that nothing reads, and training
    gives scores, not the loss. Exported for one picture size (zoo.export_form).

    Args:
        num_classes: scores for each pixel; not slimmed.
        backbone: (in_channels, width_mult) -> the stem and the stages.
        head: FlowPyramid (SFNet) or LiteHead (SFNet-Lite).
        channels: of the head.
        deep_supervision: scores of inner levels for `forward_supervised`; `forward` does not run them.
        width_mult: multiplies every channel count (a smaller full network).
        in_channels: channels of the picture.
    Raises:
        ValueError: a count is below one, or the head does not fit the backbone.
    """

    def __init__(
        self,
        num_classes: int = 19,
        *,
        backbone: Callable[[int, float], Backbone],
        head: Callable[[Sequence[Counts], Channels, int, bool], FlowHead],
        channels: int,
        deep_supervision: bool = False,
        width_mult: float = 1.0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ValueError(
                f"SFNet: num_classes is {num_classes} and in_channels {in_channels}, expected at least 1 of each"
            )
        if width_mult <= 0:
            raise ValueError(f"SFNet: width_mult is {width_mult}, expected a positive factor such as 0.5")
        parts = backbone(in_channels, width_mult)
        self.stem, self.stages = parts.stem, nn.ModuleList(parts.stages)
        self.feature_info = [
            FeatureInfo(sum(count.full for count in counts), stride)
            for counts, stride in zip(parts.channels, parts.strides, strict=True)
        ]
        self.head = head(parts.channels, Channels(round(channels * width_mult)), num_classes, deep_supervision)
        _initialise(self)
        self.name_norms()

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """Class scores of every pixel.

        Args:
            x: pictures (N, in_channels, H, W) float, normalised.
            width: 0 < width <= 1; None runs inside the caller's `at` context, or at full width outside any.
        Returns:
            logits (N, num_classes, H, W).
        """
        with self.point_of_call(x, width):
            return resize(self.forward_head(self.forward_features(x)), x.shape[-2:])

    def forward_supervised(self, x: Tensor, width: float | None = None) -> list[Tensor]:
        """The logits of `forward` and those of each supervised level, for training.

        Args:
            x, width: as for `forward`; in training at least two pictures.
        Returns:
            tensors (N, num_classes, H, W): the network's own first. `supervised_loss` takes them.
        Raises:
            ValueError: the network was built without deep supervision, or is in eval mode.
        """
        if not len(self.head.supervision):
            raise ValueError("SFNet: the network has no auxiliary scores; build it with deep_supervision=True")
        if not self.training:  # calibration does not see the norms of the auxiliary scores
            raise ValueError("SFNet: auxiliary scores are for training only; call train() first, or forward")
        with self.point_of_call(x, width):
            return [resize(scores, x.shape[-2:]) for scores in self.head.forward_supervised(self.forward_features(x))]

    def forward_head(self, x: Sequence[Tensor]) -> Tensor:
        """Logits (N, num_classes, h, w) on the grid of the finest of the features (all of `forward_features`)."""
        return self.head(x)


def supervised_loss(
    outputs: Sequence[Tensor], labels: Tensor, *, certain: float = CERTAIN, min_kept: int = MIN_KEPT
) -> Tensor:
    """The sum of `hard_pixel_loss` over the outputs, each with weight one.

    Args:
        outputs: of `SFNet.forward_supervised`, or the logits of `forward` alone in a list.
        labels: (N, H, W) int64; 255 is not counted.
        certain, min_kept: see `hard_pixel_loss`.
    Returns:
        a scalar.
    Raises:
        ValueError: there is no output, or shapes do not fit.
    """
    if not outputs:
        raise ValueError("supervised_loss: no outputs; give it the list of forward_supervised")
    losses = [hard_pixel_loss(scores, labels, certain=certain, min_kept=min_kept) for scores in outputs]
    return torch.stack(losses).sum()


def _initialise(model: nn.Module) -> None:
    """Convolutions by their fan-out (He et al., arXiv:1502.01852), biases zero; flows, gates and scores nearly so."""
    for module in model.modules():
        if isinstance(module, SlimConv):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        small: list[nn.Module] = []
        if isinstance(module, FlowAlignment):
            small.append(module.flow)
        if isinstance(module, GatedDualFlow):
            small.append(module.gate)
        if isinstance(module, FlowHead):
            small += [layers[-1] for layers in (module.classifier, *module.supervision)]
        for convolution in small:
            nn.init.normal_(convolution.weight, std=SMALL_START)


_R18 = partial(resnet_d_backbone, depths=(2, 2, 2, 2))
_R50 = partial(resnet_d_backbone, depths=(3, 4, 6, 3), bottleneck=True)
_R101 = partial(resnet_d_backbone, depths=(3, 4, 23, 3), bottleneck=True)
_STDC1 = partial(stdc_backbone, depths=(2, 2, 2))
_STDC2 = partial(stdc_backbone, depths=(4, 5, 3))
_DF1 = partial(
    dfnet_backbone, groups=(((64, 3, 2),), ((128, 3, 2),), ((256, 3, 2),), ((512, 1, 1),)), strides=(16, 32, 32)
)
_DF2 = partial(
    dfnet_backbone,
    groups=((), ((64, 2, 2), (128, 1, 1)), ((128, 10, 2), (256, 1, 1)), ((256, 4, 2), (512, 2, 1))),
    strides=(8, 16, 32),
)

VARIANTS: dict[str, Callable[..., SFNet]] = {
    "SFNet-R18": partial(SFNet, backbone=_R18, head=FlowPyramid, channels=128),
    "SFNet-R50": partial(SFNet, backbone=_R50, head=FlowPyramid, channels=256),
    "SFNet-R101": partial(SFNet, backbone=_R101, head=FlowPyramid, channels=256),
    "SFNet-DF1": partial(SFNet, backbone=_DF1, head=FlowPyramid, channels=64),
    "SFNet-DF2": partial(SFNet, backbone=_DF2, head=FlowPyramid, channels=64),
    "SFNet-STDC1": partial(SFNet, backbone=_STDC1, head=FlowPyramid, channels=64),
    "SFNet-STDC2": partial(SFNet, backbone=_STDC2, head=FlowPyramid, channels=64),
    "SFNet-Lite-R18": partial(SFNet, backbone=_R18, head=LiteHead, channels=128),
    "SFNet-Lite-STDC1": partial(SFNet, backbone=_STDC1, head=LiteHead, channels=128),
    "SFNet-Lite-STDC2": partial(SFNet, backbone=_STDC2, head=LiteHead, channels=128),
}
