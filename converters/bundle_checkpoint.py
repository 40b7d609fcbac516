"""A checkpoint from a bundle: the way back, so that a model that ships can be built for other devices or trained on.

A bundle stores each weight once under its name in the network, and the statistics of each operating point. Of an int8
bundle the weights come back as the values that its integers stand for; what rounding took away stays away, and
quantizing them again with the same number of bits gives the same integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from converters.errors import ConversionError
from converters.subnets import size_of_point
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Manifest, OperatingPoint
from edge_runtime.norm_tables import NormTables, statistics
from edge_runtime.tensor_recipe import read_recipe
from zoo.checkpoint import Checkpoint
from zoo.models import create
from zoo.recipe import Recipe
from zoo.sizes import input_shape, size_facts
from zoo.slim_layers import Stats
from zoo.slim_net import Size, SlimNet

INT8, SCALE = "/int8", "/int8_scale"


def checkpoint_from_bundle(bundle: Bundle, recipe: Recipe) -> Checkpoint:
    """The supernet of a bundle that was built from one checkpoint.

    Args:
        bundle: with shared weights.
        recipe: names the network and its options; its widths and resolutions (and frames) become the bundle's.
    Raises:
        ConversionError: the bundle has no shared weights or statistics, they are of another network, or one of the
            two is of clips and the other of pictures.
    """
    manifest = bundle.manifest
    if not bundle.weights or manifest.exits is not None:
        raise ConversionError(
            f"{bundle.root}: it holds no shared weights of one network; only what `converters build` made of a "
            "checkpoint for onnxruntime can be turned back"
        )
    _require_same_input(bundle, recipe)
    net = create(recipe.model, num_classes=len(manifest.labels), **recipe.model_options)
    gammas = _gammas(bundle)
    weights = {name: _tensor(bundle, name, like, gammas) for name, like in net.named_parameters()}
    net.load_state_dict({**net.state_dict(), **weights})
    points: dict[tuple[float, Size], dict[str, Any]] = {}
    for program in manifest.programs:
        if program.tensors is None:
            continue
        norms = read_recipe(bundle.content(program.tensors), str(bundle.root)).norms
        for point in (p for p in manifest.points if p.program == program.name and p.table is not None):
            if norms is None:
                raise ConversionError(f"{bundle.root}: {program.name} has no statistics of normalisation to take")
            size = size_of_point(point)
            entry = _entry(net, norms, bundle.tables, str(point.table))
            net.norm_bank.entries[net.point_key(point.width, size)] = entry
            points.setdefault((point.width, size), _row(size, point))
    _set_running(net, net.norm_bank.entries[net.point_key(*max(points))])
    values = _recipe_values(manifest, recipe, list(points))
    return Checkpoint(net.state_dict(), values, list(manifest.labels), accuracy=list(points.values()))


def _require_same_input(bundle: Bundle, recipe: Recipe) -> None:
    kinds = ["clips" if found else "pictures" for found in (bundle.manifest.clip is not None, recipe.clips)]
    if kinds[0] != kinds[1]:
        raise ConversionError(
            f"{bundle.root}: it reads {kinds[0]}, and the recipe is of {kinds[1]}; give the recipe that it was trained "
            "with"
        )


def _gammas(bundle: Bundle) -> dict[str, str]:
    """Stored scale of an integer weight -> the factor of the norm after it, whose sign the integers carry."""
    found = {}
    for program in bundle.manifest.programs:
        if program.tensors is None:
            continue
        recipe = read_recipe(bundle.content(program.tensors), str(bundle.root))
        starts, at = {}, 0
        for layer in recipe.norms.layers if recipe.norms else ():
            starts[at], at = layer.gamma, at + layer.channels
        found |= {s.source: starts[s.scale_at] for s in recipe.scales if s.scale_at in starts}
    return found


def _tensor(bundle: Bundle, name: str, like: Tensor, gammas: Mapping[str, str]) -> Tensor:
    """A weight by name: as it is stored in float, else from its integers."""
    stored = bundle.weights
    if name in stored:
        values: npt.NDArray[Any] = stored[name]
    elif name + INT8 in stored and name + SCALE in stored:
        scale = stored[name + SCALE]
        if name + SCALE in gammas:
            scale = np.where(stored[gammas[name + SCALE]] < 0, -scale, scale)
        values = stored[name + INT8].astype(np.float32) * scale.reshape(-1, *(1,) * (like.dim() - 1))
    else:
        raise ConversionError(f"{bundle.root}: has no weight {name!r}; the recipe names another network")
    if values.shape != tuple(like.shape):
        raise ConversionError(
            f"{bundle.root}: weight {name!r} is {values.shape}, the recipe's network has {tuple(like.shape)}; give the "
            "recipe that it was trained with"
        )
    return torch.from_numpy(np.array(values, np.float32))


def _entry(net: SlimNet, norms: NormTables, tables: Mapping[str, npt.NDArray[Any]], table: str) -> dict[str, Stats]:
    """Mean and variance of each norm, as the bank keeps them."""
    mean, deviation = statistics(norms, tables, norms.rows.index(table))
    entry, at = {}, 0
    for layer in norms.layers:
        name = layer.gamma.removesuffix(".weight")
        here = slice(at, at + layer.channels)
        variance = np.square(deviation[here]) - net.get_submodule(name).eps
        entry[name] = (torch.from_numpy(mean[here]).float(), torch.from_numpy(np.maximum(variance, 0.0)).float())
        at += layer.channels
    return entry


def _set_running(net: SlimNet, entry: Mapping[str, Stats]) -> None:
    """The running statistics of the full net, which training goes on from, are those of the largest point."""
    for name, (mean, variance) in entry.items():
        norm = net.get_submodule(name)
        if norm.running_mean.shape == mean.shape:  # otherwise the bundle's widest net is not the full one
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def _recipe_values(manifest: Manifest, recipe: Recipe, points: Sequence[tuple[float, Size]]) -> dict[str, Any]:
    """The recipe with what the bundle says of its operating points and of preprocessing."""
    spec, sizes = manifest.preprocessing, [size for _, size in points]
    values = recipe.to_dict() | {
        "widths": sorted({width for width, _ in points}),
        "resolutions": sorted({input_shape(size)[-1] for size in sizes}, reverse=True),
        "mean": list(spec.mean), "std": list(spec.std),
    }  # fmt: skip
    if manifest.clip is not None:
        values["frames"] = sorted({size[0] for size in sizes if not isinstance(size, int)}, reverse=True)
        values["clip_ms"] = round(manifest.clip.duration_ms)
    return values


def _row(size: Size, point: OperatingPoint) -> dict[str, Any]:
    """What the checkpoint says of a point; accuracy is the bundle's own."""
    row: dict[str, Any] = {"width": point.width, **size_facts(size), "madds": point.madds}
    row |= {f"{split}_accuracy": value for split, value in (point.accuracy or {}).items()}
    if point.temperature is not None:
        row["temperature"] = point.temperature
    if point.unsure_below is not None:
        row["unsure_below"] = point.unsure_below
    return row
