"""Store each weight once: which tensors of a subnet's graph are slices of the full network, with which scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from converters.norm_folding import NormPair
from edge_runtime.tensor_recipe import GraphTensors, TensorRecipe

Array = npt.NDArray[Any]


@dataclass
class TensorStore:
    """Tensors of the full network, and those of a subnet that are no slice of it."""

    arrays: dict[str, Array] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Further names of the full network's tensors -> the name that they are stored under."""

    def source_of(self, name: str, value: Array, subnet: str) -> str:
        """The stored tensor whose leading part is `value`; it is added where there is none."""
        shared = self.aliases.get(name, name)
        stored = self.arrays.get(shared)
        if stored is not None and stored.ndim == value.ndim:
            part = stored[tuple(slice(0, s) for s in value.shape)]
            if part.shape == value.shape and np.array_equal(part, value):
                return shared
        own = f"{subnet}/{name}"
        self.arrays.setdefault(own, value)
        return own


def full_store(supernet: nn.Module) -> TensorStore:
    """Start from the parameters of the full network; one that several modules have is stored once."""
    first = {id(p): n for n, p in supernet.named_parameters()}
    every = supernet.named_parameters(remove_duplicate=False)
    return TensorStore(
        {n: np.ascontiguousarray(p.detach().cpu().numpy()) for n, p in supernet.named_parameters()},
        {n: first[id(p)] for n, p in every if first[id(p)] != n},
    )


def make_recipe(
    plain: nn.Module, pairs: list[NormPair], shapes: Mapping[str, tuple[int, ...]], store: TensorStore, subnet: str
) -> GraphTensors:
    """How the graph's initializers are made for any point of one width.

    Args:
        plain: the materialised, unfolded subnet.
        pairs: convolutions with their norms.
        shapes: initializers of the folded graph that are parameters, by name.
        store: tensors that may be shared; grows by those that cannot.
        subnet: name for tensors of this width's own.
    """
    norm_of = {pair.convolution: pair.norm for pair in pairs}
    offsets = norm_offsets(plain, pairs)
    state = plain.state_dict()
    tensors = []
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        norm = norm_of.get(module)
        if norm is not None and kind == "bias":
            tensors.append(TensorRecipe(name, shape, vector="shift", vector_at=offsets[norm]))
            continue
        source = store.source_of(name, state[name].cpu().numpy(), subnet)
        tensors.append(TensorRecipe(name, shape, source, None if norm is None else offsets[norm]))
    return GraphTensors(tuple(tensors))


def norm_offsets(plain: nn.Module, pairs: list[NormPair]) -> dict[str, int]:
    """Where each norm's channels begin in the point's vectors."""
    offsets, at = {}, 0
    for pair in pairs:
        offsets[pair.norm] = at
        at += plain.get_submodule(pair.norm).weight.numel()
    return offsets


def recipe_values(recipe: GraphTensors) -> dict[str, Any]:
    """The recipe as JSON values, without the fields that have their default."""
    values: dict[str, Any] = {"version": recipe.version, "tensors": [_tensor_values(t) for t in recipe.tensors]}
    if recipe.norms is not None:
        layers = [{k: v for k, v in asdict(layer).items() if v is not None} for layer in recipe.norms.layers]
        values["norms"] = {**asdict(recipe.norms), "layers": layers}
    if recipe.scales:
        values["scales"] = [{k: v for k, v in asdict(s).items() if v is not None} for s in recipe.scales]
        values["biases"] = [{"value": _tensor_values(b.value), "scale": b.scale} for b in recipe.biases]
    return values


def _tensor_values(tensor: TensorRecipe) -> dict[str, Any]:
    row = {k: v for k, v in asdict(tensor).items() if v is not None}
    if tensor.vector is None:
        row.pop("vector_at")
    return row
