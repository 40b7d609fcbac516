"""int8 for ExecuTorch: the integers, scales and ranges of the ONNX graph, put into the exported network.

Both engines compute with one set of numbers. The width's int8 graph says which tensors are quantized, and the point's
tensors (the very ones that a device makes for ONNX Runtime) say how; here quantize and dequantize nodes are put at the
same places of the exported network, where XNNPACK takes them. PyTorch's own quantizer would find ranges of its own,
give each point other integers, put a further rounding between a convolution and its ReLU6, and round the mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from converters.errors import ConversionError

CONVOLUTION = {torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding}
ADDITION = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor}
RECTIFIER = {
    torch.ops.aten.relu.default, torch.ops.aten.relu_.default, torch.ops.aten.hardtanh.default,
    torch.ops.aten.hardtanh_.default, torch.ops.aten.clamp.default, torch.ops.aten.clamp_.default,
    torch.ops.aten.relu6.default, torch.ops.aten.relu6_.default,
}  # fmt: skip
PADDING = {torch.ops.aten.pad.default, torch.ops.aten.constant_pad_nd.default}
LEVELS = (-128, 127, torch.int8)
UINT8_TO_INT8 = 128


def quantize_point(exported: Any, graph: onnx.ModelProto, tensors: Mapping[str, np.ndarray]) -> Any:
    """Quantize one point.

    Args:
        exported: torch.export.ExportedProgram of the folded subnet; it is not changed.
        graph: the width's int8 graph (QDQ) for ONNX Runtime.
        tensors: the point's: "<weight>_quantized", "<weight>_scale", "<tensor>_scale", "<tensor>_zero_point" ....
    Returns:
        a module with quantize and dequantize nodes that computes what XNNPACK will.
    Raises:
        ConversionError: a tensor that the ONNX graph quantizes is not in the exported network.
    """
    _register_operators()
    module = exported.module()
    wanted = quantized_activations(graph)
    nodes = _nodes_by_key(module.graph)
    absent = sorted(name for key, name in wanted.items() if key not in nodes)
    if absent:
        raise ConversionError(
            f"int8 for ExecuTorch: the exported network has nothing that is the ONNX graph's {', '.join(absent[:5])}; "
            "build this network with --backend onnxruntime, or with --precision fp32"
        )
    for node in list(module.graph.nodes):
        if node.target in CONVOLUTION:
            _quantize_weight(module, node, tensors)
    for key, name in wanted.items():
        scale, zero_point = float(tensors[f"{name}_scale"]), int(tensors[f"{name}_zero_point"]) - UINT8_TO_INT8
        _quantize_activation(module.graph, nodes[key], scale, zero_point)
    module.graph.lint()
    module.recompile()
    return module


def quantized_activations(graph: onnx.ModelProto) -> dict[str, str]:
    """What is quantized at run time: key -> tensor of the float graph.

    A key says how a tensor is computed, in words that do not depend on the exporter: "input", "conv stem.1",
    "add (conv a) (conv b)". A rectifier has the key of what it rectifies, since engines fuse the two. What other
    operators compute (pooling, slices, gates) is "?" in a sum, and by itself has the key of its first reader:
    "into conv a", or "beside (conv b)" in a sum.
    """
    constants = {t.name for t in graph.graph.initializer}
    keys: dict[str, str] = {graph.graph.input[0].name: "input"}
    read_by: dict[str, str] = {}
    packed: dict[str, tuple[str, str]] = {}
    for node in graph.graph.node:
        inputs = [keys.get(name) for name in node.input]
        key = None
        if node.op_type == "Conv":
            key = f"conv {_weight_name(node.input[1])}"
            read_by.setdefault(node.input[0], f"into {key}")
        elif node.op_type == "Add" and any(inputs):
            key = _addition(inputs)
            if None in inputs and _beside(inputs) in read_by.values():
                key = None  # a second sum of this tensor with something unknown: not told apart, so not found
            elif None in inputs:
                read_by.setdefault(node.input[inputs.index(None)], _beside(inputs))
        elif node.op_type in ("Relu", "Clip", "QuantizeLinear", "DequantizeLinear"):
            key = inputs[0]
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            packed[node.output[0]] = (node.input[0], node.input[1].removesuffix("_scale"))
        if key is not None:
            keys[node.output[0]] = key
    unpacked = {n.input[0]: n.output[0] for n in graph.graph.node if n.op_type == "DequantizeLinear"}
    return {
        keys.get(source) or read_by.get(unpacked.get(name, ""), f"? {source}"): tensor
        for name, (source, tensor) in packed.items()
    }


def _weight_name(tensor: str) -> str:
    return tensor.removesuffix("_DequantizeLinear_Output").removesuffix(".weight")


def _addition(keys: Sequence[str | None]) -> str:
    return "add ({}) ({})".format(*sorted(key or "?" for key in keys))


def _beside(keys: Sequence[str | None]) -> str:
    return "beside ({})".format(*(key for key in keys if key))


def _nodes_by_key(graph: Any) -> dict[str, Any]:
    """Key -> the last node that has it: of a convolution and its rectifier, the rectifier."""
    keys: dict[Any, str] = {}
    readers: dict[str, Any] = {}
    for node in graph.nodes:
        sources = [keys.get(source) for source in node.all_input_nodes]
        if node.op == "placeholder":
            keys[node] = "input"
        elif node.target in CONVOLUTION:
            keys[node] = f"conv {_parameter(node.args[1]).removesuffix('.weight')}"
            read = node.args[0]
            readers[f"into {keys[node]}"] = read.args[0] if read.target in PADDING else read
        elif node.target in ADDITION and len(sources) == 2 and any(sources):
            keys[node] = _addition(sources)
            if None in sources:
                readers.setdefault(_beside(sources), node.all_input_nodes[sources.index(None)])
        elif node.target in RECTIFIER and sources[0]:
            keys[node] = sources[0]
    return {**readers, **{key: node for node, key in keys.items()}}


def _parameter(node: Any) -> str:
    return str(node.target) if node.op == "get_attr" else "?"


def _quantize_weight(module: Any, node: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """The stored integers in place of a convolution's weight, its bias as whole steps; float layers have none."""
    name = _parameter(node.args[1])
    if f"{name}_quantized" not in tensors:
        return
    integers, scale = tensors[f"{name}_quantized"], tensors[f"{name}_scale"]
    prefix = "int8_" + name.replace(".", "_")
    arrays = {"integers": integers, "scale": scale, "zero_point": np.zeros(len(scale), np.int64)}
    with module.graph.inserting_before(node):
        parts = []
        for kind, array in arrays.items():
            module.register_buffer(f"{prefix}_{kind}", torch.from_numpy(np.array(array)))
            parts.append(module.graph.get_attr(f"{prefix}_{kind}"))
        largest = LEVELS[1]
        weight = module.graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default, (*parts, 0, -largest, largest, torch.int8)
        )
        bias = _rounded_bias(module, node, tensors, prefix)
    node.args = (node.args[0], weight, *((bias,) if bias is not None else node.args[2:3]), *node.args[3:])


