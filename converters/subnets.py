"""One width of a supernet on its way into a bundle: materialised, folded, exported, its weights described."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch import nn

from converters.errors import ConversionError
from converters.norm_folding import NormPair, find_norm_pairs, fold_norms
from converters.norm_rounding import TABLE_STEP, round_norms
from converters.onnx_export import export_onnx, initializer_shapes
from converters.shared_weights import TensorStore, make_recipe
from edge_runtime.tensor_recipe import GraphTensors
from zoo import SlimNet, materialise


@dataclass(frozen=True)
class Subnet:
    """A converted width."""

    name: str
    """w0.50"""
    width: float
    pairs: list[NormPair]
    by_resolution: dict[int, nn.Module]
    """Materialised, unfolded, statistics rounded as stored: the reference of each point, smallest resolution first."""
    template: onnx.ModelProto
    """Float graph with made-up weights inside."""
    recipe: GraphTensors
    """How the float graph's tensors are made."""
    tables: dict[str, np.ndarray]
    """The normalisation of all its points, for the tables file."""

    def folded(self, resolution: int) -> nn.Module:
        """The subnet of one point with its norms folded."""
        return fold_norms(self.by_resolution[resolution], self.pairs, _example(resolution))

    def gammas(self, supernet: nn.Module) -> dict[str, np.ndarray]:
        """Stored weight -> gamma of the norm that is folded into it, at the stored weight's channels."""
        norm_of = {p.convolution: p.norm for p in self.pairs}
        found = {}
        for tensor in self.recipe.tensors:
            module, _, kind = tensor.name.rpartition(".")
            if kind == "weight" and module in norm_of and tensor.source is not None:
                holder = supernet if tensor.source == tensor.name else next(iter(self.by_resolution.values()))
                gamma = holder.get_submodule(norm_of[module]).weight
                found[tensor.source] = gamma.detach().cpu().numpy()
        return found


def table_key(width: float, resolution: int) -> str:
    """Key of a point's table; its float and integer programs share it."""
    return f"w{width:.2f}-r{resolution:03d}"


def convert_width(
    model: SlimNet, width: float, resolutions: tuple[int, ...], store: TensorStore, table_step: float = TABLE_STEP
) -> Subnet:
    """Materialise every resolution of a width and export one graph for all of them.

    Args:
        store: tensors that may be shared; grows by those that cannot.
        table_step: what normalisation statistics are rounded to.
    Raises:
        ConversionError: the network cannot be folded or exported, or a statistic is not finite.
    """
    largest, name = max(resolutions), f"w{width:.2f}"
    plains = {r: materialise(model, width=width, resolution=r) for r in sorted(resolutions)}
    pairs = find_norm_pairs(plains[largest], _example(largest))
    try:
        rounded = round_norms(
            {table_key(width, r): plain for r, plain in plains.items()}, pairs, store, name, table_step
        )
    except ValueError as error:
        raise ConversionError(f"width {width}: {error}") from error
    folded = fold_norms(plains[largest], pairs, _example(largest))
    template = export_onnx(_value_free(folded), largest)
    parameters = dict(folded.named_parameters())
    shapes = {n: s for n, s in initializer_shapes(template).items() if n in parameters and parameters[n].shape == s}
    recipe = make_recipe(plains[largest], pairs, shapes, store, name)
    if rounded is None:
        return Subnet(name, width, pairs, plains, template, recipe, {})
    norms, tables = rounded
    return Subnet(name, width, pairs, plains, template, replace(recipe, norms=norms, version=2), tables)


def _example(resolution: int) -> torch.Tensor:
    return torch.randn((1, 3, resolution, resolution), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _value_free(model: nn.Module) -> nn.Module:
    """A copy with random parameters: the exporter removes a bias that is zero, and another point's may not be."""
    copied = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(1)
    for parameter in copied.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return copied
