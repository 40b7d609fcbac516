"""Tiny ONNX classifiers of red, green and blue pictures, made on the fly, in every form that exporters give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("red", "green", "blue")
CHANNELS = 40  # enough for the weights of both convolutions to be stored apart, in int8 too


def colour_model(
    *, layout: str = "nchw", channels: str = "rgb", softmax: bool = False, size: int | None = None,
    batch: int | str = "batch", kind: int = TensorProto.FLOAT, output_axes: int = 2, blind: bool = False,
    classes: int = 3, layers: int = 1, odd_operator: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """A padded strided convolution, more convolutions, a global average and a linear head.

    Args:
        size: fixed side in pixels; None leaves height and width open.
        blind: takes blue for green.
        layers: convolutions after the first; they change nothing but the time.
    """
    constants = _constants(channels, blind, classes, head_axes=output_axes)
    if not layers:
        del constants["pointwise"]
    nodes, last = _entry(layout, kind)
    nodes += _convolutions(last, layers)
    if odd_operator:
        nodes.append(helper.make_node("Sparkle", [f"r{layers}"], ["sparkled"], domain="my.own"))
    nodes.append(helper.make_node("GlobalAveragePool", ["sparkled" if odd_operator else f"r{layers}"], ["mean"]))
    if output_axes == 4:
        nodes.append(helper.make_node("Conv", ["mean", "head", "bias"], ["scores"]))
    else:
        nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
        nodes.append(helper.make_node("Gemm", ["flat", "head", "bias"], ["scores"], transB=1))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["odds"], axis=1))
    sides: list[Any] = [size or "h", size or "w"]
    shape = [batch, 3, *sides] if layout == "nchw" else [batch, *sides, 3]
    graph = helper.make_graph(
        nodes, "colours", [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("odds" if softmax else "scores", TensorProto.FLOAT, [None] * output_axes)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("my.own", 1)] if odd_operator else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _constants(channels: str, blind: bool, classes: int, head_axes: int) -> dict[str, np.ndarray]:
    """Weights that tell the three colours apart, and many more that hardly matter."""
    draw = np.random.default_rng(0)
    first = np.zeros((CHANNELS, 3, 3, 3), np.float32)
    first[:3, :, 1, 1] = np.eye(3)[::-1] if channels == "bgr" else np.eye(3)
    first[3:] = draw.standard_normal((CHANNELS - 3, 3, 3, 3)) * 0.01
    first[5] *= 7e-5  # training leaves such channels: the bias, in units of their scale, is beyond int32
    dead = np.zeros(CHANNELS, np.float32)
    dead[5] = 0.5
    head = np.zeros((classes, CHANNELS), np.float32)
    head[:3, :3] = np.eye(3) * 4
    if blind:
        head[2] = head[1] - 0.01
    return {
        "first": first,
        "first_bias": dead,
        "pointwise": np.eye(CHANNELS, dtype=np.float32)[:, :, None, None] + np.float32(1e-4),
        "head": head[:, :, None, None] if head_axes == 4 else head,
        "bias": np.zeros(classes, np.float32),
    }


def _convolutions(last: str, layers: int) -> list[onnx.NodeProto]:
    """The padded strided one, and those after it, each with its ReLU."""
    first, padding = [last, "first", "first_bias"], {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", first, ["c0"], strides=[2, 2], **padding),
        helper.make_node("Relu", ["c0"], ["r0"]),
    ]
    for index in range(layers):
        nodes.append(helper.make_node("Conv", [f"r{index}", "pointwise"], [f"c{index + 1}"]))
        nodes.append(helper.make_node("Relu", [f"c{index + 1}"], [f"r{index + 1}"]))
    return nodes


def _entry(layout: str, kind: int) -> tuple[list[onnx.NodeProto], str]:
    nodes, last = [], "input"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["as_float"], to=TensorProto.FLOAT))
        last = "as_float"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
        last = "planes"
    return nodes, last


def save(folder: Path, name: str, **form: Any) -> Path:
    """Write a model; returns its path."""
    path = folder / f"{name}.onnx"
    onnx.save(colour_model(**form), path)
    return path


def write_pictures(root: Path, each: int = 16, flat: bool = False) -> Path:
    """Noisy pictures of the three colours: class folders, or "<number>_<n>.png"."""
    draw = np.random.default_rng(7)
    for label, name in enumerate(LABELS):
        for index in range(each):
            pixels = draw.integers(0, 90, (int(draw.integers(24, 50)), 40, 3))
            pixels[..., label] += 120
            path = root / (f"{label:02d}_{name}_{index}.png" if flat else f"{name}/{index:02d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), pixels[..., ::-1].astype(np.uint8))
    return root


def write_labels(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """A labels file."""
    path = folder / "labels.txt"
    path.write_text("\n".join(labels) + "\n", encoding="utf-8")
    return path
