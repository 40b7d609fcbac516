"""Integers shared among subnets, ranges of activations, and the gate."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.activation_ranges import best_range, best_ranges
from converters.errors import ConversionError
from converters.int8 import exact_drops, quantize_with_gate
from converters.int8_graph import QuantSpec, _first_that_works, external_names, make_int8_graph, quantize_weight
from edge_runtime.preprocess import TensorSpec
from edge_runtime.tensor_recipe import BiasRecipe, GraphTensors, ScaleRecipe, TensorRecipe, build_tensors


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A weight (6, 4, 3, 3) whose channels differ a hundredfold, and gammas of both signs."""
    draw = np.random.default_rng(seed)
    weight = (
        draw.standard_normal((6, 4, 3, 3)).astype(np.float32) * (10.0 ** np.linspace(-1, 1, 6))[:, None, None, None]
    )
    return weight.astype(np.float32), draw.standard_normal(6).astype(np.float32)


@pytest.mark.parametrize("largest", [127, 63])
def test_each_output_channel_uses_the_whole_range_of_integers(largest: int) -> None:
    weight, _ = made_up()
    integers, scale = quantize_weight(weight, None, largest)
    assert (np.abs(integers.astype(int)).reshape(6, -1).max(1) == largest).all()
    error = np.abs(integers * scale[:, None, None, None] - weight)
    assert (error <= 0.5001 * scale[:, None, None, None]).all()


def test_a_slice_of_the_integers_with_the_points_scale_is_the_folded_weight() -> None:
    weight, gamma = made_up()
    integers, stored_scale = quantize_weight(weight, gamma, 127)
    point_scale = gamma * np.array([0.5, 2.0, 1.0, 3.0, 0.1, 1.5], np.float32)  # gamma / sqrt(variance)
    recipe = GraphTensors(
        (TensorRecipe("q", (4, 2, 3, 3), "w/int8"),), (ScaleRecipe("s", "w/int8_scale", 4, scale_at=0),)
    )
    tables = {"p/scale": point_scale.astype(np.float32)}
    built = build_tensors(recipe, {"w/int8": integers, "w/int8_scale": stored_scale}, tables, "p")
    folded = weight[:4, :2] * point_scale[:4, None, None, None]
    step = built["s"][:, None, None, None]
    assert (built["s"] > 0).all()
    assert (np.abs(built["q"] * step - folded) <= 0.501 * step).all()


def test_an_integer_bias_is_the_shift_in_units_of_its_scale() -> None:
    shift = np.array([0.3, -2.0, 7.5], np.float32)
    recipe = GraphTensors(
        (),
        (ScaleRecipe("s", "w/int8_scale", 3, scale_at=0, input_at=1),),
        (BiasRecipe(TensorRecipe("b", (3,), vector="shift"), "s"),),
    )
    tables = {
        "p/scale": np.array([1.0, -2.0, 0.5], np.float32),
        "p/shift": shift,
        "p/activation_scale": np.array([9.0, 0.02], np.float32),
    }
    built = build_tensors(recipe, {"w/int8_scale": np.array([0.01, 0.02, 0.03], np.float32)}, tables, "p")
    assert built["b"].dtype == np.int32
    np.testing.assert_allclose(built["s"], np.array([0.01, 0.04, 0.015]) * 0.02, rtol=1e-6)
    np.testing.assert_allclose(built["b"] * built["s"], shift, atol=float(built["s"].max()))


def test_a_channel_whose_normalisation_is_zero_keeps_its_bias() -> None:
    recipe = GraphTensors(
        (),
        (ScaleRecipe("s", "w/int8_scale", 1, scale_at=0, input_at=0),),
        (BiasRecipe(TensorRecipe("b", (1,), vector="shift"), "s"),),
    )
    tables = {
        "p/scale": np.zeros(1, np.float32),
        "p/shift": np.array([1.25], np.float32),
        "p/activation_scale": np.array([0.05], np.float32),
    }
    built = build_tensors(recipe, {"w/int8_scale": np.ones(1, np.float32)}, tables, "p")
    assert float(built["b"][0] * built["s"][0]) == pytest.approx(1.25, rel=1e-3)


def test_ranges_keep_zero_exact_and_ignore_a_lone_outlier() -> None:
    samples = np.random.default_rng(0).uniform(-1.0, 3.0, 20_000).astype(np.float32)
    found = best_range(samples)
    assert found.scale == pytest.approx(4.0 / 255, rel=0.02)
    assert found.zero_point == pytest.approx(64, abs=2)
    assert best_range(np.append(samples, np.float32(6.0))).scale < 0.97 * 7.0 / 255
    positive = best_range(np.abs(samples))
    assert positive.zero_point == 0


