"""A Glance and Focus bundle taken back into a checkpoint: the same answers, and refusals in a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import CLASSES, write_pictures
from test_glance_focus import RECIPE, checkpoint

from converters.errors import ConversionError
from converters.focus_checkpoint import focus_checkpoint_from_bundle, stored_weights
from converters.glance_focus_build import FocusRequest, build_focus
from edge_runtime.bundle import Bundle, default_bundle_path
from zoo.gfnet_checkpoint import build_gfnet, start_from
from zoo.gfnet_recipe import GlanceRecipe
from zoo.pictures import PictureSource
from zoo.recipe import RecipeError

SHIPPED = Path(__file__).resolve().parents[2] / "apps" / "demo" / "focus-20.bundle"
SHIPPED_RECIPE = "zoo/recipes/gfnet-lite0-scenes-20-more.toml"
LARGEST_OF_7_BITS = 63


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_pictures(tmp_path_factory.mktemp("pictures")))


def test_a_float_bundle_comes_back_with_the_same_vectors_places_and_answers(
    source: PictureSource, tmp_path: Path
) -> None:
    held = checkpoint(source)
    before, _ = build_gfnet(held)
    bundle = Bundle.load(build_focus(FocusRequest(held, source, tmp_path / "a.bundle", budgets=1)))
    taken = focus_checkpoint_from_bundle(bundle, GlanceRecipe.from_dict(held.recipe))
    after, recipe = build_gfnet(taken)
    assert recipe.to_dict() == held.recipe
    torch.manual_seed(0)
    patches = torch.randn(5, 3, 12, 12)
    memories = torch.randn(5, 8), torch.randn(5, 8)
    with torch.no_grad():
        for old, new in zip(before.encoders, after.encoders, strict=True):
            for expected, found in zip(old(patches), new(patches), strict=True):
                assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
        vector, feature_map = before.focus(patches)
        old, new = before.policy.actor, after.policy.actor
        assert torch.equal(old.weight, new.weight)
        for expected, found in zip(
            (before.policy.memory(before.policy.encoder(feature_map), memories[0]),
             before.classifier.memory(vector, memories[1])),
            (after.policy.memory(after.policy.encoder(feature_map), memories[0]),
             after.classifier.memory(vector, memories[1])), strict=True,
        ):  # fmt: skip
            assert torch.equal(found, expected)
        assert torch.equal(before.classifier.linear.weight, after.classifier.linear.weight)
    with pytest.raises(RecipeError, match="taken back from a bundle"):
        start_from(before, taken, list(taken.classes))


def test_integers_come_back_as_the_values_that_they_stand_for() -> None:
    import onnx
    from onnx import TensorProto, helper

    def tensor(name: str, kind: int, dims: list[int], values: list[float]) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, dims, values)

    graph = helper.make_graph([], "g", [], [], [
        tensor("a.weight_quantized", TensorProto.INT8, [2, 2], [1, -2, 3, 63]),
        tensor("a.weight_scale", TensorProto.FLOAT, [2], [0.5, 0.25]),
        tensor("a.bias_quantized", TensorProto.INT32, [2], [100, -8]),
        tensor("a.bias_quantized_scale", TensorProto.FLOAT, [2], [0.01, 0.5]),
        tensor("relu_scale", TensorProto.FLOAT, [], [0.1]),
        tensor("cell.weight_ih", TensorProto.FLOAT, [1, 1], [7.0]),
    ])  # fmt: skip
    found = stored_weights(helper.make_model(graph).SerializeToString())
    assert set(found) == {"a.weight", "a.bias", "cell.weight_ih"}
    assert found["a.weight"].tolist() == [[0.5, -1.0], [0.75, 15.75]]
    assert found["a.bias"].tolist() == [1.0, -4.0]
    del graph.initializer[1]
    with pytest.raises(ConversionError, match=r"the integers 'a\.weight_quantized' of a program have no scale"):
        stored_weights(helper.make_model(graph).SerializeToString())
    with pytest.raises(ConversionError, match="is no ONNX file"):
        stored_weights(b"not a program")


def test_what_does_not_fit_is_refused(source: PictureSource) -> None:
    with pytest.raises(ConversionError, match="holds no Glance and Focus network"):
        focus_checkpoint_from_bundle(Bundle.load(default_bundle_path()), RECIPE)
    bundle, shipped = Bundle.load(SHIPPED), GlanceRecipe.from_file(SHIPPED_RECIPE)
    for change, sentence in (
        ({"shared": True}, "only networks of two whole encoders"),
        ({"classifier": "concatenating"}, "only networks of two whole encoders"),
        (
            {"backbone": "mobilenet_v1", "backbone_options": {}},
            r"an encoder does not fit the recipe's design \(first: ",
        ),
        ({"classifier_hidden": 64}, r"the classifier does not fit the recipe's design \(first: memory"),
    ):
        other = dataclasses.replace(shipped, design={**shipped.design, **change})
        with pytest.raises(ConversionError, match=sentence):
            focus_checkpoint_from_bundle(bundle, other)


@pytest.mark.parametrize("bundle", [SHIPPED, default_bundle_path()], ids=lambda path: path.stem)
def test_what_ships_has_integers_that_no_processor_saturates(bundle: Path) -> None:
    """x86 without VNNI adds two products of uint8 and int8 in 16 bits: 2 x 255 x 63 fits, 2 x 255 x 127 does not."""
    import onnx
    from onnx import numpy_helper

    opened, largest = Bundle.load(bundle), 0
    arrays = [v for name, v in opened.weights.items() if name.endswith("/int8")] if opened.weights else []
    for program in opened.manifest.programs:
        if not opened.weights and program.precision == "int8":
            graph = onnx.load_from_string(opened.content(program.file)).graph
            arrays += [numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith(".weight_quantized")]
    assert len(arrays) > 20
    largest = max(int(np.abs(array.astype(np.int32)).max()) for array in arrays)
    assert largest <= LARGEST_OF_7_BITS


def test_the_shipped_bundle_has_the_classes() -> None:
    held = focus_checkpoint_from_bundle(Bundle.load(SHIPPED), GlanceRecipe.from_file(SHIPPED_RECIPE))
    assert len(held.classes) == 20 > len(CLASSES)
    build_gfnet(held)
