"""Bring anybody's classifier into the form that bundles use: one RGB picture (1, 3, height, width) in, logits out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.errors import ConversionError
from converters.onnx_files import read_onnx

LAYOUTS, CHANNEL_ORDERS = ("auto", "nchw", "nhwc"), ("rgb", "bgr")
INPUT, OUTPUT = "image", "logits"
NUMBERS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)


@dataclass(frozen=True)
class FamilyNet:
    """One model of a family."""

    name: str
    original: onnx.ModelProto
    """As it was read; for comparison."""
    proto: onnx.ModelProto
    """Input "image" (1, 3, height, width) float32 RGB, output "logits"."""
    layout: str
    channels: str
    size_hw: tuple[int | None, int | None]
    """None where the model takes any."""
    softmax_removed: bool
    output: str
    """Name of the output in the original."""

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The one input size, if the model has only one."""
        height, width = self.size_hw
        return None if height is None or width is None else (height, width)


def read_net(path: Path, layout: str = "auto", channels: str = "rgb", output: str | None = None) -> FamilyNet:
    """Read a model from NAME.onnx and rewrite its ends; the stem of the file becomes its name.

    Raises:
        ConversionError: the file is unusable, or the model is no classifier of one colour picture.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", path.stem) is None:
        raise ConversionError(
            f"{path}: points are named after the file: use letters, digits, . _ - and at most 61 of them"
        )
    return make_net(read_onnx(path), path, layout, channels, output)


def make_net(
    original: onnx.ModelProto, path: Path, layout: str = "auto", channels: str = "rgb", output: str | None = None
) -> FamilyNet:
    """Rewrite the ends of a model.

    Args:
        original: with its weights inside; it is not changed.
        path: where it comes from; the stem becomes the name.
        layout: "nchw", "nhwc", or "auto": where the three channels are.
        channels: the order that the model was trained with, "rgb" or "bgr".
        output: which one to use when the model has several.
    Raises:
        ConversionError: the model is no classifier of one colour picture.
    """
    model = onnx.ModelProto()
    model.CopyFrom(original)
    model.ir_version = max(model.ir_version, 8)  # below 4, constants would have to be inputs, too
    graph = model.graph
    given = _only_input(graph, path)
    dims = [d.dim_value or None for d in given.type.tensor_type.shape.dim]
    layout = _layout(dims, layout, path)
    if dims[0] not in (None, 1):
        raise ConversionError(f"{path}: takes {dims[0]} pictures at a time; export it for one, or for any number")
    size = (dims[2], dims[3]) if layout == "nchw" else (dims[1], dims[2])
    _replace_input(graph, given, layout, channels, size)
    output = _wanted_output(graph, output, path)
    soft = _replace_output(graph, output, path)
    del graph.value_info[:]
    return FamilyNet(path.stem, original, model, layout, channels, size, soft, output)


def original_input(net: FamilyNet, image: np.ndarray) -> np.ndarray:
    """What the original model would be given for a normalised RGB picture (1, 3, H, W)."""
    swapped = image[:, ::-1] if net.channels == "bgr" else image
    laid_out = swapped.transpose(0, 2, 3, 1) if net.layout == "nhwc" else swapped
    kind = _only_input(net.original.graph, Path(net.name)).type.tensor_type.elem_type
    return np.ascontiguousarray(laid_out, dtype=helper.tensor_dtype_to_np_dtype(kind))


def flatten_output(net: FamilyNet) -> None:
    """Make (1, classes, 1, 1) into (1, classes)."""
    inner = _free(net.proto.graph, OUTPUT + "_4d")
    _rename(net.proto.graph, OUTPUT, inner)
    net.proto.graph.node.append(helper.make_node("Flatten", [inner], [OUTPUT], axis=1))
    del net.proto.graph.output[:]
    net.proto.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None))


def _only_input(graph: onnx.GraphProto, path: Path) -> onnx.ValueInfoProto:
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise ConversionError(f"{path}: has {len(inputs)} inputs, expected one picture")
    tensor = inputs[0].type.tensor_type
    if len(tensor.shape.dim) != 4:
        raise ConversionError(
            f"{path}: input {inputs[0].name!r} has {len(tensor.shape.dim)} axes, expected 4: "
            "picture, channels, height and width"
        )
    if tensor.elem_type not in NUMBERS:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise ConversionError(f"{path}: input {inputs[0].name!r} is {kind}, expected FLOAT, FLOAT16 or UINT8")
    return inputs[0]


def _layout(dims: list[int | None], wanted: str, path: Path) -> str:
    fits = {"nchw": dims[1] in (3, None), "nhwc": dims[3] in (3, None)}
    if wanted == "auto":
        found = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if dims[axis] == 3]
        if len(found) == 1:
            return found[0]
        if any(fits.values()):
            raise ConversionError(f"{path}: input {dims} does not tell where the colours are; give --layout")
    elif fits[wanted]:
        return wanted
    shown = [d or "any" for d in dims]
    raise ConversionError(f"{path}: input {shown} is no {wanted} picture of 3 colours; check --layout")


def _replace_input(
    graph: onnx.GraphProto, given: onnx.ValueInfoProto, layout: str, channels: str, size: tuple[int | None, int | None]
) -> None:
    """A new input (1, 3, height, width) float32 RGB, and what leads from it to the old one."""
    inner = _free(graph, INPUT + "_inner")
    kind = given.type.tensor_type.elem_type
    _rename(graph, given.name, inner)
    _rename(graph, INPUT, _free(graph, INPUT + "_other"))
    nodes, last = [], INPUT

    def step(operator: str, *more: str, **attributes: object) -> None:
        nonlocal last
        made = _free(graph, f"{INPUT}_{operator.lower()}")
        nodes.append(helper.make_node(operator, [last, *more], [made], **attributes))
        last = made

    if channels == "bgr" and not (layout == "nchw" and _swap_first_weights(graph, inner)):
        order = _free(graph, "bgr_order")
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), order))
        step("Gather", order, axis=1)
    if layout == "nhwc":
        step("Transpose", perm=[0, 2, 3, 1])
    if kind != TensorProto.FLOAT:
        step("Cast", to=kind)
    _rename(graph, inner, last)
    dims = [1, 3, size[0] or "height", size[1] or "width"]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, dims))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + rest)


def _swap_first_weights(graph: onnx.GraphProto, inner: str) -> bool:
    """Turn the colours of the first convolution's weights around; False where it is no plain convolution."""
    readers = [n for n in graph.node if inner in n.input]
    weights = {t.name: t for t in graph.initializer}
    for node in readers:
        names = [n for n in graph.node if node.op_type == "Conv" and node.input[1] in n.input]
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or len(names) != 1 or len(weight.dims) != 4 or weight.dims[1] != 3:
            return False
    for node in readers:
        weight = weights[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, ::-1].copy(), weight.name))
    return bool(readers)


