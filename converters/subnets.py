"""One width of a supernet on its way into a bundle: materialised, folded, exported, its weights described."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import torch
from torch import nn

from converters.errors import ConversionError
from converters.norm_folding import NORMS, NormPair, find_norm_pairs, fold_norms
from converters.norm_rounding import TABLE_STEP, round_norms
from converters.onnx_export import export_onnx, initializer_shapes
from converters.shared_weights import TensorStore, make_recipe
from edge_runtime.manifest import ChannelRule, Clip, OperatingPoint
from edge_runtime.tensor_recipe import GraphTensors
from zoo import SlimNet, materialise
from zoo.box_recipe import BoxRecipe
from zoo.export_form import export_form, has_fixed_size
from zoo.madds import count_madds
from zoo.recipe import Recipe
from zoo.sizes import clip_size, input_shape
from zoo.slim_layers import Channels, SlimBatchNorm
from zoo.slim_net import Size


@dataclass(frozen=True)
class Subnet:
    """A converted width."""

    name: str
    """w0.50, of clips w0.50-f08; w0.50-r064 or w0.50-f08-r064 where the graph is for one resolution only."""
    width: float
    pairs: list[NormPair]
    by_size: dict[Size, nn.Module]
    """Materialised, unfolded, statistics rounded as stored: the reference of each point, smallest size first."""
    template: onnx.ModelProto
    """Float graph with made-up weights inside."""
    recipe: GraphTensors
    """How the float graph's tensors are made."""
    tables: dict[str, np.ndarray]
    """The normalisation of all its points, for the tables file."""

    def folded(self, size: Size) -> nn.Module:
        """The subnet of one point with its norms folded, in the form that is exported at this size."""
        folded = fold_norms(self.by_size[size], self.pairs, _example(size))
        return export_form(folded, size if isinstance(size, int) else None)

    def gammas(self, supernet: nn.Module) -> dict[str, np.ndarray]:
        """Stored weight -> gamma of the norm that is folded into it, at the stored weight's channels."""
        norm_of = {p.convolution: p.norm for p in self.pairs}
        found = {}
        for tensor in self.recipe.tensors:
            module, _, kind = tensor.name.rpartition(".")
            if kind == "weight" and module in norm_of and tensor.source is not None:
                own = tensor.source.endswith(f"/{tensor.name}")  # of this width alone
                holder = next(iter(self.by_size.values())) if own else supernet
                gamma = holder.get_submodule(norm_of[module]).weight
                found[tensor.source] = gamma.detach().cpu().numpy()
        return found


def table_key(width: float, size: Size) -> str:
    """Key of a point's table, w0.50-r064 or of clips w0.50-f08-r064; its float and integer programs share it."""
    return f"{_graph_name(width, size)}-r{input_shape(size)[-1]:03d}"


def size_of_point(point: OperatingPoint) -> Size:
    """The zoo's size of a point of square pictures, or of clips of square frames."""
    side = point.size_hw[0]
    return side if point.frames is None else clip_size(point.frames, side)


def clip_of(recipe: Recipe) -> Clip | None:
    """What a manifest says of the clips of a recipe; None for pictures."""
    return Clip(float(recipe.clip_ms)) if recipe.clips else None


def float_point(subnet: Subnet, size: Size) -> OperatingPoint:
    """A point of the float graph; its accuracy is not measured yet."""
    key = table_key(subnet.width, size)
    return OperatingPoint(
        f"{key}-fp32", f"{subnet.name}-fp32", subnet.width, input_shape(size)[-2:],
        count_madds(subnet.by_size[size], input_shape(size)), {"select": 0.0}, table=key,
        frames=None if isinstance(size, int) else size[0],
    )  # fmt: skip


