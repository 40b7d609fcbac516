"""Slimmable layers: one weight tensor, of which a prefix of the channels is active at each width.

Universally slimmable layers after Yu and Huang 2019 (arXiv:1903.05134), as MutualNet uses them (Yang et al. 2020,
arXiv:1909.12978). The active width is carried by a context variable (`active_point`), so that two threads may run
one network at two widths; nothing here is a global flag.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.synchronised_norm import synchronised_batch_norm

Stats = tuple[Tensor, Tensor]
"""Mean and (biased) variance of one normalisation layer, each of shape (active channels,)."""


class SlimError(ValueError):
    """A width or a layer is asked for something that it cannot do."""


class NotCalibratedError(SlimError):
    """The network has no normalisation statistics for the operating point that is asked for."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, never below 90 % of `value` and never below `divisor`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Channels:
    """How many channels a layer has at each width: make_divisible(base * width, divisor) * ratio * segments.

    A fixed count (network input, class scores) ignores the width: `Channels.fixed(3)`.
    """

    base: int
    divisor: int = 8
    ratio: int = 1
    slim: bool = True
    segments: int = 1
    """Equal parts with a meaning of their own (groups, scales, heads): each keeps a prefix, not the whole only."""

    @staticmethod
    def fixed(count: int) -> Channels:
        """A count that no width changes."""
        return Channels(count, slim=False)

    @property
    def full(self) -> int:
        """The count at width 1.0, which is the size of the stored weight."""
        return self.at(1.0)

    def at(self, width: float) -> int:
        """The number of active channels at `width` (0 < width <= 1)."""
        if not self.slim:
            return self.base
        if not 0.0 < width <= 1.0:
            raise SlimError(f"width is {width}, expected 0 < width <= 1")
        return make_divisible(self.base * width, self.divisor) * self.ratio * self.segments

    def times(self, ratio: int) -> Channels:
        """This count multiplied by a whole number after rounding (the expansion of a block)."""
        return replace(self, ratio=self.ratio * ratio)

    def repeated(self, segments: int) -> Channels:
        """This many equal segments, each as large as this count and slimmed on its own."""
        if not self.slim:
            return Channels.fixed(self.base * segments)
        return replace(self, segments=self.segments * segments)

    def take(self, tensor: Tensor, width: float, axis: int = 0, groups: int = 1) -> Tensor:
        """The active part of a tensor along one axis.

        Args:
            tensor: its axis has the full count, or one group's share of it.
            groups: how many groups share the count; with more than one, the axis is inside a group.
        """
        return _prefixes(tensor, axis, max(1, self.segments // groups), self.at(width) // groups)


@dataclass(frozen=True)
class Joined:
    """Several channel counts behind each other in one axis (a projection that is split afterwards)."""

    parts: tuple[Channels, ...]
    segments = 1

    @property
    def full(self) -> int:
        """The count at width 1.0."""
        return self.at(1.0)

    def at(self, width: float) -> int:
        """The number of active channels at `width`."""
        return sum(part.at(width) for part in self.parts)

    def take(self, tensor: Tensor, width: float, axis: int = 0, groups: int = 1) -> Tensor:
        """The active part of each count, behind each other."""
        if self.at(width) == tensor.shape[axis]:
            return tensor
        pieces = tensor.split([part.full // groups for part in self.parts], axis)
        taken = [part.take(piece, width, axis, groups) for part, piece in zip(self.parts, pieces, strict=True)]
        return torch.cat(taken, axis)


def as_channels(count: Channels | Joined | int) -> Channels | Joined:
    """An int is a fixed count."""
    return Channels.fixed(count) if isinstance(count, int) else count


def _prefixes(tensor: Tensor, axis: int, segments: int, active: int) -> Tensor:
    """`active` entries along the axis: an equal prefix of each of its equal segments."""
    if active == tensor.shape[axis]:
        return tensor
    if segments == 1:
        return tensor.narrow(axis, 0, active)
    if active % segments:
        raise SlimError(
            f"{active} active channels do not divide among {segments} groups; choose a divisor of the channel count "
            f"that is a multiple of {segments}, or slim each segment (Channels.repeated)"
        )
    parts = tensor.unflatten(axis, (segments, -1))
    return parts.narrow(axis + 1, 0, active // segments).flatten(axis, axis + 1)


@dataclass(frozen=True)
class ActivePoint:
    """What the slimmable layers of one forward pass need to know."""

    width: float
    stats: Mapping[str, Stats] | None = None
    """Normalisation statistics by layer name; None while training or when the layers' own buffers are meant."""
    recorder: dict[str, Stats] | None = field(default=None, compare=False)
    """Calibration: where each normalisation layer leaves the statistics of this batch."""
    synchronised: bool = False
    """Training on several processes: batch statistics are those of all processes together."""


_ACTIVE: contextvars.ContextVar[ActivePoint | None] = contextvars.ContextVar("active_point", default=None)


@contextlib.contextmanager
def active_point(point: ActivePoint) -> Iterator[None]:
    """Run the slimmable layers called inside at this point."""
    token = _ACTIVE.set(point)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def current_point() -> ActivePoint | None:
    """The active point, or None outside any context (full width)."""
    return _ACTIVE.get()


def current_width() -> float:
    """The active width; 1.0 outside any context."""
    point = _ACTIVE.get()
    return 1.0 if point is None else point.width


_CONV = {1: (nn.Conv1d, F.conv1d), 2: (nn.Conv2d, F.conv2d), 3: (nn.Conv3d, F.conv3d)}
_BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _ntuple(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


class SlimLayer(nn.Module):
    """A layer whose active part follows the width; `zoo.slim_net.materialise` replaces it by a plain one."""

    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """A plain module with copies of what is active at `width`.

        Args:
            stats: normalisation statistics of the operating point, for layers that have them.
        """
        raise NotImplementedError


class SlimConv(SlimLayer):
    """A 1-, 2- or 3-d convolution whose active input and output channels follow the width.

    Args:
        inputs, outputs: channel counts; an int is fixed.
        kernel_size, stride, padding, dilation: an int or one int per dimension; padding defaults to "same" for
            stride 1, (kernel - 1) // 2 * dilation.
        groups: 1; a `Channels`, when the number of groups follows the width (depthwise: groups=inputs); or an int,
            when each of that many groups is slimmed inside.
        dims: 1, 2 or 3.
    Shapes: (N, inputs at width, *spatial) float -> (N, outputs at width, *spatial).
    """

    weight_rounding: Callable[[Tensor], Tensor] | None = None
    """Applied to the full weight before it is sliced (zoo.quantization_aware)."""

    def __init__(
        self,
        inputs: Channels | Joined | int,
        outputs: Channels | Joined | int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | None = None,
        dilation: int | tuple[int, ...] = 1,
        groups: Channels | int = 1,
        bias: bool = False,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.groups, self.dims = as_channels(inputs), as_channels(outputs), groups, dims
        self.kernel_size = _ntuple(kernel_size, dims)
        self.stride, self.dilation = _ntuple(stride, dims), _ntuple(dilation, dims)
        same = tuple((k - 1) // 2 * d for k, d in zip(self.kernel_size, self.dilation, strict=True))
        self.padding = same if padding is None else _ntuple(padding, dims)
        plain = self._plain(1.0, bias)
        self.weight, self.bias = plain.weight, plain.bias

    def _groups_at(self, width: float) -> int:
        return self.groups.at(width) if isinstance(self.groups, Channels) else self.groups

    def _plain(self, width: float, bias: bool) -> nn.Module:
        conv_class, _ = _CONV[self.dims]
        groups = self._groups_at(width)
        return conv_class(
            self.inputs.at(width), self.outputs.at(width), self.kernel_size, stride=self.stride,
            padding=self.padding, dilation=self.dilation, groups=groups, bias=bias,
        )  # fmt: skip

    def _sliced(self, tensor: Tensor, width: float, inside: bool) -> Tensor:
        """The active part of the weight or the bias."""
        if isinstance(self.groups, int) and self.groups > self.outputs.segments:  # each group keeps its own prefix
            tensor = _prefixes(tensor, 0, self.groups, self.outputs.at(width))
        else:
            tensor = self.outputs.take(tensor, width)
        if not inside or isinstance(self.groups, Channels):  # depthwise: one input channel per group at every width
            return tensor
        return self.inputs.take(tensor, width, 1, self.groups)

    def active_parameters(self, width: float) -> tuple[Tensor, Tensor | None]:
        """Views of the weight and the bias that are used at `width`."""
        bias = None if self.bias is None else self._sliced(self.bias, width, inside=False)
        weight = self.weight if self.weight_rounding is None else self.weight_rounding(self.weight)
        return self._sliced(weight, width, inside=True), bias

    def forward(self, x: Tensor) -> Tensor:
        width = current_width()
        weight, bias = self.active_parameters(width)
        _, convolve = _CONV[self.dims]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self._groups_at(width))

    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """A plain convolution with copies of the active weights."""
        plain = self._plain(width, self.bias is not None)
        return _copy_parameters(plain, *self.active_parameters(width))

    def extra_repr(self) -> str:
        return f"{self.inputs.full}, {self.outputs.full}, kernel_size={self.kernel_size}, stride={self.stride}"


class SlimLinear(SlimLayer):
    """A linear layer whose active inputs and outputs follow the width.

    Shapes: (..., inputs at width) float -> (..., outputs at width).
    """

    def __init__(self, inputs: Channels | int, outputs: Channels | Joined | int, bias: bool = True) -> None:
        super().__init__()
        self.inputs, self.outputs = as_channels(inputs), as_channels(outputs)
        plain = nn.Linear(self.inputs.full, self.outputs.full, bias=bias)
        self.weight, self.bias = plain.weight, plain.bias

    def active_parameters(self, width: float) -> tuple[Tensor, Tensor | None]:
        """Views of the weight and the bias that are used at `width`."""
        weight = self.inputs.take(self.outputs.take(self.weight, width), width, 1)
        return weight, None if self.bias is None else self.outputs.take(self.bias, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.active_parameters(current_width()))

    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """A plain linear layer with copies of the active weights."""
        plain = nn.Linear(self.inputs.at(width), self.outputs.at(width), bias=self.bias is not None)
        return _copy_parameters(plain, *self.active_parameters(width))

    def extra_repr(self) -> str:
        return f"{self.inputs.full}, {self.outputs.full}, bias={self.bias is not None}"


class SlimBatchNorm(SlimLayer):
    """Batch normalisation with one affine pair, sliced, and statistics that belong to an operating point.

    In training it uses the statistics of the batch and tracks nothing, since an average over widths and resolutions
    describes none of them. In evaluation it takes the statistics of the active point from the norm bank; where the
    bank is empty, full width uses the layer's own buffers (a network that was loaded as an ordinary one).

    Shapes: (N, channels at width, *spatial) float -> the same.
    """

    def __init__(self, channels: Channels | Joined | int, *, eps: float = 1e-5, dims: int = 2) -> None:
        super().__init__()
        self.channels, self.eps, self.dims = as_channels(channels), eps, dims
        self.bank_name = ""
        self.weight = nn.Parameter(torch.ones(self.channels.full))
        self.bias = nn.Parameter(torch.zeros(self.channels.full))
        self.register_buffer("running_mean", torch.zeros(self.channels.full))
        self.register_buffer("running_var", torch.ones(self.channels.full))

    def forward(self, x: Tensor) -> Tensor:
        point, width = current_point(), current_width()
        active = self.channels.at(width)
        weight, bias = self.channels.take(self.weight, width), self.channels.take(self.bias, width)
        if point is not None and point.recorder is not None:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x.float(), axes, correction=0)
            point.recorder[self.bank_name] = (mean, variance)
            return F.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), weight, bias, False, 0.0, self.eps)
        if self.training and point is not None and point.synchronised:
            return synchronised_batch_norm(x, weight, bias, self.eps)
        if self.training:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        mean, variance = self._statistics(point, active)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)

    def _statistics(self, point: ActivePoint | None, active: int) -> Stats:
        if point is not None and point.stats is not None:
            return point.stats[self.bank_name]
        if active == self.channels.full:
            return self.running_mean, self.running_var
        raise NotCalibratedError(
            f"{self.bank_name or type(self).__name__}: no statistics for width {current_width()}; calibrate the "
            "network for this width and resolution first (zoo.calibrate, docs/training.md)"
        )

    def materialise(self, width: float, stats: Stats | None = None) -> nn.Module:
        """A plain batch norm with copies of the active affine pair and of the point's statistics."""
        active = self.channels.at(width)
        plain = _BATCH_NORM[self.dims](active, eps=self.eps)
        if stats is None and active == self.channels.full:
            stats = (self.running_mean, self.running_var)
        if stats is not None:
            plain.running_mean.copy_(stats[0])
            plain.running_var.copy_(stats[1])
        return _copy_parameters(plain, self.channels.take(self.weight, width), self.channels.take(self.bias, width))

    def extra_repr(self) -> str:
        return f"{self.channels.full}, eps={self.eps}"


@torch.no_grad()
def _copy_parameters(plain: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    plain.weight.copy_(weight)
    if bias is not None:
        plain.bias.copy_(bias)
    return plain.to(weight.device, weight.dtype)