def _wanted_output(graph: onnx.GraphProto, wanted: str | None, path: Path) -> str:
    names = [o.name for o in graph.output]
    if wanted is None and len(names) != 1:
        raise ConversionError(f"{path}: has the outputs {', '.join(names)}; say which one with --output")
    if wanted is not None and wanted not in names:
        raise ConversionError(f"{path}: has no output {wanted!r}; it has {', '.join(names)}")
    return names[0] if wanted is None else wanted


def _replace_output(graph: onnx.GraphProto, name: str, path: Path) -> bool:
    """Leave one output, named "logits"; a softmax at the end is taken off, since the runtime has its own."""
    made_by = {out: node for node in graph.node for out in node.output}
    kind = next(o for o in graph.output if o.name == name).type.tensor_type.elem_type
    last, soft = name, False
    while last in made_by and made_by[last].op_type in ("Softmax", "Identity"):
        soft |= made_by[last].op_type == "Softmax"
        last = made_by[last].input[0]
    if last not in made_by:
        raise ConversionError(f"{path}: output {name!r} is not computed from the picture")
    del graph.output[:]
    _drop_unused(graph, last)
    inner = _free(graph, OUTPUT + "_inner")
    _rename(graph, last, inner)
    _rename(graph, OUTPUT, _free(graph, OUTPUT + "_other"))
    if kind in (TensorProto.FLOAT, TensorProto.UNDEFINED):
        _rename(graph, inner, OUTPUT)
    else:
        graph.node.append(helper.make_node("Cast", [inner], [OUTPUT], to=TensorProto.FLOAT))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None))
    return soft


def _drop_unused(graph: onnx.GraphProto, wanted: str) -> None:
    """Remove nodes that the wanted tensor does not need."""
    needed, kept = {wanted}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | {n for a in node.attribute if a.HasField("g") for n in _outer_names(a.g)}
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _outer_names(graph: onnx.GraphProto) -> set[str]:
    found = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _outer_names(attribute.g)
    return found


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name, also where inner graphs use it."""
    if old == new:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, old, new)
    for value in (*graph.output, *graph.initializer):
        if value.name == old:
            value.name = new


def _free(graph: onnx.GraphProto, wanted: str) -> str:
    """A tensor name that the graph does not use."""
    used = _outer_names(graph) | {out for node in graph.node for out in node.output}
    used |= {t.name for t in graph.initializer} | {i.name for i in graph.input}
    name, number = wanted, 2
    while name in used:
        name, number = f"{wanted}_{number}", number + 1
    return name
