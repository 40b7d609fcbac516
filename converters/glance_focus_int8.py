"""int8 encoders of Glance and Focus: the quantizer of the other bundles, on patches that were really looked at.

Policy and classifier stay float: they are small, recurrent, and a rounded place moves a patch. What counts is the whole
sequence, so the gate compares every look and every exit with float on pictures that nothing was calibrated on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch

from converters.activation_ranges import best_ranges, collect_samples
from converters.errors import ConversionError
from converters.executorch_export import lower, quiet
from converters.executorch_quantize import quantize_point
from converters.glance_focus import MIN_DELEGATED, Part, first_output
from converters.int8_graph import QuantSpec, make_int8_graph, stored_int8
from converters.sensitivity import rank_layers
from edge_runtime.tensor_recipe import GraphTensors, TensorRecipe, build_tensors

ENCODERS = ("glance", "focus")
SENSITIVITY_IMAGES = 64
TABLE = "part"


@dataclass(frozen=True)
class Int8Part:
    """A quantized encoder."""

    part: Part
    graph: onnx.ModelProto
    """QDQ, its values inside."""
    tensors: dict[str, np.ndarray]
    spec: QuantSpec


@dataclass(frozen=True)
class Attempt:
    """Which encoders become int8, and how many layers of each stay float."""

    parts: tuple[str, ...]
    float_layers: int = 0


def attempts(spec: QuantSpec) -> list[Attempt]:
    """From all in int8 to the glance alone; the first that passes the gate is taken."""
    tried = [Attempt(ENCODERS)]
    if spec.max_float_layers:
        tried.append(Attempt(ENCODERS, spec.max_float_layers))
    return [*tried, Attempt(("glance",), spec.max_float_layers)]


def quantize_part(
    part: Part, exported: bytes, images: Sequence[np.ndarray], spec: QuantSpec, float_layers: int = 0
) -> Int8Part:
    """Quantize one encoder.

    Args:
        part: glance or focus, norms folded.
        exported: the part as a float ONNX file; exporting is the slow step, so it is done once.
        images: what it saw in calibration, (1, 3, patch, patch) float32 each.
        spec: how.
        float_layers: so many of its most sensitive convolutions stay float.
    Raises:
        ConversionError: there are no images, or an activation is not finite.
    """
    if not images:
        raise ConversionError(f"int8: {part.name} saw no calibration pictures; train with calib_pictures above 0")
    if float_layers:
        batch = torch.from_numpy(np.concatenate(images[:SENSITIVITY_IMAGES]))
        ranked = rank_layers(first_output(part.module), batch, spec.largest)
        names = tuple(name.removeprefix("encoder.") for name, _ in ranked[:float_layers])
        spec = replace(spec, float_layers=names)
    proto = onnx.load_from_string(exported)
    values = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    floats = {name: array for name, array in values.items() if array.dtype == np.float32 and array.ndim}
    recipe = GraphTensors(tuple(TensorRecipe(name, array.shape, name) for name, array in floats.items()))
    graph = make_int8_graph(proto, recipe, spec)
    samples = collect_samples(proto, {}, graph.activations, images)
    ranges = best_ranges(proto, graph.activations, samples)
    tables = {
        f"{TABLE}/activation_scale": np.array([r.scale for r in ranges], np.float32),
        f"{TABLE}/activation_zero_point": np.array([r.zero_point for r in ranges], np.uint8),
    }
    stored = {**floats, **stored_int8(floats, graph.recipe, {}, spec)}
    tensors = build_tensors(graph.recipe, stored, tables, TABLE)
    return Int8Part(part, _with_values(graph.proto, tensors), tensors, spec)


def _with_values(graph: onnx.ModelProto, tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with these numbers in place of the quantizer's."""
    filled = onnx.ModelProto()
    filled.CopyFrom(graph)
    for initializer in filled.graph.initializer:
        if initializer.name in tensors:
            array = tensors[initializer.name].reshape(tuple(initializer.dims))
            initializer.CopyFrom(onnx.numpy_helper.from_array(array, initializer.name))
    return filled


def int8_to_onnx(found: Int8Part) -> bytes:
    """The file for ONNX Runtime."""
    return found.graph.SerializeToString()


def int8_to_executorch(found: Int8Part) -> bytes:
    """The file for ExecuTorch, with the same integers and ranges.

    Raises:
        ConversionError: torch or ExecuTorch refuses it, or XNNPACK takes too little of it.
    """
    with quiet(), torch.no_grad():
        exported = torch.export.export(found.part.module, found.part.examples)
        module = quantize_point(exported, found.graph, found.tensors)
        again = torch.export.export(module, found.part.examples)
    return lower({"forward": again}, None, lambda line: None, MIN_DELEGATED).program


INT8_CONVERSIONS = {"onnxruntime": int8_to_onnx, "executorch": int8_to_executorch}


def largest_drop(floats: Mapping[str, float], quantized: Mapping[str, float]) -> tuple[str, float]:
    """Where int8 loses most accuracy against float: "look 2" or a point's name, and how much, 0-1.

    Args:
        floats, quantized: accuracy on select of every look and every exit, by name.
    """
    return max(((name, floats[name] - quantized[name]) for name in floats), key=lambda row: row[1])


def describe(quantized: Mapping[str, Int8Part], names: Sequence[str]) -> str:
    """Which parts are int8, and what stays float: "glance and focus; policy, classifier stay float"."""
    left = [name for name in names if name not in quantized]
    left += [f"{layer} of {name}" for name, found in quantized.items() for layer in found.spec.float_layers]
    return f"{' and '.join(quantized)}; {', '.join(left)} stay float"
