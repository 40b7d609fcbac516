"""The base of every slimmable network: width and resolution of a forward pass, norm bank, feature interface."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.slim_layers import (
    ActivePoint,
    NotCalibratedError,
    SlimBatchNorm,
    SlimError,
    SlimLayer,
    Stats,
    active_point,
    current_point,
)
from zoo.slim_parameters import SlimLayerNorm


@dataclass(frozen=True)
class FeatureInfo:
    """What one entry of `forward_features` looks like."""

    channels: int
    """Channels at full width."""
    stride: int
    """Input pixels per feature pixel."""


Size = int | tuple[int, ...]
"""Pixels of a square picture, (height, width), or of a clip (frames, height, width)."""


class NormBank(nn.Module):
    """Normalisation statistics of a network, one set for each operating point; travels with the state dict.

    A point is known by the channel counts that its width gives (so 0.7 and 0.7000001 are one point) and by the size of
    its input: a resolution in pixels, for clips with the number of frames before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, dict[str, Stats]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def get_extra_state(self) -> dict[str, dict[str, Stats]]:
        """Plain dictionaries of tensors."""
        return self.entries

    def set_extra_state(self, state: dict[str, dict[str, Stats]]) -> None:
        """Restore what `get_extra_state` gave."""
        self.entries = {key: dict(entry) for key, entry in state.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NormBank:
        """Statistics follow the network to another device or number type."""
        super()._apply(fn, recurse)
        self.entries = {
            key: {name: (fn(mean), fn(variance)) for name, (mean, variance) in entry.items()}
            for key, entry in self.entries.items()
        }
        return self


class SlimNet(nn.Module):
    """A network of slimmable layers with the backbone interface that the rest of the zoo stands on.

    Subclasses set `stem`, `stages` (an nn.ModuleList), `feature_info` (one for each stage) and `forward_head`, and
    call `name_norms()` at the end of their constructor.
    """

    stem: nn.Module
    stages: nn.ModuleList
    feature_info: list[FeatureInfo]
    synchronised_norms = False
    """Training on several processes: normalise by the statistics of the whole batch, not of each share."""

    def name_norms(self) -> None:
        """Give each slimmable norm the name under which the bank keeps its statistics."""
        self.norm_bank = NormBank()
        for name, module in self.named_modules():
            if isinstance(module, SlimBatchNorm):
                module.bank_name = name

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """Class scores.

        Args:
            x: pictures (N, C, H, W) or clips (N, C, T, H, W), as the network takes, float, normalised.
            width: 0 < width <= 1; None runs inside the caller's `at` context, or at full width outside any.
        Returns:
            logits (N, classes).
        """
        with self.point_of_call(x, width):
            return self.forward_head(self.forward_until(x, len(self.stages)))

    def point_of_call(self, x: Tensor, width: float | None) -> contextlib.AbstractContextManager[None]:
        """The operating point of a forward pass: that of the width and the input, or the caller's `at` context.

        Args:
            x, width: as in `forward`.
        """
        if width is None and self._is_calibrated() and current_point() is None:
            width = 1.0  # not the layers' own buffers, which training never fills
        return contextlib.nullcontext() if width is None else self.at(width, tuple(x.shape[2:]))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, as `feature_info` describes them."""
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward_until(self, x: Tensor, stage: int) -> Tensor:
        """The output after the first `stage` stages (0: after the stem)."""
        x = self.stem(x)
        for module in self.stages[:stage]:
            x = module(x)
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        """Logits (N, classes) from the output of the last stage."""
        raise NotImplementedError

    def signature(self, width: float) -> str:
        """A short hash of the channel counts at `width`."""
        norms = (m for m in self.modules() if isinstance(m, SlimBatchNorm | SlimLayerNorm))
        counts = [str(norm.channels.at(width)) for norm in norms]
        return hashlib.sha256(",".join(counts).encode()).hexdigest()[:16]

    def point_key(self, width: float, resolution: Size) -> str:
        """The key of an operating point in the norm bank."""
        sizes = (resolution, resolution) if isinstance(resolution, int) else resolution
        return f"{self.signature(width)}@{'x'.join(map(str, sizes))}"

    @contextlib.contextmanager
    def at(self, width: float, resolution: Size) -> Iterator[None]:
        """Run forward passes inside at this width, with the bank's statistics when evaluating.

        Raises:
            NotCalibratedError: in evaluation, the bank holds other points but not this one.
        """
        if self.training:
            point = ActivePoint(width, synchronised=self.synchronised_norms)
        else:
            point = ActivePoint(width, self._bank_entry(width, resolution))
        with active_point(point):
            yield

    def _is_calibrated(self) -> bool:
        bank = getattr(self, "norm_bank", None)  # a materialised network has none
        return bank is not None and len(bank) > 0

    def _bank_entry(self, width: float, resolution: Size) -> dict[str, Stats] | None:
        if not len(self.norm_bank):
            return None
        try:
            return self.norm_bank.entries[self.point_key(width, resolution)]
        except KeyError:
            raise NotCalibratedError(
                f"{type(self).__name__}: width {width} at {resolution} pixels is not calibrated; "
                "add it to the calibration (zoo.calibrate, docs/training.md) or choose one of the calibrated points"
            ) from None


@torch.no_grad()
def to_channels_last(network: nn.Module) -> nn.Module:
    """Lay four-dimensional weights out for channels-last pictures, in place; torch's own `to` refuses ODConv's five."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


@torch.no_grad()
def materialise(model: SlimNet, *, width: float, resolution: Size | None = None) -> nn.Module:
    """A plain module for one operating point: copied slices and that point's normalisation statistics.

    Args:
        model: the supernet; it is not changed.
        width: the subnet.
        resolution: input size in pixels, one int for squares, (frames, height, width) for clips. None is for a network
            without calibration: narrow norms then have mean 0 and variance 1.
    Returns:
        a module without slimmable layers, in eval mode; `forward(x)` takes pictures of the resolution.
    Raises:
        NotCalibratedError: the network is not calibrated for this point. Without any calibration, full width uses
            the layers' own statistics and a narrower subnet is refused, unless the resolution is None.
        SlimError: the resolution is missing for a calibrated network.
    """
    if len(model.norm_bank) and resolution is None:
        raise SlimError("materialise: resolution is missing; a calibrated network has statistics per resolution")
    entry = None if resolution is None else model._bank_entry(width, resolution)
    if entry is None and resolution is not None:
        _refuse_narrow(model, width, resolution)
    plain = copy.deepcopy(model, {id(model.norm_bank): NormBank()})  # other threads may be using the model: no change
    del plain.norm_bank
    for name, module in list(plain.named_modules()):
        if isinstance(module, SlimLayer):
            stats = entry.get(name) if entry else None
            parent = plain.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.materialise(width, stats))
    return plain.eval()


def _refuse_narrow(model: SlimNet, width: float, resolution: Size) -> None:
    norms = [m for m in model.modules() if isinstance(m, SlimBatchNorm)]
    if any(norm.channels.at(width) != norm.channels.full for norm in norms):
        raise NotCalibratedError(
            f"{type(model).__name__}: no statistics for width {width} at {resolution} pixels; calibrate the network "
            "first (zoo.calibrate, docs/training.md), or leave the resolution out where statistics do not matter"
        )
