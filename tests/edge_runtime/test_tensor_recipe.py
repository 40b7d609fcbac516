"""Recipes of weights: slices, scales and shifts come out right; impossible recipes give one BundleError."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError
from edge_runtime.tensor_recipe import build_tensors, read_recipe

WEIGHTS = {
    "conv": np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1),
    "half": np.arange(8, dtype=np.float16),
    "flat": np.arange(6, dtype=np.float32),
    "scales": np.array([0.5, 0.25, 0.125], np.float32),
}
TABLES = {
    "p/scale": np.array([9, 9, 2, -1], np.float32),
    "p/shift": np.array([5, 6, 7], np.float16),
    "p/activation_scale": np.array([0.5, 0.1], np.float32),
    "q/scale": np.ones(4, np.float32),
}


def build(*tensors: dict[str, Any], table: str = "p", **parts: Any) -> dict[str, np.ndarray]:
    content = json.dumps({"tensors": list(tensors), **parts}).encode()
    return build_tensors(read_recipe(content, "recipe"), WEIGHTS, TABLES, table)


def test_a_slice_is_the_leading_part_along_every_axis() -> None:
    found = build({"name": "w", "shape": [2, 3, 1, 1], "source": "conv"})["w"]
    np.testing.assert_array_equal(found, WEIGHTS["conv"][:2, :3, :1, :1])
    assert found.flags.c_contiguous


def test_each_output_channel_is_scaled_by_the_points_own_table() -> None:
    recipe = {"name": "w", "shape": [2, 1, 2, 1], "source": "conv", "scale_at": 2}
    slice_ = WEIGHTS["conv"][:2, :1]
    np.testing.assert_array_equal(build(recipe)["w"], slice_ * np.array([2, -1], np.float32).reshape(2, 1, 1, 1))
    with pytest.raises(BundleError, match="'r/scale' is missing"):
        build(recipe, table="r")


def test_a_vector_is_a_run_of_the_table() -> None:
    found = build({"name": "b", "shape": [2], "vector": "shift", "vector_at": 1})["b"]
    np.testing.assert_array_equal(found, [6, 7])
    assert found.dtype == np.float32


def test_half_precision_storage_becomes_single() -> None:
    found = build({"name": "h", "shape": [8], "source": "half"})["h"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.arange(8))


def test_the_stored_tensors_of_integer_biases_are_needed_too() -> None:
    """A detector's box predictors have biases of their own and no norm behind them."""
    recipe = {
        "tensors": [{"name": "w", "shape": [4, 3, 2, 1], "source": "conv"}],
        "scales": [{"name": "s", "source": "scales", "channels": 2}],
        "biases": [{"value": {"name": "b", "shape": [2], "source": "flat"}, "scale": "s"}],
    }
    assert read_recipe(json.dumps(recipe).encode(), "recipe").sources == {"conv", "scales", "flat"}


def test_an_integer_bias_is_the_float_bias_divided_by_its_scale() -> None:
    built = build(
        scales=[{"name": "s", "source": "scales", "channels": 2, "scale_at": 2, "input_at": 0}],
        biases=[{"value": {"name": "b", "shape": [2], "vector": "shift", "vector_at": 0}, "scale": "s"}],
    )
    np.testing.assert_allclose(built["s"], [0.5 * 2 * 0.5, 0.25 * 1 * 0.5])
    assert built["b"].dtype == np.int32
    np.testing.assert_array_equal(built["b"], [round(5 / 0.5), round(6 / 0.125)])


BAD_RECIPES = {
    "no such tensor": ({"shape": [1], "source": "absent"}, "'absent' is missing"),
    "larger than stored": ({"shape": [5, 3, 2, 1], "source": "conv"}, "too small"),
    "another number of axes": ({"shape": [4], "source": "conv"}, "too small"),
    "no such vector": ({"shape": [1], "vector": "absent"}, "'p/absent' is missing"),
    "past the vector's end": ({"shape": [2], "vector": "shift", "vector_at": 2}, "too short"),
    "past the scale's end": ({"shape": [4, 1, 1, 1], "source": "conv", "scale_at": 1}, "too short"),
    "a product that wraps to zero": ({"shape": [1 << 24] * 8, "vector": "shift"}, "too short"),
    "a scale of no channels": ({"shape": [], "source": "flat", "scale_at": 0}, "no channels to scale"),
    "both kinds": ({"shape": [1], "source": "flat", "vector": "shift"}, "expected either source or vector"),
    "neither kind": ({"shape": [1]}, "expected either source or vector"),
    "a negative axis": ({"shape": [-1], "source": "flat"}, "is impossible"),
    "a huge axis": ({"shape": [1 << 25], "source": "flat"}, "is impossible"),
    "nine axes": ({"shape": [1] * 9, "source": "flat"}, "is impossible"),
    "a negative offset": ({"shape": [1], "vector": "shift", "vector_at": -1}, "offset is negative"),
    "a negative scale offset": ({"shape": [1], "source": "flat", "scale_at": -1}, "offset is negative"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_an_impossible_recipe_is_refused(case: str) -> None:
    recipe, message = BAD_RECIPES[case]
    with pytest.raises(BundleError, match=message):
        build({"name": "w", **recipe})


@pytest.mark.parametrize(
    "scale", [{"scale_at": -3}, {"input_at": -1}, {"input_at": 2}, {"channels": 0}, {"channels": 4}, {"source": "conv"}]
)
def test_an_impossible_integer_scale_is_refused(scale: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        build(scales=[{"name": "s", "source": "scales", "channels": 2, **scale}])


@pytest.mark.parametrize(
    "bias",
    [
        {"value": {"name": "b", "shape": [3], "vector": "shift"}, "scale": "s"},
        {"value": {"name": "b", "shape": [2, 1], "vector": "shift"}, "scale": "s"},
        {"value": {"name": "b", "shape": [2], "vector": "shift"}, "scale": "absent"},
    ],
)
def test_an_integer_bias_that_does_not_fit_its_scale_is_refused(bias: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        build(scales=[{"name": "s", "source": "scales", "channels": 2}], biases=[bias])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"tensors": [{"name": "x"}]}', b"[" * 100_000])
def test_what_is_no_recipe_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="file: not a recipe of weights"):
        read_recipe(content, "file")


FIELDS = st.fixed_dictionaries(
    {"name": st.just("w"), "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 1 << 24]), max_size=8)},
    optional={
        "source": st.sampled_from(["conv", "flat", "half", "absent"]),
        "scale_at": st.integers(-1, 5),
        "vector": st.sampled_from(["shift", "scale", "absent"]),
        "vector_at": st.integers(-1, 5) | st.just(2**61),
    },
)


@given(FIELDS)
def test_any_recipe_gives_tensors_of_its_shape_or_a_bundle_error(fields: dict[str, Any]) -> None:
    try:
        found = build(fields)
    except BundleError:
        return
    assert found["w"].shape == tuple(fields["shape"])
