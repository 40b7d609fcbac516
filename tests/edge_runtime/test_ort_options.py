"""ONNX Runtime computes what a quantized graph says: float layers stay float, and 8-bit weights do not saturate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_values, point_values, write_bundle

from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.backends.ort_options import ALL_SUMS_WIDE, open_session
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit_backend import OPENERS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CHANNELS, SIDE = 64, 16
INPUT_SCALE, OUTPUT_SCALE = 1 / 255, 0.005
Weights = tuple[np.ndarray, np.ndarray | None]
"""Of the second convolution: (3, CHANNELS, 1, 1), and the scale of each output channel; None: float weights."""


def float_weights() -> Weights:
    """One channel is a thousand times smaller than another: one scale for both would make it zero."""
    weight = np.full((3, CHANNELS, 1, 1), 0.002, np.float32)
    weight[0] = np.where(np.arange(CHANNELS) % 2, 2.0, -2.0)[:, None, None]
    return weight, None


def wide_weights() -> Weights:
    """255 x 127 twice is beyond 16 bits."""
    return np.full((3, CHANNELS, 1, 1), 127, np.int8), np.full(3, 0.25 / (CHANNELS * 127), np.float32)


def program(weights: Weights) -> bytes:
    """A picture of ones, CHANNELS times -> quantize -> convolution -> quantize -> mean of each channel."""
    from onnx import TensorProto, helper, numpy_helper

    weight, scales = weights
    stored = {
        "spread": np.full((CHANNELS, 3, 1, 1), 1 / 3, np.float32), "in_scale": np.float32(INPUT_SCALE),
        "out_scale": np.float32(OUTPUT_SCALE), "zero": np.uint8(0), "weight": weight,
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "spread"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "in_scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "in_scale", "zero"], ["x_dq"]),
        helper.make_node("Conv", ["x_dq", "weight" if scales is None else "weight_dq"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "out_scale", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "out_scale", "zero"], ["y_dq"]),
        helper.make_node("ReduceMean", ["y_dq"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    if scales is not None:
        stored |= {"weight_scale": scales, "weight_zero": np.zeros(3, np.int8)}
        nodes.insert(
            3, helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weight_dq"], axis=0)
        )
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def by_a_point(bundle: Bundle, picture: np.ndarray) -> np.ndarray:
    """As an operating point."""
    runner: Any = open_backend("onnxruntime", bundle, BackendOptions()).load(bundle.manifest.points[0])
    runner.input[:] = picture
    return np.array(runner.run())


def by_a_part(bundle: Bundle, picture: np.ndarray) -> np.ndarray:
    """As a part of a network that looks several times."""
    return np.array(OPENERS["onnxruntime"](bundle, bundle.manifest.programs[0], BackendOptions())(picture)[0])


@pytest.mark.parametrize("run", [by_a_point, by_a_part])
@pytest.mark.parametrize(
    ("weights", "expected"),
    [(float_weights(), [0.0, 0.002 * CHANNELS, 0.002 * CHANNELS]), (wide_weights(), [0.25, 0.25, 0.25])],
    ids=["float layer", "8-bit weights"],
)
def test_a_quantized_graph_is_computed_as_it_is_stored(
    tmp_path: Path, run: Callable[[Bundle, np.ndarray], np.ndarray], weights: Weights, expected: list[float]
) -> None:
    values = manifest_values(
        programs=[{
            "name": "p", "backend": "onnxruntime", "precision": "int8", "file": "p.onnx", "output": "logits",
        }],
        points=[point_values(1.0, SIDE) | {"program": "p"}],
        weights=None,
    )  # fmt: skip
    bundle = Bundle.load(write_bundle(tmp_path / "b.bundle", values, {"p.onnx": program(weights)}))
    found = run(bundle, np.ones((1, 3, SIDE, SIDE), np.float32))
    np.testing.assert_allclose(found[0], expected, atol=OUTPUT_SCALE)


class PickyEngine:
    """Refuses wide sums, as ONNX Runtime does on x86 without VNNI where several layers share a weight."""

    def __init__(self, refuses: tuple[str, ...]) -> None:
        self.entries: dict[str, str] = {}
        self.log_severity_level = 3
        self.tried: list[str] = []
        self._refuses = refuses

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value

    def InferenceSession(self, graph: bytes, options: Any, providers: list[str]) -> bytes:  # noqa: N802 - its name
        self.tried.append(self.entries[ALL_SUMS_WIDE])
        if self.tried[-1] in self._refuses:
            raise RuntimeError("Attempt to replace the existing tensor")
        return graph


def test_a_graph_that_wide_sums_refuse_is_opened_without_them_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    engine = PickyEngine(refuses=("1",))
    assert open_session(engine, b"graph", engine) == b"graph"
    assert "edge-runtime verify" in caplog.text


def test_a_graph_that_is_refused_anyway_raises_and_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    engine = PickyEngine(refuses=("0", "1"))
    with pytest.raises(RuntimeError, match="existing tensor"):
        open_session(engine, b"graph", engine)
    assert not caplog.text


def test_a_graph_that_is_opened_without_wide_sums_is_tried_once() -> None:
    engine = PickyEngine(refuses=("0",))
    with pytest.raises(RuntimeError, match="existing tensor"):
        open_session(engine, b"graph", engine, wide_sums=False)
    assert engine.tried == ["0"]
