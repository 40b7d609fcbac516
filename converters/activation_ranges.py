"""Ranges of activations for int8: from real pictures at the point's size, clipped where the error is least."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from converters.errors import ConversionError

SAMPLES_PER_PICTURE = 512
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
LEVELS = 255


@dataclass(frozen=True)
class ActivationRange:
    """Asymmetric uint8: real = (integer - zero_point) * scale."""

    scale: float
    zero_point: int


def collect_samples(
    proto: onnx.ModelProto,
    tensors: dict[str, np.ndarray],
    names: Sequence[str],
    inputs: Iterable[npt.NDArray[np.float32]],
) -> dict[str, npt.NDArray[np.float32]]:
    """Values that the named tensors take.

    Args:
        proto: the float graph with external weights.
        tensors: the point's weights.
        names: tensors of the graph, the input among them if wanted.
        inputs: (1, 3, H, W) or (1, 3, T, H, W) float32 each; read once.
    Returns:
        name -> values (samples,) float32: a random part of each picture's, always with its smallest and largest.
    """
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    present = {o.name for o in watched.graph.output} | {i.name for i in watched.graph.input}
    inner = [n for n in names if n not in {i.name for i in watched.graph.input}]
    for name in inner:
        if name not in present:
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_external_initializers(
        list(tensors), [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in tensors.values()]
    )  # fmt: skip
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name
    draw = np.random.default_rng(0)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for picture in inputs:
        outputs = dict(zip(inner, session.run(inner, {input_name: picture}), strict=True))
        outputs[input_name] = picture
        for name in names:
            rows[name].append(_thin(outputs[name].reshape(-1), draw))
    return {name: np.concatenate(values) for name, values in rows.items()}


def _thin(values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    ends = np.array([values.min(), values.max()], np.float32)
    if values.size > SAMPLES_PER_PICTURE:
        values = values[draw.integers(0, values.size, SAMPLES_PER_PICTURE)]
    return np.concatenate([values, ends])


def best_ranges(
    proto: onnx.ModelProto, names: Sequence[str], samples: Mapping[str, npt.NDArray[np.float32]]
) -> list[ActivationRange]:
    """A range for each tensor; what a max pooling gives has the range of what it takes.

    It only chooses among values, so it needs no other range, and XNNPACK does not compile one with another.

    Args:
        proto: the float graph.
        names: its tensors, in the order of the result.
        samples: as `collect_samples` gave them.
    Raises:
        ConversionError: a value is not finite.
    """
    found = {name: best_range(samples[name]) for name in names}
    for node in proto.graph.node:  # sorted: a pooling of a pooling sees the changed range
        if node.op_type == "MaxPool" and node.input[0] in found and node.output[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return [found[name] for name in names]


def best_range(samples: npt.NDArray[np.float32]) -> ActivationRange:
    """The clipping range with the least mean squared error of quantization; zero stays exact.

    Raises:
        ConversionError: a value is not finite.
    """
    if not np.isfinite(samples).all():
        raise ConversionError("calibration: an activation is not finite; the network does not work on these pictures")
    low, high = min(0.0, float(samples.min())), max(0.0, float(samples.max()))
    candidates = [_make_range(low * a, high * b) for a in (SHRINKS if low < 0 else (1.0,)) for b in SHRINKS]
    return min(candidates, key=lambda found: _squared_error(samples, found))


def _make_range(low: float, high: float) -> ActivationRange:
    scale = max((high - low) / LEVELS, 1e-8)
    return ActivationRange(float(np.float32(scale)), int(np.clip(round(-low / scale), 0, LEVELS)))


def _squared_error(samples: np.ndarray, found: ActivationRange) -> float:
    integers = np.clip(np.rint(samples / found.scale) + found.zero_point, 0, LEVELS)
    return float(np.square((integers - found.zero_point) * found.scale - samples).mean())
