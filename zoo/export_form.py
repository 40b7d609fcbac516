"""The form of a materialised network that is exported: the same function in operators that engines run well."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ExportForm(nn.Module):
    """A module that has another form for export.

    Dynamic convolutions leave grouped form (a batch in `groups` is a constant that no graph can hold); modules whose
    numbers depend on the picture size become constants of one size.
    """

    needs_size = False
    """The export form exists for one input size only."""

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The module that takes this one's place.

        Args:
            size_hw: height and width of this module's input feature map; None when the graph takes any size.
        """
        raise NotImplementedError


class FixedSizeError(ValueError):
    """A network that can be exported for one picture size only is asked for a graph of any size."""


def has_fixed_size(model: nn.Module) -> bool:
    """Whether the export form of this network belongs to one picture size."""
    return any(isinstance(module, ExportForm) and module.needs_size for module in model.modules())


@torch.no_grad()
def export_form(model: nn.Module, resolution: int | tuple[int, int] | None, in_channels: int = 3) -> nn.Module:
    """A copy of a materialised network, ready for torch.export and torch.onnx.export.

    Args:
        model: from `zoo.materialise`, in eval mode; it is not changed.
        resolution: picture size in pixels, when the graph is for one size only; None for any size.
        in_channels: channels of the picture.
    Returns:
        a module with the same outputs to rounding.
    Raises:
        FixedSizeError: no resolution is given and some module has a form for one size only.
    """
    form = copy.deepcopy(model).eval()
    special = {name: m for name, m in form.named_modules() if isinstance(m, ExportForm)}
    if resolution is None:
        fixed = [name for name, module in special.items() if module.needs_size]
        if fixed:
            raise FixedSizeError(
                f"{type(model).__name__}: {fixed[0]} has an export form for one picture size only; "
                "give the resolution and export one graph for each"
            )
    sizes = {} if resolution is None else _input_sizes(form, special, resolution, in_channels)
    for name, module in special.items():
        form.set_submodule(name, module.to_export_form(sizes.get(name)))
    return form


def _input_sizes(
    model: nn.Module, modules: dict[str, ExportForm], resolution: int | tuple[int, int], in_channels: int
) -> dict[str, tuple[int, int]]:
    """Height and width of the feature map that each module sees for a picture of this size."""
    sizes: dict[str, tuple[int, int]] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sizes[name] = (inputs[0].shape[-2], inputs[0].shape[-1])

        return modules[name].register_forward_pre_hook(record)

    handles = [watch(name) for name in modules]
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    model(torch.zeros(1, in_channels, height, width, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return sizes
