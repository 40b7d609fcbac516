"""Glance and Focus: a coarse look at the whole picture, then small patches of it until the answer is sure.

Wang et al. 2020, arXiv:2010.05300 (GFNet). A glance encoder sees the picture shrunk to the size of a patch; a policy
reads its feature map and places the first patch; a focus encoder sees the patch in full detail; a classifier answers
from all looks so far; the policy reads the last feature map again, and so on. Each look has an answer, so a run may end
after any of them.

Differs from the paper: the glance is shrunk by the deployment resize (area averaging), not by bicubic interpolation;
and both encoders may be one slimmable network at two widths (`shared`), with statistics of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.focus_patches import Chooser, cut_patches
from zoo.gfnet_parts import ConcatenatingClassifier, Encoder, PatchPolicy, RecurrentClassifier
from zoo.madds import count_madds
from zoo.models import create
from zoo.slim_net import SlimNet

CLASSIFIERS = ("recurrent", "concatenating")


@dataclass(frozen=True)
class Design:
    """Everything that decides the structure of a GFNet, beside the classes."""

    backbone: str
    """A key of zoo.MODELS."""
    patch: int
    """Side in pixels of the glance and of each patch."""
    steps: int
    """Looks at most, the glance included."""
    picture: int = 224
    """Side in pixels of the picture that patches are cut from."""
    classifier: str = "concatenating"
    policy_encoder: str = "convolution"
    policy_hidden: int = 256
    classifier_hidden: int = 1024
    """Of the recurrent classifier."""
    backbone_options: dict[str, Any] = field(default_factory=dict)
    shared: bool = False
    """Glance and focus are one network: half the weights."""
    widths: tuple[float, float] = (1.0, 1.0)
    """Width of the glance and of the focus encoder."""
    map_stride: int = 0
    """Pixels between two cells of the map that the policy reads; 0: the last map, as in the paper."""

    def __post_init__(self) -> None:
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"GFNet: classifier is {self.classifier!r}, expected one of {', '.join(CLASSIFIERS)}")
        if not 8 <= self.patch < self.picture:
            raise ValueError(f"GFNet: patch is {self.patch}, expected 8 or more and less than picture {self.picture}")
        if self.steps < 2:
            raise ValueError(f"GFNet: steps is {self.steps}, expected 2 or more")


_LARGE = {"classifier": "recurrent", "policy_encoder": "linear", "policy_hidden": 1024}
VARIANTS = {
    "mobilenetv3_large_100_96": Design("mobilenetv3_large_100", 96, 3),
    "mobilenetv3_large_100_128": Design("mobilenetv3_large_100", 128, 3),
    "mobilenetv3_large_125_96": Design("mobilenetv3_large_125", 96, 3),
    "mobilenetv3_large_125_128": Design("mobilenetv3_large_125", 128, 3),
    "efficientnet_b2_128": Design("efficientnet_b2", 128, 4, 260),
    "efficientnet_b3_144": Design("efficientnet_b3", 144, 4, 300),
    "regnety_600m_96": Design("regnety_600m", 96, 5, classifier="recurrent"),
    "regnety_800m_96": Design("regnety_800m", 96, 5, classifier="recurrent"),
    "regnety_1.6g_96": Design("regnety_1.6g", 96, 5, classifier="recurrent"),
    "resnet50_96": Design("resnet50", 96, 5, **_LARGE),
    "resnet50_128": Design("resnet50", 128, 5, **_LARGE),
    "densenet121_96": Design("densenet121", 96, 5, **_LARGE),
    "densenet169_96": Design("densenet169", 96, 5, **_LARGE),
    "densenet201_96": Design("densenet201", 96, 5, **_LARGE),
}


@dataclass(frozen=True)
class Look:
    """What one step gives."""

    logits: Tensor
    """(N, classes): the answer after this step."""
    own_logits: Tensor
    """(N, classes): of the encoder's own head, for training."""
    place: Tensor | None = None
    """(N, 2): corner of the patch, 0-1 of the room; None for the glance."""


