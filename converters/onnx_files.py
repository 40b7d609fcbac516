"""Read an ONNX file that anybody made: corrupt files and external data outside its folder are refused first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx
import onnx.external_data_helper

from converters.errors import ConversionError

MAX_BYTES = (2 << 30) - (64 << 20)  # protobuf stops at 2 GiB, and the graph needs room beside its weights


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model with all its weights inside.

    Args:
        path: NAME.onnx; external data must lie in its folder or below.
    Raises:
        ConversionError: missing, corrupt, of an unknown operator, or external data that is missing or escapes.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except Exception as error:  # protobuf has its own error classes
        raise ConversionError(f"{path}: is corrupt or no ONNX file ({first_line(error)}); export it again") from error
    if not model.graph.node:
        raise ConversionError(f"{path}: is corrupt or no ONNX file (it holds no operators); export it again")
    _load_external(model, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ConversionError(f"{path}: is not valid ONNX: {first_line(error)}; export it again") from error
    return model


def first_line(error: BaseException) -> str:
    """What an engine's error says, without its further lines."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    folder, total = path.parent, 0
    external = [t for t in _tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        total += _check_external(tensor, path, folder)
    if total > MAX_BYTES:
        raise ConversionError(
            f"{path}: has {total >> 20} MiB of weights, at most {MAX_BYTES >> 20} MiB can be converted"
        )
    for tensor in external:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise ConversionError(
                f"{path}: external data of {tensor.name!r} cannot be read: {first_line(error)}; export it again"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_external(tensor: onnx.TensorProto, path: Path, folder: Path) -> int:
    """Size in bytes of a tensor's external data, once it is certain to lie inside the folder."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    parts = PurePosixPath(location).parts
    if not parts or PurePosixPath(location).is_absolute() or ".." in parts or "\\" in location or ":" in location:
        raise ConversionError(
            f"{path}: external data {location[:200]!r} of {tensor.name!r} is outside the model's folder; "
            "this file is not safe to use"
        )
    file = folder / location
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ConversionError(f"{path}: external data {location[:200]!r} is a link that leaves the model's folder")
    if not file.is_file():
        raise ConversionError(f"{path}: external data {location[:200]!r} is missing; copy it beside the model")
    size = os.path.getsize(file)
    try:
        offset = int(facts.get("offset", "0"))
        length = int(facts.get("length", str(size - offset)))
    except ValueError as error:
        raise ConversionError(
            f"{path}: external data of {tensor.name!r} has no valid place; export it again"
        ) from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ConversionError(
            f"{path}: external data {location[:200]!r} is too short for {tensor.name!r}; copy it again"
        )
    return length


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and of the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)
