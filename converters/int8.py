"""Quantize one width after training: graph, integers, ranges at each input size, and which layers stay float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from converters.activation_ranges import best_ranges, collect_samples
from converters.int8_graph import Int8Graph, QuantSpec, external_names, make_int8_graph, stored_int8
from converters.onnx_export import externalise
from converters.sensitivity import rank_layers, squared_change
from converters.subnets import Subnet, table_key
from converters.verification import accuracy_of
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import TensorSpec, preprocess
from edge_runtime.tensor_recipe import build_tensors
from zoo.sizes import input_shape, size_text
from zoo.slim_net import Size

SENSITIVITY_PICTURES = 64
Tables = dict[str, np.ndarray]


@dataclass(frozen=True)
class Int8Subnet:
    """A quantized width: its graph and what the bundle stores for it."""

    subnet: Subnet
    spec: QuantSpec
    graph: Int8Graph
    stored: dict[str, np.ndarray]
    """Integers and scales, by name."""
    tables: Tables
    """activation_scale and activation_zero_point of each point."""


def quantize_width(
    subnet: Subnet,
    floats: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    gammas: Mapping[str, np.ndarray],
    pictures: list[np.ndarray],
    tensor_spec: TensorSpec,
    spec: QuantSpec,
) -> Int8Subnet:
    """Quantize a width by the given spec.

    Args:
        floats: stored float tensors.
        tables: scales and shifts of every point.
        gammas: stored weight -> gamma of its norm.
        pictures: for calibration, (H, W, 3) or clips (T, H, W, 3) uint8 RGB; never those that accuracy is measured on.
        tensor_spec: preprocessing.
    """
    graph = make_int8_graph(subnet.template, subnet.recipe, spec)
    names = {t.name for t in subnet.recipe.tensors}
    proto = type(subnet.template).FromString(externalise(subnet.template, names))
    found: Tables = {}
    for size in subnet.by_size:
        key = table_key(subnet.width, size)
        tensors = build_tensors(subnet.recipe, floats, tables, key)
        inputs = (preprocess(p, tensor_spec, input_shape(size)[2:]) for p in pictures[: spec.calib_pictures])
        samples = collect_samples(proto, tensors, graph.activations, inputs)
        ranges = best_ranges(proto, graph.activations, samples)
        found[f"{key}/activation_scale"] = np.array([r.scale for r in ranges], np.float32)
        found[f"{key}/activation_zero_point"] = np.array([r.zero_point for r in ranges], np.uint8)
    return Int8Subnet(subnet, spec, graph, stored_int8(floats, graph.recipe, gammas, spec), found)


def point_tensors(
    found: Int8Subnet, floats: Mapping[str, np.ndarray], tables: Mapping[str, np.ndarray], size: Size
) -> Tables:
    """The tensors of one point by initializer name, made as a device makes them."""
    key = table_key(found.subnet.width, size)
    return build_tensors(found.graph.recipe, {**floats, **found.stored}, {**tables, **found.tables}, key)


def exact_logits(
    found: Int8Subnet, tensors: Tables, size: Size, pictures: list[np.ndarray], tensor_spec: TensorSpec
) -> npt.NDArray[np.float32]:
    """What an engine whose sums do not saturate computes: the graph with its rounding, but float arithmetic.

    Args:
        tensors: of this size, from point_tensors.
        pictures: (H, W, 3) or, for clips, (T, H, W, 3) uint8 RGB each.
    Returns:
        (pictures, classes).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_external_initializers(
        list(tensors), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in tensors.values()]
    )  # fmt: skip
    graph = externalise(found.graph.proto, external_names(found.graph.recipe))
    session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    name, sides = session.get_inputs()[0].name, input_shape(size)[2:]
    return np.concatenate([session.run(None, {name: preprocess(p, tensor_spec, sides)})[0] for p in pictures])


def int8_name(point: OperatingPoint) -> str:
    """What the int8 point beside a float one is called."""
    return point.name.removesuffix("-fp32") + "-int8"


def exact_drops(
    found: Int8Subnet,
    accuracy: Mapping[Size, float],
    floats: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    pictures: list[np.ndarray],
    labels: np.ndarray,
    tensor_spec: TensorSpec,
) -> dict[Size, float]:
    """Size -> accuracy (0-1) that int8 loses, by `exact_logits`.

    Args:
        accuracy: size -> of the float point.
        labels: (pictures,) int64.
    """
    drops = {}
    for size, share in accuracy.items():
        tensors = point_tensors(found, floats, tables, size)
        drops[size] = share - accuracy_of(exact_logits(found, tensors, size, pictures, tensor_spec), labels)
    return drops


def with_float_layers(
    subnet: Subnet, size: Size, spec: QuantSpec, count: int, pictures: list[np.ndarray], tensor_spec: TensorSpec,
    change: Callable[[torch.Tensor, torch.Tensor], float] = squared_change,
) -> QuantSpec:  # fmt: skip
    """The spec with the `count` most sensitive layers of a point left float, beside those that it leaves float anyway.

    Args:
        change: of outputs, to rank layers by.
    """
    sides = input_shape(size)[2:]
    batch = np.concatenate([preprocess(p, tensor_spec, sides) for p in pictures[:SENSITIVITY_PICTURES]])
    ranked = rank_layers(subnet.folded(size), torch.from_numpy(batch), spec.largest, change)
    found = [name for name, _ in ranked if name not in spec.float_layers]
    return replace(spec, float_layers=(*spec.float_layers, *found[:count]))


def quantize_with_gate(
    quantize: Callable[[QuantSpec], Int8Subnet],
    drops_of: Callable[[Int8Subnet], dict[Size, float]],
    float_layers_of: Callable[[QuantSpec, Size, int], QuantSpec],
    spec: QuantSpec,
    report: Callable[[str], None],
) -> tuple[Int8Subnet, dict[Size, float]]:
    """Quantize, measure, and leave sensitive layers float until no point loses too much or the allowance is used up.

    Args:
        quantize: makes the width by a spec.
        drops_of: size -> accuracy lost on select against fp32.
        float_layers_of: (spec, size, count) -> spec with that many float layers.
    Returns:
        the best attempt and its drops; points that still lose too much are for the caller to leave out.
    """
    best = quantize(spec)
    drops = drops_of(best)
    for count in range(1, spec.max_float_layers + 1):
        if max(drops.values()) <= spec.max_drop:
            break
        worst = max(drops, key=lambda r: drops[r])
        attempt = quantize(float_layers_of(spec, worst, count))
        attempt_drops = drops_of(attempt)
        report(
            f"{best.subnet.name} int8: a drop of {drops[worst]:.2%} at {size_text(worst)} is too much; with "
            f"{', '.join(attempt.spec.float_layers)} in float the largest is {max(attempt_drops.values()):.2%}"
        )
        if max(attempt_drops.values()) < max(drops.values()):
            best, drops = attempt, attempt_drops
    return best, drops