class GFNet(nn.Module):
    """The whole network.

    Args:
        design: its structure.
        num_classes: class scores.
    Raises:
        ValueError: the backbone is unknown, does not take an option, or keeps no feature map of
            this stride.
    """

    def __init__(self, design: Design, num_classes: int = 1000) -> None:
        super().__init__()
        self.design = design
        nets: list[SlimNet] = [create(design.backbone, num_classes=num_classes, **design.backbone_options)]
        if not design.shared:
            nets.append(create(design.backbone, num_classes=num_classes, **design.backbone_options))
        stride = design.map_stride
        self.glance = Encoder(nets[0], design.widths[0], map_stride=stride)
        self.focus = Encoder(nets[-1], design.widths[1], self.glance.head if design.shared else None, stride)
        side = self.focus.map_side(design.patch)
        self.policy = PatchPolicy(self.focus.map_channels, side, design.policy_hidden, design.policy_encoder)
        channels = self.focus.vector_channels
        self.classifier: RecurrentClassifier | ConcatenatingClassifier
        if design.classifier == "recurrent":
            self.classifier = RecurrentClassifier(channels, num_classes, design.classifier_hidden)
        else:
            self.classifier = ConcatenatingClassifier(channels, num_classes, design.steps)

    @property
    def encoders(self) -> tuple[Encoder, Encoder]:
        """Glance and focus."""
        return self.glance, self.focus

    def looks(
        self,
        glances: Tensor,
        pictures: Tensor,
        choose: Chooser,
        steps: int | None = None,
        cut: Callable[[Tensor, Tensor, int], Tensor] = cut_patches,
    ) -> list[Look]:
        """Look at pictures for a number of steps.

        Args:
            glances: (N, 3, patch, patch), the pictures shrunk.
            pictures: (N, 3, S, S), what patches are cut from.
            choose: places the patches.
            steps: looks; None is the design's.
            cut: (pictures, places (N, 2), side) -> patches (N, 3, side, side).
        Returns:
            one entry per look, the glance first.
        """
        vector, feature_map = self.glance(glances)
        answer, memory = self.classifier.step(vector)
        own = self.glance.own_logits(vector)
        looks = [Look(own if answer is None else answer, own)]
        for _ in range(1, steps or self.design.steps):
            place = choose(feature_map)
            vector, feature_map = self.focus(cut(pictures, place, self.design.patch))
            answer, memory = self.classifier.step(vector, memory)
            looks.append(Look(answer, self.focus.own_logits(vector), place))
        return looks


def step_madds(design: Design, num_classes: int = 1000) -> list[int]:
    """Multiply-adds of one picture up to the answer of each look, in order; nothing is computed.

    The critic does not count, since it is for training alone; an encoder's own head counts where it answers.
    """
    with torch.device("meta"):  # shapes without numbers
        model = GFNet(design, num_classes).eval()
        glance, focus = (count_madds(e.materialise(None), (1, 3, *(design.patch,) * 2)) for e in model.encoders)
        vector = torch.zeros(1, model.focus.vector_channels)
        side = model.focus.map_side(design.patch)
        policy = count_madds(model.policy, (1, model.focus.map_channels, side, side)) - design.policy_hidden
        answers, memory = [], None
        for _ in range(design.steps):
            answers.append(_step_madds(model, vector, memory))
            memory = model.classifier.step(vector, memory)[1]
    answers[0] += 0 if model.classifier.answers_glance else count_madds(model.glance.head, tuple(vector.shape))
    totals = [glance + answers[0]]
    for answer in answers[1:]:
        totals.append(totals[-1] + policy + focus + answer)
    return totals


def _step_madds(model: GFNet, vector: Tensor, memory: Tensor | None) -> int:
    with FlopCounterMode(display=False) as counter:
        model.classifier.step(vector, memory)
    return int(counter.get_total_flops() // 2)


def create_gfnet(name: str, num_classes: int = 1000, **changes: Any) -> GFNet:
    """Build a variant with fresh weights.

    Args:
        name: a key of `VARIANTS`.
        changes: other values for fields of its design.
    Raises:
        ValueError: the name or a field is unknown, or a value cannot be used.
    """
    if name not in VARIANTS:
        raise ValueError(f"GFNet {name!r} is unknown; the zoo has {', '.join(sorted(VARIANTS))}")
    try:
        return GFNet(dataclasses.replace(VARIANTS[name], **changes), num_classes)
    except TypeError as error:
        raise ValueError(f"GFNet {name!r}: {error}") from error
