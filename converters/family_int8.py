"""Int8 for a graph of anybody: ONNX Runtime's QDQ form, weights per output channel, ranges from real pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converters.activation_ranges import ActivationRange, best_range, collect_samples
from converters.errors import ConversionError
from converters.int8_graph import QuantSpec, without_advice
from converters.onnx_files import first_line
from converters.onnx_levels import constants

OPERATORS = ("Conv", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Gemm")
HEADS = ("Gemm", "MatMul")
BIAS_ROOM = 1.01  # a little less than int32 holds, so that rounding does not make the engine correct the scale again
Ranges = dict[str, ActivationRange]


@dataclass(frozen=True)
class Int8Level:
    """One quantized graph."""

    proto: onnx.ModelProto
    ranges: Ranges
    """Of the activations, by tensor."""


def quantize_level(
    level: onnx.ModelProto, ranges: Ranges, spec: QuantSpec, structure: onnx.ModelProto, family: Sequence[Ranges] = ()
) -> Int8Level:
    """Quantize by known ranges.

    Args:
        level: static float graph.
        ranges: of at least the activations that `structure` quantizes.
        structure: what `int8_structure` gave.
        family: ranges of the same net at all its sizes, so that they get equal integers.
    Raises:
        ConversionError: a range is missing.
    """
    wanted = activations(structure)
    missing = [name for name in wanted if name not in ranges]
    if missing:
        raise ConversionError(f"int8: no range is known for activation {missing[0]!r}; calibrate on pictures")
    used = {name: ranges[name] for name in wanted}
    overrides: dict[str, list[dict[str, Any]]] = {
        name: [{"scale": np.array(r.scale, np.float32), "zero_point": np.array(r.zero_point, np.uint8)}]
        for name, r in used.items()
    }
    for name, scales in shared_weight_scales(level, [ranges, *family], spec.largest).items():
        zero = np.array(0, np.int8)
        overrides[name] = [{"axis": 0, "scale": np.array(scale), "zero_point": zero} for scale in scales]
    return Int8Level(_quantize(level, spec, {"TensorQuantOverrides": overrides}), used)


def shared_weight_scales(
    level: onnx.ModelProto, family: Sequence[Ranges], largest: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Scales of weights that would not be the same at every size, by tensor, one for each output channel.

    A channel that is almost zero gets so small a scale that its bias, in units of weight scale times input scale,
    leaves int32. ONNX Runtime then raises the weight's scale, by an amount that depends on the input's, so that each
    size would have integers of its own. Raised here, for the smallest input scale of all sizes, they stay equal.
    """
    weights, found = constants(level), {}
    limit = float(np.iinfo(np.int32).max) / BIAS_ROOM
    for node in level.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or not {node.input[1], node.input[2]} <= set(weights):
            continue
        inputs = [r[node.input[0]].scale for r in family if node.input[0] in r]
        if not inputs:
            continue
        weight, bias = weights[node.input[1]], weights[node.input[2]]
        natural = np.abs(weight.reshape(weight.shape[0], -1)).max(1).astype(np.float64) / largest
        floor = np.abs(bias).astype(np.float64) / (limit * min(inputs))
        if np.any(natural < floor):
            scales = np.maximum(natural, floor)
            found[node.input[1]] = np.where(scales > 0, scales, 1.0).astype(np.float32)
    return found


def int8_structure(level: onnx.ModelProto, spec: QuantSpec) -> onnx.ModelProto:
    """The graph with made-up ranges: tells which activations need one.

    Raises:
        ConversionError: nothing in it can be quantized.
    """
    made = _quantize(level, spec, {})
    if not activations(made):
        raise ConversionError("int8: no operator of this network can be quantized; use --precision fp32")
    return made


def activations(quantized: onnx.ModelProto) -> list[str]:
    """Tensors that are quantized at run time, in the order of the graph."""
    known = {t.name for t in quantized.graph.initializer}
    names = (n.input[1].removesuffix("_scale") for n in quantized.graph.node if n.op_type == "QuantizeLinear")
    return [name for name in dict.fromkeys(names) if name not in known]


def calibrate(level: onnx.ModelProto, names: Sequence[str], inputs: Sequence[npt.NDArray[np.float32]]) -> Ranges:
    """Ranges of activations on real pictures, clipped where the error is least.

    Args:
        level: static float graph.
        names: what `activations` gave.
        inputs: (1, 3, H, W) float32 each.
    """
    samples = collect_samples(level, {}, names, inputs)
    return {name: best_range(values) for name, values in samples.items()}


def sensitive_layers(level: onnx.ModelProto, ranges: Ranges, count: int) -> tuple[str, ...]:
    """The convolutions (names of their nodes) that int8 is likely to hurt most.

    Ranked by the noise of rounding their weights, relative to the weights, plus the share of the range of their
    output that one step of 255 takes from the typical value: an estimate that needs no run.
    """
    weights = constants(level)
    ranked = []
    for node in level.graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None:
            continue
        flat = weight.reshape(weight.shape[0], -1).astype(np.float64)
        step = np.maximum(np.abs(flat).max(1, keepdims=True), 1e-12) / 127.0
        noise = float(np.mean((np.rint(flat / step) * step - flat) ** 2) / max(1e-24, float(np.mean(flat**2))))
        entry = ranges.get(node.input[0])
        spread = 0.0 if entry is None else entry.scale * entry.scale
        ranked.append((noise * (1.0 + spread), node.name))
    return tuple(name for _, name in sorted(ranked, reverse=True)[:count])


def _quantize(level: onnx.ModelProto, spec: QuantSpec, extra: dict[str, Any]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = list(level.graph.node)
    heads = [n.name for n in nodes if n.op_type in HEADS][-1:]
    with tempfile.TemporaryDirectory() as folder, without_advice():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(level, source)
        try:
            quantize_static(
                source, target, _noise_reader(level), quant_format=QuantFormat.QDQ, per_channel=True,
                reduce_range=spec.reduce_range, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                op_types_to_quantize=list(OPERATORS), nodes_to_exclude=[*heads, *spec.float_layers],
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True, **extra},
            )  # fmt: skip
            return onnx.load(target)
        except Exception as error:  # onnxruntime's quantizer raises many kinds
            raise ConversionError(f"int8: ONNX Runtime cannot quantize this graph: {first_line(error)}") from error


def _noise_reader(level: onnx.ModelProto) -> Any:
    """Two made-up pictures: the quantizer insists on calibrating, and its ranges are replaced."""
    from onnxruntime.quantization import CalibrationDataReader

    entry = level.graph.input[0]
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]

    class Noise(CalibrationDataReader):
        def __init__(self) -> None:
            draw = np.random.default_rng(0)
            self.left = [draw.standard_normal(shape).astype(np.float32) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {entry.name: self.left.pop()} if self.left else None

    return Noise()


def unnamed_nodes_named(level: onnx.ModelProto) -> onnx.ModelProto:
    """Every node with a name of its own: the quantizer leaves nodes out by name."""
    used: set[str] = set()
    for index, node in enumerate(level.graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type.lower()}_{index}"
        used.add(node.name)
    return level


def ranges_from_rows(rows: Iterable[tuple[str, float, int]]) -> Ranges:
    """Ranges as a file holds them: name, scale, zero point."""
    return {name: ActivationRange(float(scale), int(zero_point)) for name, scale, zero_point in rows}
