"""Int8 graphs (QDQ, weights per output channel) whose integers are shared among all widths and resolutions.

The integers belong to the full network's weight before normalisation is folded: q = sign * round(W / s), one s for each
output channel. A narrower subnet takes a prefix of them; a point's normalisation goes into the scale alone. The sign of
a normalisation's gamma, which all points share, is put into the integers, since a scale must be positive.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from converters.errors import ConversionError
from edge_runtime.tensor_recipe import BiasRecipe, GraphTensors, ScaleRecipe, TensorRecipe

INT8, INT8_SCALE = "/int8", "/int8_scale"


@dataclass(frozen=True)
class QuantSpec:
    """How int8 is done; one for both engines."""

    reduce_range: bool = False
    """Weights within +-63: for x86 without VNNI, whose 16-bit sums of uint8 x int8 products saturate."""
    calib_pictures: int = 200
    max_drop: float = 0.01
    """Largest loss of accuracy on select against fp32; a point that loses more stays float."""
    float_layers: tuple[str, ...] = ()
    """Convolutions that stay float, by module name; besides them the classifier always does."""
    max_float_layers: int = 4
    """How many of the most sensitive layers may become float before a width gives up int8."""

    @property
    def largest(self) -> int:
        """Largest magnitude of an integer weight."""
        return 63 if self.reduce_range else 127


@dataclass(frozen=True)
class Int8Graph:
    """The quantized graph of one width."""

    proto: onnx.ModelProto
    activations: tuple[str, ...]
    """Tensors of the float graph whose ranges the point's table holds, in its order."""
    recipe: GraphTensors


