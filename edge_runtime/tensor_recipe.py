"""Build the weights of one operating point from the tensors that the bundle stores once.

A narrow subnet's weight is a prefix slice of the full network's; the normalisation statistics of the operating point
are folded into it as one scale per output channel and one shift, which are made from the bundle's small tables.
"""

from __future__ import annotations

import json
import math
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleError
from edge_runtime.norm_tables import NormTables, scale_and_shift
from edge_runtime.records import RecordError, read_record

SMALLEST_SCALE = 1e-6  # a channel whose normalisation is zero still has a bias, which int32 must be able to hold
RECIPE_VERSIONS = (1, 2)
"""1: a point's scale and shift are in its table; 2: they are made by `norms`."""
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorRecipe:
    """How one external tensor of a graph is made: a slice of a stored tensor, or a run of a table's vector."""

    name: str
    """Name of the initializer in the graph."""
    shape: tuple[int, ...]
    source: str | None = None
    """Stored tensor; its leading part of this shape is taken along every axis."""
    scale_at: int | None = None
    """Multiply output channel i of the slice by the point's scale[scale_at + i]."""
    vector: str | None = None
    """Instead of a stored tensor: a vector of the point's table ("shift", ...)."""
    vector_at: int = 0

    def __post_init__(self) -> None:
        if (self.source is None) == (self.vector is None):
            raise ValueError(f"tensor {self.name[:80]!r}: expected either source or vector")
        if len(self.shape) > 8 or any(not 0 <= s <= 1 << 24 for s in self.shape):
            raise ValueError(f"tensor {self.name[:80]!r}: shape {self.shape} is impossible")
        if self.vector_at < 0 or (self.scale_at is not None and self.scale_at < 0):
            raise ValueError(f"tensor {self.name[:80]!r}: an offset is negative")
        if self.scale_at is not None and not self.shape:
            raise ValueError(f"tensor {self.name[:80]!r}: a single number has no channels to scale")


@dataclass(frozen=True)
class ScaleRecipe:
    """A per-channel scale of integers: stored[:channels] * |point's scale| * the input's activation scale.

    Without `input_at` it is the scale of an integer weight, with it that of an integer bias.
    """

    name: str
    source: str
    """Stored scales of the full network's integer weight, one for each output channel."""
    channels: int
    scale_at: int | None = None
    """Run of the point's scale (folded normalisation); its sign is in the stored integers."""
    input_at: int | None = None
    """Index into the point's activation_scale."""

    def __post_init__(self) -> None:
        if any(at is not None and at < 0 for at in (self.scale_at, self.input_at)):
            raise ValueError(f"scale {self.name[:80]!r}: an offset is negative")


@dataclass(frozen=True)
class BiasRecipe:
    """An int32 bias: the float bias divided by its scale, rounded."""

    value: TensorRecipe
    """The float bias; its name is that of the initializer."""
    scale: str
    """Name of the ScaleRecipe that divides it."""


@dataclass(frozen=True)
class GraphTensors:
    """All external tensors of a graph."""

    tensors: tuple[TensorRecipe, ...]
    scales: tuple[ScaleRecipe, ...] = ()
    biases: tuple[BiasRecipe, ...] = ()
    norms: NormTables | None = None
    """What "scale" and "shift" are made from; None: the point's table holds them, or no norm is folded."""
    version: int = 1

    def __post_init__(self) -> None:
        if self.version not in RECIPE_VERSIONS:
            raise ValueError(f"version is {self.version}, this runtime reads 1 and 2; update edge-runtime")
        if self.version == 1 and self.norms is not None:
            raise ValueError("version 1 has no norms")

    @property
    def sources(self) -> set[str]:
        """Names of the stored tensors that it needs."""
        layers = () if self.norms is None else self.norms.layers
        parts = {name for layer in layers for name in (layer.gamma, layer.beta, layer.bias)}
        values = (*self.tensors, *(bias.value for bias in self.biases))
        found = parts | {t.source for t in values} | {s.source for s in self.scales}
        return {name for name in found if name is not None}