def convert_width(
    model: SlimNet, width: float, sizes: Sequence[Size], store: TensorStore, table_step: float = TABLE_STEP,
    free_sides: bool = True,
) -> list[Subnet]:  # fmt: skip
    """Materialise every size of a width and export one graph for all of them, of clips one for each number of frames.

    A network whose graph belongs to one picture size, or that has a norm behind something else than a plain convolution
    (its statistics then stay in the graph), gets one graph for each size.

    Args:
        store: tensors that may be shared; grows by those that cannot.
        table_step: what normalisation statistics are rounded to.
        free_sides: let a graph take any height and width; False exports sooner, where each size has its own graph.
    Raises:
        ConversionError: the network cannot be folded or exported, or a statistic is not finite.
    """
    graphs: dict[str, dict[Size, nn.Module]] = {}
    for size in sorted(sizes):
        plain = materialise(model, width=width, resolution=size)
        graphs.setdefault(_graph_name(width, size), {})[size] = plain
    converted = []
    for name, plains in graphs.items():
        largest = max(plains)
        pairs = find_norm_pairs(plains[largest], _example(largest))
        if not (_has_loose_norm(plains[largest], pairs) or has_fixed_size(plains[largest])):
            converted.append(_convert(name, width, plains, pairs, store, table_step, free_sides))
            continue
        for size, plain in plains.items():
            key = table_key(width, size)
            converted.append(_convert(key, width, {size: plain}, pairs, store, table_step, free_sides))
    return converted


def _graph_name(width: float, size: Size) -> str:
    return f"w{width:.2f}" if isinstance(size, int) else f"w{width:.2f}-f{size[0]:02d}"


def _has_loose_norm(plain: nn.Module, pairs: list[NormPair]) -> bool:
    folded = {pair.norm for pair in pairs}
    return any(isinstance(m, NORMS) and n not in folded for n, m in plain.named_modules())


def _convert(
    name: str, width: float, plains: dict[Size, nn.Module], pairs: list[NormPair], store: TensorStore,
    table_step: float, free_sides: bool,
) -> Subnet:  # fmt: skip
    """One graph for these sizes."""
    largest = max(plains)
    keyed = {table_key(width, size): plain for size, plain in plains.items()}
    try:
        rounded = round_norms(keyed, pairs, store, name, table_step)
    except ValueError as error:
        raise ConversionError(f"width {width}: {error}") from error
    form = fold_norms(plains[largest], pairs, _example(largest))
    form = export_form(form, largest if has_fixed_size(form) else None)
    known = {n for n, _ in plains[largest].named_parameters()} | {f"{p.convolution}.bias" for p in pairs}
    template, shapes = _export_template(form, known, largest, free_sides)
    recipe = make_recipe(plains[largest], pairs, shapes, store, name)
    if rounded is None:
        return Subnet(name, width, pairs, plains, template, recipe, {})
    norms, tables = rounded
    return Subnet(name, width, pairs, plains, template, replace(recipe, norms=norms, version=2), tables)


def _export_template(
    form: nn.Module, known: set[str], size: Size, free_sides: bool
) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The graph, and the shapes of the parameters that it holds unchanged under their names.

    Those get made-up values, since a device fills them in; the exporter rewrites others (a transposed matrix), which
    keep their true values inside the graph.

    Args:
        known: parameters that a device can make.
    """
    export = export_onnx if free_sides else partial(export_onnx, free_sides=False)
    parameters = {n: tuple(p.shape) for n, p in form.named_parameters() if n in known}
    template = export(_value_free(form, parameters), size)
    shapes = _unchanged(template, parameters)
    if len(shapes) < len(list(form.named_parameters())):
        template = export(_value_free(form, shapes), size)
        shapes = {n: s for n, s in _unchanged(template, parameters).items() if n in shapes}
    return template, shapes


def _unchanged(template: onnx.ModelProto, parameters: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {n: s for n, s in initializer_shapes(template).items() if parameters.get(n) == s}


def _example(size: Size) -> torch.Tensor:
    return torch.randn(input_shape(size), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _value_free(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy with these parameters random: the exporter removes a bias that is zero, and another point's may not be."""
    copied = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in copied.named_parameters():
        if name in names:
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return copied


def channel_rule(model: SlimNet, recipe: Recipe | BoxRecipe) -> ChannelRule:
    """How the widths of a recipe become channel counts."""
    return ChannelRule("make_divisible", channel_divisor(model), min(recipe.widths), max(recipe.widths))


def channel_divisor(model: SlimNet) -> int:
    """What channel counts are rounded to before they are multiplied by an expansion: 8, but 2 in ResNet."""
    counts = [m.channels for m in model.modules() if isinstance(m, SlimBatchNorm)]
    return min((c.divisor for c in counts if isinstance(c, Channels) and c.slim), default=1)