def quantize_weight(
    weight: npt.NDArray[np.float32], gamma: npt.NDArray[np.float32] | None, largest: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers and scales of a full weight.

    Args:
        weight: (outputs, ...) float32, not folded.
        gamma: (outputs,) of the norm that follows; its sign goes into the integers. None: no norm.
        largest: 127 or 63.
    Returns:
        integers shaped like the weight, and scales (outputs,).
    """
    flat = weight.reshape(weight.shape[0], -1)
    scale = np.maximum(np.abs(flat).max(1) / largest, 1e-12).astype(np.float32)
    integers = np.rint(flat / scale[:, None])
    if gamma is not None:
        integers *= np.where(gamma < 0, -1.0, 1.0)[:, None]
    return np.clip(integers, -largest, largest).astype(np.int8).reshape(weight.shape), scale


def make_int8_graph(template: onnx.ModelProto, float_recipe: GraphTensors, spec: QuantSpec) -> Int8Graph:
    """Quantize the structure of a width's float graph.

    Args:
        template: the float graph with made-up weights inside.
        float_recipe: how the float graph's tensors are made.
        spec: which layers stay float.
    Returns:
        graph and recipe; stored tensors are named "<weight>/int8" and "<weight>/int8_scale".
    """
    proto = _insert_qdq(template, spec, {t.name for t in float_recipe.tensors})
    convolutions = [
        n for n in proto.graph.node if n.op_type == "Conv" and n.input[1].endswith("_DequantizeLinear_Output")
    ]
    dequantized = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    integers = {t.name for t in proto.graph.initializer}
    activations = _activations(proto, integers)
    made = {t.name: t for t in float_recipe.tensors}
    tensors: list[TensorRecipe] = []
    for index, name in enumerate(activations):
        tensors.append(TensorRecipe(f"{name}_scale", (), vector="activation_scale", vector_at=index))
        tensors.append(TensorRecipe(f"{name}_zero_point", (), vector="activation_zero_point", vector_at=index))
    scales, biases, done = [], [], set()
    for node in convolutions:
        weight = dequantized[node.input[1]].input[0].removesuffix("_quantized")
        source = made[weight]
        done.add(weight)
        input_at = activations.index(dequantized[node.input[0]].input[1].removesuffix("_scale"))
        stored = str(source.source)
        tensors.append(TensorRecipe(f"{weight}_quantized", source.shape, stored + INT8))
        scales.append(ScaleRecipe(f"{weight}_scale", stored + INT8_SCALE, source.shape[0], source.scale_at))
        if len(node.input) > 2:
            bias = dequantized[node.input[2]].input[0].removesuffix("_quantized")
            done.add(bias)
            scale = f"{bias}_quantized_scale"
            scales.append(ScaleRecipe(scale, stored + INT8_SCALE, source.shape[0], source.scale_at, input_at))
            biases.append(BiasRecipe(replace(made[bias], name=f"{bias}_quantized"), scale))
    tensors += [t for name, t in made.items() if name not in done]
    recipe = replace(float_recipe, tensors=tuple(tensors), scales=tuple(scales), biases=tuple(biases))
    return Int8Graph(proto, tuple(activations), recipe)


def external_names(recipe: GraphTensors) -> set[str]:
    """All initializers that the device makes."""
    return {t.name for t in recipe.tensors} | {s.name for s in recipe.scales} | {b.value.name for b in recipe.biases}


def stored_int8(
    store: Mapping[str, np.ndarray], recipe: GraphTensors, gammas: Mapping[str, np.ndarray], spec: QuantSpec
) -> dict[str, np.ndarray]:
    """The integers and scales that a recipe needs.

    Args:
        store: float tensors by name.
        gammas: weight name -> gamma of the norm behind it.
    """
    arrays: dict[str, np.ndarray] = {}
    for scale in recipe.scales:
        name = scale.source.removesuffix(INT8_SCALE)
        if name + INT8 not in arrays:
            arrays[name + INT8], arrays[name + INT8_SCALE] = quantize_weight(
                store[name], gammas.get(name), spec.largest
            )
    return arrays


def _insert_qdq(template: onnx.ModelProto, spec: QuantSpec, made: set[str]) -> onnx.ModelProto:
    """Let onnxruntime place the quantize and dequantize nodes; its numbers are replaced by the point's.

    A convolution whose weight the device does not make (a kernel predicted from the picture) stays float, and so does a
    sum with a stored tensor (the bias of a matrix product, a position code), which would become a made-up integer, and
    one of two tensors that no integer operator made.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    sides = [d.dim_value or 32 for d in template.graph.input[0].type.tensor_type.shape.dim[2:]]

    class MadeUp(CalibrationDataReader):
        """Two made-up pictures: only the structure of the result is used."""

        def __init__(self, strength: float) -> None:
            draw = np.random.default_rng(0)
            self.left = [(strength * draw.standard_normal((1, 3, *sides))).astype(np.float32) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {template.graph.input[0].name: self.left.pop()} if self.left else None

    excluded = _float_nodes(template, spec.float_layers, made)
    # a detector's made-up boxes have infinite sides
    with tempfile.TemporaryDirectory() as folder, without_advice(), np.errstate(invalid="ignore", over="ignore"):
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(template, source)

        def quantize(strength: float) -> onnx.ModelProto:
            quantize_static(
                source, target, MadeUp(strength), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=excluded,
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            )  # fmt: skip
            return onnx.load(target)

        return _first_that_works(quantize)


def _first_that_works(quantize: Callable[[float], onnx.ModelProto]) -> onnx.ModelProto:
    """Made-up weights that multiply one another (dynamic kernels) overflow on noise; then black pictures must do.

    Args:
        quantize: strength of the noise -> the quantized structure.
    """
    try:
        return quantize(1.0)
    except AssertionError:  # a range that is no number
        pass
    try:
        return quantize(0.0)
    except AssertionError as error:
        raise ConversionError(f"int8: onnxruntime's quantizer refuses this network: {error}") from error


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """The quantizer advises a clean-up of the graph that the exporter has already done, in a warning to everybody."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _float_nodes(template: onnx.ModelProto, layers: tuple[str, ...], made: set[str]) -> list[str]:
    """Names of the nodes that stay float."""
    stored = {t.name for t in template.graph.initializer}
    integers: set[str] = set()
    left = []
    for node in template.graph.node:
        if node.op_type == "Conv":
            fits = node.input[1].removesuffix(".weight") not in layers and made.issuperset(node.input[1:])
        elif node.op_type == "Add":
            fits = stored.isdisjoint(node.input) and not integers.isdisjoint(node.input)
        else:
            fits = node.op_type in ("Relu", "Clip")
        if not fits:
            left.append(node.name)
        elif node.op_type in ("Conv", "Add") or node.input[0] in integers:
            integers.add(node.output[0])
    return left


def _activations(proto: onnx.ModelProto, constants: set[str]) -> list[str]:
    """Tensors that are quantized at run time, in the order of the graph."""
    names = []
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            name = node.input[1].removesuffix("_scale")
            if name not in names:
                names.append(name)
    if not names:
        raise ConversionError("int8: no convolution of this network can be quantized")
    return names