def test_a_max_pooling_gives_the_range_that_it_takes() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    shape = [1, 1, 8, 8]
    graph = helper.make_graph(
        nodes, "pools",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [1, 1, 6, 6])],
    )  # fmt: skip
    samples = {
        name: np.linspace(0.0, top, 500, dtype=np.float32) for name, top in zip("abcd", (4, 3, 2, 1), strict=True)
    }
    a, b, c, d = best_ranges(helper.make_model(graph), ["a", "b", "c", "d"], samples)
    assert a == b == c == best_range(samples["a"])
    assert d == best_range(samples["d"]) != a
    (alone,) = best_ranges(helper.make_model(graph), ["c"], samples)
    assert alone == best_range(samples["c"])


def test_an_activation_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ConversionError, match="not finite"):
        best_range(np.array([0.0, np.nan], np.float32))


@pytest.mark.parametrize(
    ("drops", "float_layers"),
    [
        ([{64: 0.004}], ()),  # good at once
        ([{64: 0.03}, {64: 0.008}], ("a",)),  # one sensitive layer
        ([{64: 0.03}, {64: 0.04}, {64: 0.009}], ("a", "b")),  # the first attempt made it worse
        ([{64: 0.03}, {64: 0.025}, {64: 0.05}], ("a",)),  # the allowance runs out: the best attempt is kept
    ],
)
def test_the_gate_leaves_as_few_layers_float_as_the_drop_allows(
    drops: list[dict[int, float]], float_layers: tuple[str, ...]
) -> None:
    left = list(drops)
    best, found = quantize_with_gate(
        quantize=lambda spec: SimpleNamespace(spec=spec, subnet=SimpleNamespace(name="w1.00")),
        drops_of=lambda attempt: left.pop(0),
        float_layers_of=lambda spec, resolution, count: QuantSpec(
            max_float_layers=spec.max_float_layers, float_layers=tuple("abcd"[:count])
        ),
        spec=QuantSpec(max_float_layers=2),
        report=lambda line: None,
    )
    assert best.spec.float_layers == float_layers
    assert found in drops


def test_what_int8_loses_is_told_for_each_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {32: [0, 1, 1, 0], 16: [0, 0, 0, 0]}  # classes said of four pictures; three and one of them are right
    monkeypatch.setattr("converters.int8.point_tensors", lambda found, floats, tables, resolution: {"of": resolution})
    monkeypatch.setattr(
        "converters.int8.exact_logits",
        lambda found, tensors, resolution, pictures, spec: np.eye(2)[answers[tensors["of"]]],
    )
    spec = TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    drops = exact_drops(None, {32: 0.9, 16: 0.5}, {}, {}, [], np.array([0, 1, 1, 1]), spec)
    assert drops == {32: pytest.approx(0.9 - 0.75), 16: pytest.approx(0.5 - 0.25)}


def test_a_sum_with_a_stored_tensor_stays_float_and_keeps_the_tensor() -> None:
    draw = np.random.default_rng(0)
    stored = {
        "conv.weight": draw.standard_normal((4, 3, 3, 3)), "proj.weight": draw.standard_normal((4, 4)),
        "proj.bias": draw.standard_normal(4),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["map"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["map"], ["rows"], "rows", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["rows", "proj.weight"], ["product"], "proj"),
        helper.make_node("Add", ["product", "proj.bias"], ["biased"], "bias"),
        helper.make_node("Add", ["biased", "rows"], ["scores"], "residual"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 8, 8, 4))],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in stored.items()],
    )  # fmt: skip
    template = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    recipe = GraphTensors(tuple(TensorRecipe(name, a.shape, name) for name, a in stored.items()))
    found = make_int8_graph(template, recipe, QuantSpec())
    assert external_names(found.recipe) <= {t.name for t in found.proto.graph.initializer}
    float_inputs = {n.name: n.input for n in found.proto.graph.node if n.op_type == "Add"}
    assert "proj.bias" in float_inputs["bias"]
    assert list(float_inputs["residual"]) == ["biased", "rows"]  # no integer operator made either of them


def test_a_structure_whose_made_up_weights_overflow_is_quantized_on_black_pictures() -> None:
    tried = []

    def quantize(strength: float, fails: tuple[float, ...]) -> TensorProto:
        tried.append(strength)
        assert strength not in fails, "scale issue"
        return TensorProto()

    assert isinstance(_first_that_works(lambda s: quantize(s, ())), TensorProto)
    assert isinstance(_first_that_works(lambda s: quantize(s, (1.0,))), TensorProto)
    assert tried == [1.0, 1.0, 0.0]
    with pytest.raises(ConversionError, match="quantizer refuses this network: scale issue"):
        _first_that_works(lambda s: quantize(s, (1.0, 0.0)))
