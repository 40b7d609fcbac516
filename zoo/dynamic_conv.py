"""Dynamic convolution: predict kernels from the input, then apply them by one of several equal backends.

One interface serves kernels that differ per sample (ODConv), per position (involution, DCDC) or not at all. The
backends compute the same sums in other operators:

grouped   the batch goes into the groups of one convolution: fast in training, but a graph would hold the batch size
bmm       shifted copies of the input are stacked and multiplied as matrices: for export
shift     one product per tap of the kernel, added up: for export of depthwise and per-position kernels
loop      sample by sample, position by position: the reference for tests
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.export_form import ExportForm


@dataclass(frozen=True)
class KernelSpec:
    """What is to be applied to one batch of N pictures with I channels, giving O channels of height H and width W.

    Exactly one of `shared`, `samples` and `positions` is set. Kernels are odd, padding keeps the size, dilation is 1.
    """

    kernel_size: int
    stride: int = 1
    groups: int = 1
    """Of `shared` and `samples`."""
    shared: Tensor | None = None
    """(O, I / groups, k, k): one kernel for all samples, an ordinary convolution in every backend."""
    samples: Tensor | None = None
    """(N, O, I / groups, k, k): a kernel per sample."""
    positions: Tensor | None = None
    """(N, G, k * k, H, W): a depthwise kernel for each output position, shared by the I / G channels of a group."""
    input_factor: Tensor | None = None
    """(N, I, 1, 1), multiplies the input."""
    output_factor: Tensor | None = None
    """(N, O, 1, 1), multiplies the output."""


class DynamicConv(ExportForm):
    """A convolution that predicts what it applies. Subclasses define `predict`.

    Shapes: (N, I, H, W) -> (N, O, ceil(H / stride), ceil(W / stride)).
    """

    backend = "grouped"
    export_backend = "bmm"

    def predict(self, x: Tensor) -> KernelSpec:
        """The kernels for this batch (N, I, H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return apply_kernels(x, self.predict(x), self.backend)

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The same module with the backend that graphs can hold."""
        self.backend = self.export_backend
        return self


def apply_kernels(x: Tensor, spec: KernelSpec, backend: str) -> Tensor:
    """Convolve a batch with predicted kernels.

    Args:
        x: (N, I, H, W).
        backend: a key of `SAMPLE_BACKENDS`.
    Returns:
        (N, O, ceil(H / stride), ceil(W / stride)).
    Raises:
        ValueError: the backend is unknown, or the specification holds no kernels or two kinds.
    """
    if backend not in SAMPLE_BACKENDS:
        raise ValueError(f"dynamic convolution: backend {backend!r} is unknown; choose {', '.join(SAMPLE_BACKENDS)}")
    if sum(kernels is not None for kernels in (spec.shared, spec.samples, spec.positions)) != 1:
        raise ValueError("dynamic convolution: a specification has one kind of kernels: shared, samples or positions")
    if spec.input_factor is not None:
        x = x * spec.input_factor
    if spec.positions is not None:
        y = POSITION_BACKENDS[backend](x, spec)
    elif spec.shared is not None:
        y = F.conv2d(x, spec.shared, None, spec.stride, spec.kernel_size // 2, 1, spec.groups)
    else:
        y = SAMPLE_BACKENDS[backend](x, spec)
    return y if spec.output_factor is None else y * spec.output_factor


def shifted(x: Tensor, kernel_size: int, stride: int) -> list[Tensor]:
    """The input under each tap of a kernel, row by row: kernel_size ** 2 tensors (N, I, H / stride, W / stride)."""
    pad, last = kernel_size // 2, kernel_size - 1
    padded = F.pad(x, (pad, pad, pad, pad)) if pad else x
    # ends are counted from the far side, so that a graph for any picture size needs no arithmetic on sizes
    spans = [slice(at, at - last if at < last else None, stride) for at in range(kernel_size)]
    return [row[:, :, :, column] for row in (padded[:, :, rows] for rows in spans) for column in spans]


def _samples_grouped(x: Tensor, spec: KernelSpec) -> Tensor:
    count, height, width = x.shape[0], *x.shape[-2:]
    y = F.conv2d(
        x.reshape(1, -1, height, width), spec.samples.flatten(0, 1), None,
        spec.stride, spec.kernel_size // 2, 1, count * spec.groups,
    )  # fmt: skip
    return y.reshape(count, -1, y.shape[-2], y.shape[-1])


def _samples_bmm(x: Tensor, spec: KernelSpec) -> Tensor:
    if _is_depthwise(spec):
        return _samples_shift(x, spec)  # a matrix product with one row per channel would only copy
    taps = torch.stack([tap.unflatten(1, (spec.groups, -1)) for tap in shifted(x, spec.kernel_size, spec.stride)], 3)
    weight = spec.samples.unflatten(1, (spec.groups, -1)).flatten(3)  # (N, G, O / G, I / G * k * k)
    return (weight @ taps.flatten(4).flatten(2, 3)).unflatten(3, taps.shape[-2:]).flatten(1, 2)


def _samples_shift(x: Tensor, spec: KernelSpec) -> Tensor:
    weights = spec.samples.flatten(3)
    total: Tensor | None = None
    for index, tap in enumerate(shifted(x, spec.kernel_size, spec.stride)):
        weight = weights[..., index]  # (N, O, I / G)
        if _is_depthwise(spec):
            term = weight.unsqueeze(-1) * tap
        else:
            pixels = tap.unflatten(1, (spec.groups, -1)).flatten(3)
            term = (weight.unflatten(1, (spec.groups, -1)) @ pixels).unflatten(3, tap.shape[-2:]).flatten(1, 2)
        total = term if total is None else total + term
    return total


def _samples_loop(x: Tensor, spec: KernelSpec) -> Tensor:
    return torch.cat([
        F.conv2d(one.unsqueeze(0), weight, None, spec.stride, spec.kernel_size // 2, 1, spec.groups)
        for one, weight in zip(x, spec.samples, strict=True)
    ])  # fmt: skip


def _is_depthwise(spec: KernelSpec) -> bool:
    return spec.samples.shape[1] == spec.groups and spec.samples.shape[2] == 1


def _positions_unfold(x: Tensor, spec: KernelSpec) -> Tensor:
    height, width = spec.positions.shape[-2:]
    columns = F.unfold(x, spec.kernel_size, padding=spec.kernel_size // 2, stride=spec.stride)
    columns = columns.reshape(x.shape[0], spec.positions.shape[1], -1, spec.kernel_size**2, height, width)
    return (columns * spec.positions.unsqueeze(2)).sum(3).flatten(1, 2)


def _positions_bmm(x: Tensor, spec: KernelSpec) -> Tensor:
    taps = [tap.unflatten(1, (spec.positions.shape[1], -1)) for tap in shifted(x, spec.kernel_size, spec.stride)]
    columns = torch.stack(taps, -1).permute(0, 1, 3, 4, 2, 5)  # (N, G, H, W, I / G, k * k)
    weight = spec.positions.permute(0, 1, 3, 4, 2).unsqueeze(-1)
    return (columns @ weight).squeeze(-1).permute(0, 1, 4, 2, 3).flatten(1, 2)


def _positions_shift(x: Tensor, spec: KernelSpec) -> Tensor:
    total: Tensor | None = None
    for index, tap in enumerate(shifted(x, spec.kernel_size, spec.stride)):
        term = tap.unflatten(1, (spec.positions.shape[1], -1)) * spec.positions[:, :, None, index]
        total = term if total is None else total + term
    return total.flatten(1, 2)


def _positions_loop(x: Tensor, spec: KernelSpec) -> Tensor:
    count, groups, _, height, width = spec.positions.shape
    k, pad, per_group = spec.kernel_size, spec.kernel_size // 2, x.shape[1] // groups
    padded = F.pad(x, (pad, pad, pad, pad))
    y = x.new_zeros(count, x.shape[1], height, width)
    for row in range(height):
        for column in range(width):
            top, left = row * spec.stride, column * spec.stride
            window = padded[:, :, top : top + k, left : left + k].flatten(2)
            for channel in range(x.shape[1]):
                kernel = spec.positions[:, channel // per_group, :, row, column]
                y[:, channel, row, column] = (window[:, channel] * kernel).sum(1)
    return y


Backend = Callable[[Tensor, KernelSpec], Tensor]
SAMPLE_BACKENDS: dict[str, Backend] = {
    "grouped": _samples_grouped,
    "bmm": _samples_bmm,
    "shift": _samples_shift,
    "loop": _samples_loop,
}
POSITION_BACKENDS: dict[str, Backend] = {
    "grouped": _positions_unfold,
    "bmm": _positions_bmm,
    "shift": _positions_shift,
    "loop": _positions_loop,
}


def set_backend(model: nn.Module, backend: str) -> None:
    """Choose the backend of every dynamic convolution in a network."""
    if backend not in SAMPLE_BACKENDS:
        raise ValueError(f"dynamic convolution: backend {backend!r} is unknown; choose {', '.join(SAMPLE_BACKENDS)}")
    for module in model.modules():
        if isinstance(module, DynamicConv):
            module.backend = backend
