"""Export a folded subnet to ONNX with dynamic height and width, and take its weights out of the file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import onnx.numpy_helper
import torch
from torch import nn

from converters.errors import ConversionError
from zoo.sizes import input_shape, size_text
from zoo.slim_net import Size

OPSET = 20
MAX_SIDE = 2048


def export_onnx(
    model: nn.Module,
    size: Size,
    input_name: str = "image",
    output_name: str = "logits",
    free_sides: bool = True,
) -> onnx.ModelProto:
    """One graph for every resolution.

    Args:
        model: a plain module in eval mode.
        size: of the example: side of a picture in pixels, or (frames, height, width) of a clip.
        free_sides: leave height and width open; False gives a graph for this size alone, sooner.
    Returns:
        the model with inputs (1, 3, height, width) or (1, 3, frames, height, width) float32; height and width are
        free.
    Raises:
        ConversionError: the exporter refuses the network.
    """
    example = torch.zeros(input_shape(size))
    names = {example.dim() - 2: "height", example.dim() - 1: "width"}
    sides = {axis: torch.export.Dim(name, min=8, max=MAX_SIDE) for axis, name in names.items()}
    try:
        with _quiet():
            program = torch.onnx.export(
                model, (example,), dynamo=True, optimize=True, opset_version=OPSET, verbose=False,
                input_names=[input_name], output_names=[output_name], dynamic_shapes=(sides,) if free_sides else None,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many kinds; the first line says which operator
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConversionError(
            f"{type(model).__name__} at {size_text(size)} cannot be exported to ONNX: {first}"
        ) from error
    if program is None:
        raise ConversionError(f"{type(model).__name__} at {size_text(size)}: the exporter returned nothing")
    proto = program.model_proto
    onnx.checker.check_model(proto)
    return proto


def externalise(proto: onnx.ModelProto, names: set[str]) -> bytes:
    """The graph with these initializers replaced by references that the runtime fills at load.

    The file that the references name never exists.
    """
    slim = onnx.ModelProto()
    slim.CopyFrom(proto)
    slim.doc_string = ""
    del slim.metadata_props[:]
    for node in slim.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for info in (*slim.graph.value_info, *slim.graph.initializer):
        info.doc_string = ""
        del info.metadata_props[:]
    offset = 0
    for tensor in slim.graph.initializer:
        if tensor.name not in names:
            continue
        size = onnx.numpy_helper.to_array(tensor).nbytes
        for field in ("raw_data", "float_data", "int32_data", "int64_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", "given-at-load.bin"), ("offset", str(offset)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        offset += size
    return slim.SerializeToString()


def initializer_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Floating-point initializers of a graph."""
    return {
        t.name: tuple(t.dims) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT
    }  # fmt: skip


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """The exporter reports its progress and absent packages on every channel; keep them off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
