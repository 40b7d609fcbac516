"""One graph for one input size: sizes fixed, constants folded, padding made explicit, multiply-adds counted.

ONNX Runtime's basic optimisation does the folding: shape arithmetic and padding that depend on the input size become
constants and go into the convolutions, so that the device finds nothing left to compute.
"""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import ConversionError
from converters.onnx_files import first_line
from edge_runtime.backends.ort_options import open_session

STANDARD_DOMAINS = ("", "ai.onnx")


def specialise(proto: onnx.ModelProto, size_hw: tuple[int, int], name: str) -> onnx.ModelProto:
    """The graph for pictures of one size.

    Args:
        proto: input "image" (1, 3, height, width).
        size_hw: rows and columns.
        name: of the model, for errors.
    Returns:
        a model of the same weights with static shapes.
    Raises:
        ConversionError: the engine has no implementation of an operator, or the model cannot take this size.
    """
    import onnxruntime

    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, *size_hw), strict=True):
        dim.Clear()
        dim.dim_value = value
    del fixed.graph.value_info[:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "level.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = open_session(onnxruntime, fixed.SerializeToString(), options, wide_sums=False)
            session.run(None, {"image": np.zeros((1, 3, *size_hw), np.float32)})
            made = onnx.load(path)
        except Exception as error:  # onnxruntime raises its own kinds, all plain
            raise ConversionError(_refusal(proto, name, size_hw, error)) from error
    _keep_used_domains(made)
    _explicit_padding(made)
    return made


def output_shape(proto: onnx.ModelProto, size_hw: tuple[int, int], name: str) -> tuple[int, ...]:
    """Shape of the logits for one picture of this size."""
    import onnxruntime

    level = specialise(proto, size_hw, name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = open_session(onnxruntime, level.SerializeToString(), options)
    return tuple(session.run(None, {"image": np.zeros((1, 3, *size_hw), np.float32)})[0].shape)


def graph_madds(level: onnx.ModelProto) -> int:
    """Multiply-adds of convolutions and matrix products of a graph with static shapes; at least 1."""
    shapes = _shapes(level)
    total = 0
    for node in level.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        inputs = [shapes.get(n) for n in node.input]
        out = shapes.get(node.output[0])
        if out is None or None in inputs[:2]:
            continue
        left, right = inputs[0], inputs[1]
        assert left is not None
        assert right is not None
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(right[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(left) * math.prod(right[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(out) * left[0 if transposed else -1]
    return max(1, total)


def _refusal(proto: onnx.ModelProto, name: str, size_hw: tuple[int, int], error: Exception) -> str:
    import onnxruntime

    text = first_line(error)
    unknown = re.search(r"(\w+)\(?[-\d]*\)? is not a registered function/op|implementation for (\w+)", text)
    if unknown:
        operator = unknown[1] or unknown[2]
        domain = next((n.domain for n in proto.graph.node if n.op_type == operator), "")
        where = f" of {domain}" if domain not in STANDARD_DOMAINS else ""
        return (
            f"{name}: operator {operator}{where} is unknown to ONNX Runtime {onnxruntime.__version__}; "
            "export the model with standard operators"
        )
    return f"{name}: ONNX Runtime {onnxruntime.__version__} cannot run it on {size_hw[0]}x{size_hw[1]} pixels: {text}"


def _keep_used_domains(model: onnx.ModelProto) -> None:
    """The engine writes every domain that it knows."""
    used = {n.domain for n in model.graph.node} | {""}
    kept = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import if o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _explicit_padding(level: onnx.ModelProto) -> None:
    """SAME_UPPER and SAME_LOWER of convolutions as numbers: some engines' fast paths take only those."""
    shapes = _shapes(level)
    for node in level.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        mode = attributes.get("auto_pad", b"NOTSET").decode()
        inner, weight = shapes.get(node.input[0]), shapes.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type != "Conv" or not mode.startswith("SAME") or inner is None or weight is None:
            continue
        axes = len(weight) - 2
        strides = attributes.get("strides", [1] * axes)
        dilations = attributes.get("dilations", [1] * axes)
        before, after = [], []
        for size, kernel, stride, dilation in zip(inner[2:], weight[2:], strides, dilations, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", before + after)])


def _shapes(level: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Known static shapes by tensor name."""
    inferred = onnx.shape_inference.infer_shapes(level)
    shapes = {t.name: tuple(t.dims) for t in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def constants(level: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in level.graph.initializer}
