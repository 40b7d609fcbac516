"""The parts of Glance and Focus: encoder, patch policy, two classifiers (Wang et al. 2020, arXiv:2010.05300)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_layers import ActivePoint, SlimError, SlimLinear, Stats, active_point
from zoo.slim_net import FeatureInfo, NormBank, SlimNet, materialise

ENTRY = "encoder"  # an encoder sees pictures of one kind and size, so it has one set of statistics


class Encoder(nn.Module):
    """A backbone at one width that gives what the others read: a vector to classify by, and a feature map.

    The statistics of normalisation belong to the encoder, not to the backbone: a glance at a whole picture and a patch
    of it have different ones, also where both are seen by one network. Vector and map are filled up with zeros to the
    channels of full width, so that one classifier and one policy read encoders of any width.

    Args:
        net: the backbone; its classifier is taken out of it.
        width: how much of the backbone is used.
        head: the backbone's own classifier, where an encoder before this one has taken it out.
        map_stride: pixels between two cells of the feature map; 0 is the last map, the coarsest. A finer one shows the
            policy better where things are.
    Raises:
        SlimError: the backbone keeps no feature map (a transformer's tokens), or none of this stride.
    """

    def __init__(self, net: SlimNet, width: float = 1.0, head: nn.Module | None = None, map_stride: int = 0) -> None:
        super().__init__()
        taken = net.classifier
        self.net, self.width = net, width
        self.head: SlimLinear = taken if head is None else head
        net.classifier = nn.Identity()
        self.norms = NormBank()
        self.synchronised = False
        """Training on several processes: batch statistics are those of all processes together."""
        vector_channels: int = self.head.inputs.full
        self._map_is_last = hasattr(net, "last")  # the head's wide convolution comes before the average
        last_channels = vector_channels if self._map_is_last else net.feature_info[-1].channels
        stage, info = _map_stage(net, map_stride)
        self.stride: int = info.stride
        self._ends = Ends(self._map_is_last, stage, vector_channels, info.channels if map_stride else last_channels)
        self._last_ends = Ends(self._map_is_last, None, vector_channels, last_channels)

    @property
    def vector_channels(self) -> int:
        """Channels of the vector at full width."""
        return self._ends.vector_channels

    @property
    def map_channels(self) -> int:
        """Channels of the feature map at full width."""
        return self._ends.map_channels

    def forward(self, x: Tensor, recorder: dict[str, Stats] | None = None) -> tuple[Tensor, Tensor]:
        """Look at pictures.

        Args:
            x: (N, 3, P, P) float, normalised.
            recorder: calibration: receives the statistics of this batch.
        Returns:
            vector (N, vector_channels) and feature map (N, map_channels, P / stride, P / stride), rounded up.
        """
        if recorder is not None:
            point = ActivePoint(self.width, recorder=recorder)
        elif self.training:
            point = ActivePoint(self.width, synchronised=self.synchronised)
        else:
            point = ActivePoint(self.width, self.norms.entries.get(ENTRY))
        with active_point(point):
            return split_head(self.net, x, self._ends)

    @torch.no_grad()
    def last_map(self, x: Tensor) -> Tensor:
        """The backbone's last feature map (N, C, h, w), whatever map the policy reads; as in eval mode."""
        with active_point(ActivePoint(self.width, self.norms.entries.get(ENTRY))):
            return split_head(self.net, x, self._last_ends)[1]

    def own_logits(self, vector: Tensor) -> Tensor:
        """Scores (N, classes) of the backbone's own classifier; the zeros of a narrow vector add nothing."""
        return self.head(vector)

    @torch.no_grad()
    def map_logits(self, feature_map: Tensor) -> Tensor:
        """Scores (N, classes) of the own head for a last feature map (N, C, h, w) of any size."""
        if self._map_is_last:
            return self.head(feature_map.mean((2, 3)))
        # the zeros that fill up a narrow map add nothing to the head's sums at full width
        stats = self.norms.entries.get(ENTRY) if self.width == 1.0 else None
        with active_point(ActivePoint(1.0, stats)):
            return self.head(self.net.forward_head(feature_map))

    def map_side(self, side: int) -> int:
        """Rows of the feature map for pictures of so many rows."""
        return -(-side // self.stride)

    def materialise(self, side: int | None) -> PlainEncoder:
        """The plain encoder for pictures of this side, with copied slices and this encoder's statistics.

        Args:
            side: rows and columns; None is for an encoder without statistics, as in zoo.materialise.

        Raises:
            NotCalibratedError: as zoo.materialise, where the encoder has no statistics.
        """
        net = copy.deepcopy(self.net)
        if side is not None and ENTRY in self.norms.entries:
            net.norm_bank.entries = {net.point_key(self.width, side): self.norms.entries[ENTRY]}
        plain = materialise(net, width=self.width, resolution=side)
        return PlainEncoder(plain, self._ends).eval()


class PlainEncoder(nn.Module):
    """An encoder without slimmable layers, as `Encoder.materialise` makes it."""

    def __init__(self, net: nn.Module, ends: Ends) -> None:
        super().__init__()
        self.net, self.ends = net, ends

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vector and feature map, as `Encoder.forward`."""
        return split_head(self.net, x, self.ends)


@dataclass(frozen=True)
class Ends:
    """What an encoder takes from its backbone."""

    map_is_last: bool
    """The head's wide convolution comes before the average, so its output is the last map."""
    stage: int | None
    """Whose output is the feature map; None: the last map."""
    vector_channels: int
    map_channels: int


def _map_stage(net: SlimNet, stride: int) -> tuple[int | None, FeatureInfo]:
    """The last stage of this stride (None for 0) and what it gives."""
    if stride == 0:
        return None, net.feature_info[-1]
    found = [(number, info) for number, info in enumerate(net.feature_info) if info.stride == stride]
    if not found:
        strides = ", ".join(str(s) for s in sorted({info.stride for info in net.feature_info}))
        raise SlimError(f"{type(net).__name__}: has no feature map of stride {stride}; it has {strides}, and 0 (last)")
    return found[-1]


def split_head(net: SlimNet | nn.Module, x: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """Vector and feature map of a backbone without classifier, filled up with zeros."""
    x, chosen = net.stem(x), None
    for number, stage in enumerate(net.stages):
        x = stage(x)
        if number == ends.stage:
            chosen = x
    if not isinstance(x, Tensor):
        raise SlimError(
            f"{type(net).__name__}: keeps no feature map, so it cannot guide a policy; use another backbone"
        )
    if ends.map_is_last:
        x = net.last(x)
        vector = x.mean((2, 3))
    else:
        vector = net.forward_head(x)
    feature_map = x if chosen is None else chosen
    if vector.shape[1] < ends.vector_channels:
        vector = F.pad(vector, (0, ends.vector_channels - vector.shape[1]))
    if feature_map.shape[1] < ends.map_channels:
        feature_map = F.pad(feature_map, (0, 0, 0, 0, 0, ends.map_channels - feature_map.shape[1]))
    return vector, feature_map


POLICY_ENCODERS = ("convolution", "linear")
CONVOLUTION_CHANNELS, LINEAR_CHANNELS = 32, 2048


class PatchPolicy(nn.Module):
    """Where to look next: an encoder of the last feature map, a recurrent state, an actor, and a critic for training.

    Args:
        map_channels, map_side: of the feature map.
        hidden: size of the recurrent state; 1024 with the linear encoder, 256 with the convolution in the paper.
        encoder: "convolution" (1x1 to 32 channels, linear) or "linear" (the flat map to 2048, linear). The second has
            more parameters than most backbones.
    """

    def __init__(self, map_channels: int, map_side: int, hidden: int = 256, encoder: str = "convolution") -> None:
        super().__init__()
        if encoder not in POLICY_ENCODERS:
            raise ValueError(f"PatchPolicy: encoder is {encoder!r}, expected one of {', '.join(POLICY_ENCODERS)}")
        self.hidden = hidden
        first: nn.Module
        if encoder == "convolution":
            first = nn.Conv2d(map_channels, CONVOLUTION_CHANNELS, 1, bias=False)
            layers = [first, nn.ReLU(), nn.Flatten(), nn.Linear(CONVOLUTION_CHANNELS * map_side**2, hidden), nn.ReLU()]
        else:
            first = nn.Linear(map_channels * map_side**2, LINEAR_CHANNELS)
            layers = [nn.Flatten(), first, nn.ReLU(), nn.Linear(LINEAR_CHANNELS, hidden), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.memory = nn.GRUCell(hidden, hidden)
        self.actor = nn.Linear(hidden, 2)
        self.critic = nn.Linear(hidden, 1)

    def step(self, feature_map: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One choice.

        Args:
            feature_map: (N, map_channels, map_side, map_side) of the last look.
            memory: (N, hidden) of the last choice; None at the first.
        Returns:
            place (N, 2): row and column of the patch's corner, 0-1 of the room that there is; value (N, 1), the
            critic's expectation of what is still to gain; memory (N, hidden).
        """
        if memory is None:
            memory = feature_map.new_zeros(feature_map.shape[0], self.hidden)
        memory = self.memory(self.encoder(feature_map), memory)
        return torch.sigmoid(self.actor(memory)), self.critic(memory), memory

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Place and value of a first choice."""
        return self.step(feature_map)[:2]


class RecurrentClassifier(nn.Module):
    """A recurrent state over the vectors so far, and one linear layer (ResNet, DenseNet and RegNet in the paper).

    Args:
        vector_channels: of the encoders.
        classes: scores.
        hidden: size of the state.
    """

    answers_glance = True
    """It has an answer after the first vector; otherwise the glance's own head gives it."""

    def __init__(self, vector_channels: int, classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.memory = nn.GRUCell(vector_channels, hidden)
        self.linear = nn.Linear(hidden, classes)
        self.memory_channels = hidden

    def step(self, vector: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores (N, classes) after one more vector (N, vector_channels), and the new memory (N, hidden)."""
        if memory is None:
            memory = vector.new_zeros(vector.shape[0], self.memory_channels)
        memory = self.memory(vector, memory)
        return self.linear(memory), memory

    def forward(self, *vectors: Tensor) -> list[Tensor]:
        """Scores after each vector of a sequence."""
        return _run(self, vectors)


class ConcatenatingClassifier(nn.Module):
    """One linear layer for each step over all vectors so far (MobileNetV3 and EfficientNet in the paper).

    The first answer is the glance's own head, so there is no layer for it.

    Args:
        vector_channels: of the encoders.
        classes: scores.
        steps: looks at most; the published code always builds five.
    """

    answers_glance = False

    def __init__(self, vector_channels: int, classes: int, steps: int) -> None:
        super().__init__()
        self.vector_channels = vector_channels
        self.linears = nn.ModuleList(nn.Linear(vector_channels * count, classes) for count in range(2, steps + 1))

    def step(self, vector: Tensor, memory: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Scores (N, classes), or None after the first vector, and all vectors so far (N, vector_channels * count)."""
        memory = vector if memory is None else torch.cat([memory, vector], 1)
        count = memory.shape[1] // self.vector_channels
        return (None if count == 1 else self.linears[count - 2](memory)), memory

    def forward(self, *vectors: Tensor) -> list[Tensor]:
        """Scores after each vector of a sequence but the first."""
        return _run(self, vectors)


def _run(classifier: RecurrentClassifier | ConcatenatingClassifier, vectors: Iterable[Tensor]) -> list[Tensor]:
    answers, memory = [], None
    for vector in vectors:
        logits, memory = classifier.step(vector, memory)
        if logits is not None:
            answers.append(logits)
    return answers