def read_recipe(content: bytes, where: str) -> GraphTensors:
    """Parse a recipe file.

    Raises:
        BundleError: it is not one.
    """
    try:
        return read_record(GraphTensors, json.loads(content), where)
    except (RecordError, ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not a recipe of weights: {error}") from error


def build_tensors(recipe: GraphTensors, weights: Arrays, tables: Arrays, table: str) -> dict[str, npt.NDArray[Any]]:
    """Make the external tensors of one point.

    Args:
        recipe: of the point's program.
        weights: stored tensors of the full network.
        tables: all points' vectors, "<table>/<vector>", and the tables of `recipe.norms`.
        table: the point's key in `tables`.
    Returns:
        new contiguous arrays by initializer name; float16 storage becomes float32.
    Raises:
        BundleError: a tensor or vector is missing or too small.
    """
    if recipe.norms is not None:
        made = scale_and_shift(recipe.norms, weights, tables, table)
        tables = ChainMap({f"{table}/{name}": values for name, values in made.items()}, dict(tables))
    built = {t.name: _build(t, weights, tables, table) for t in recipe.tensors}
    built.update({s.name: _build_scale(s, weights, tables, table) for s in recipe.scales})
    for bias in recipe.biases:
        if bias.scale not in built:
            raise BundleError(f"recipe: bias {bias.value.name!r} names scale {bias.scale!r}, which is not made")
        value, scale = _build(bias.value, weights, tables, table).astype(np.float64), built[bias.scale]
        if value.shape != scale.shape or not np.issubdtype(scale.dtype, np.floating):
            raise BundleError(f"recipe: bias {bias.value.name!r} of {value.shape} does not fit scale {bias.scale!r}")
        value /= scale
        limit = np.iinfo(np.int32)
        built[bias.value.name] = np.clip(np.rint(value), limit.min, limit.max).astype(np.int32)
    return built


def _build_scale(recipe: ScaleRecipe, weights: Arrays, tables: Arrays, table: str) -> npt.NDArray[np.float32]:
    stored = weights.get(recipe.source)
    if stored is None or stored.ndim != 1 or not 0 < recipe.channels <= stored.size:
        raise BundleError(f"weights: scales {recipe.source!r} are missing or too few; make the bundle again")
    scale = stored[: recipe.channels].astype(np.float32)
    if recipe.scale_at is not None:
        scale = scale * np.abs(_run(tables, f"{table}/scale", recipe.scale_at, recipe.channels))
    scale = np.maximum(scale, np.float32(SMALLEST_SCALE))
    if recipe.input_at is not None:
        scale = scale * _run(tables, f"{table}/activation_scale", recipe.input_at, 1)
    return np.ascontiguousarray(scale, np.float32)


def _build(tensor: TensorRecipe, weights: Arrays, tables: Arrays, table: str) -> npt.NDArray[Any]:
    if tensor.source is None:
        count = math.prod(tensor.shape)
        return _run(tables, f"{table}/{tensor.vector}", tensor.vector_at, count).reshape(tensor.shape)
    if tensor.source not in weights:
        raise BundleError(f"weights: tensor {tensor.source!r} is missing; make the bundle again")
    stored = weights[tensor.source]
    if stored.ndim != len(tensor.shape) or any(a > b for a, b in zip(tensor.shape, stored.shape, strict=True)):
        raise BundleError(f"weights: {tensor.source!r} is {stored.shape}, too small for {tensor.shape}")
    part = stored[tuple(slice(0, s) for s in tensor.shape)]
    if tensor.scale_at is None:
        return np.ascontiguousarray(_widen(part))
    scale = _run(tables, f"{table}/scale", tensor.scale_at, tensor.shape[0])
    return np.ascontiguousarray(_widen(part) * scale.reshape((-1,) + (1,) * (part.ndim - 1)))


def _run(tables: Arrays, key: str, start: int, count: int) -> npt.NDArray[Any]:
    vector = tables.get(key)
    if vector is None or vector.ndim != 1 or start + count > vector.size:
        raise BundleError(f"tables: {key!r} is missing or too short; make the bundle again")
    return np.ascontiguousarray(_widen(vector[start : start + count]))


def _widen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array