def _rounded_bias(module: Any, node: Any, tensors: Mapping[str, np.ndarray], prefix: str) -> Any:
    """The bias as float, but whole steps of its int32 scale; None where the ONNX graph has none."""
    if len(node.args) < 3 or node.args[2] is None:
        return None
    name = _parameter(node.args[2])
    if f"{name}_quantized" not in tensors:
        return None
    value = tensors[f"{name}_quantized"].astype(np.float64) * tensors[f"{name}_quantized_scale"].astype(np.float64)
    module.register_buffer(f"{prefix}_bias", torch.from_numpy(value.astype(np.float32)))
    return module.graph.get_attr(f"{prefix}_bias")


def _quantize_activation(graph: Any, node: Any, scale: float, zero_point: int) -> None:
    """All that read this tensor read its rounded values. Padding with zeros rounds nothing, but XNNPACK must see it."""
    facts = (scale, zero_point, *LEVELS)
    for user in [u for u in node.users if u.target in PADDING]:
        _quantize_activation(graph, user, scale, zero_point)
    operators = torch.ops.quantized_decomposed
    readers = list(node.users)
    with graph.inserting_after(node):
        packed = graph.call_function(operators.quantize_per_tensor.default, (node, *facts))
    for reader in readers:  # one each: XNNPACK's partitioner takes an operator together with its own dequantize nodes
        with graph.inserting_before(reader):
            back = graph.call_function(operators.dequantize_per_tensor.default, (packed, *facts))
        reader.replace_input_with(node, back)


def _register_operators() -> None:
    """The operators of torch.ops.quantized_decomposed exist once this module has been imported."""
    with contextlib.suppress(ImportError):
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401
    import torch.ao.quantization.fx._decomposed  # noqa: F401
