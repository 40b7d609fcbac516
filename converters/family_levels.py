"""Each net of a family at each of its input sizes: a graph that was checked against the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from converters.errors import ConversionError
from converters.family_int8 import unnamed_nodes_named
from converters.family_net import FamilyNet, flatten_output, original_input
from converters.onnx_files import first_line
from converters.onnx_levels import constants, graph_madds, output_shape, specialise
from edge_runtime.backends.ort_options import open_session
from edge_runtime.preprocess import TensorSpec, preprocess

MAX_PARITY_ERROR = 1e-3  # of the largest score; folding constants changes the order of sums, which stays near 1e-5
PARITY_PICTURES = 4
Size = tuple[int, int]


def point_name(net: str, size_hw: Size, precision: str) -> str:
    """ "lite0-r224-int8"; "lite0-r224x320-int8" where the picture is no square."""
    side = f"r{size_hw[0]}" if size_hw[0] == size_hw[1] else f"r{size_hw[0]}x{size_hw[1]}"
    return f"{net}-{side}-{precision}"


@dataclass(frozen=True)
class Level:
    """One net at one size."""

    net: FamilyNet
    size_hw: Size
    graph: onnx.ModelProto
    madds: int
    width: float
    """The net's share of the largest net's weights: what tells nets apart where subnets have a width."""

    def point(self, precision: str) -> str:
        return point_name(self.net.name, self.size_hw, precision)


def make_levels(
    nets: Sequence[FamilyNet], sizes: Mapping[str, Sequence[Size]], labels: int, spec: TensorSpec,
    report: Callable[[str], None],
) -> list[Level]:  # fmt: skip
    """A checked graph for each net and size, net by net, small sizes first.

    Args:
        labels: how many there are.
        spec: preprocessing, for the pictures of the check.
    Raises:
        ConversionError: an operator is unknown, the labels do not fit, or the graph differs from the original.
    """
    weights = {net.name: sum(a.size for a in constants(net.proto).values()) for net in nets}
    levels = []
    for net in nets:
        _check_labels(net, sizes[net.name][0], labels)
        for size_hw in sorted(sizes[net.name]):
            graph = unnamed_nodes_named(specialise(net.proto, size_hw, net.name))
            _require_parity(net, graph, size_hw, spec)
            width = round(max(1e-3, weights[net.name] / max(1, *weights.values())), 3)
            levels.append(Level(net, size_hw, graph, graph_madds(graph), width))
            report(f"{net.name} at {size_hw[0]}x{size_hw[1]}: {levels[-1].madds / 1e6:.0f} M multiply-adds")
    return levels


def _check_labels(net: FamilyNet, size_hw: Size, labels: int) -> None:
    """As many scores as labels; (1, classes, 1, 1) is made flat."""
    shape = output_shape(net.proto, size_hw, net.name)
    count = int(np.prod(shape[1:]))
    if not shape or shape[0] != 1 or count != max(shape[1:], default=0):
        raise ConversionError(f"{net.name}: its output is {shape}, expected one score for each class: (1, classes)")
    if count != labels:
        hint = "; the model may have a background class: add a label for it" if count == labels + 1 else ""
        raise ConversionError(f"{net.name}: has {count} outputs, but there are {labels} labels{hint}")
    if len(shape) != 2:
        flatten_output(net)


def _require_parity(net: FamilyNet, graph: onnx.ModelProto, size_hw: Size, spec: TensorSpec) -> None:
    """The graph says what the original says, on made-up pictures."""
    draw = np.random.default_rng(1)
    ours, theirs = _session(graph, net.name), _session(net.original, net.name)
    given = theirs.get_inputs()[0].name
    index = [o.name for o in theirs.get_outputs()].index(net.output)
    for _ in range(PARITY_PICTURES):
        image = preprocess(draw.integers(0, 256, (*size_hw, 3), np.uint8), spec, size_hw)
        found = ours.run(None, {"image": image})[0].reshape(-1).astype(np.float64)
        try:
            wanted = theirs.run(None, {given: original_input(net, image)})[index].reshape(-1).astype(np.float64)
        except Exception as error:  # onnxruntime raises its own kinds
            raise ConversionError(f"{net.name}: the original cannot run: {first_line(error)}") from error
        if net.softmax_removed:
            found = np.exp(found - found.max())
            found /= found.sum()
        difference = float(np.abs(found - wanted).max() / max(1e-6, float(np.abs(wanted).max())))
        if not difference <= MAX_PARITY_ERROR:
            raise ConversionError(
                f"{net.name} at {size_hw[0]}x{size_hw[1]}: differs from the original by {difference:.1e} of the "
                f"largest score, expected at most {MAX_PARITY_ERROR:.0e}; the bundle is not written"
            )


def _session(model: onnx.ModelProto, name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return open_session(onnxruntime, model.SerializeToString(), options)
    except Exception as error:  # onnxruntime raises its own kinds
        raise ConversionError(f"{name}: ONNX Runtime cannot run it: {first_line(error)}") from error
