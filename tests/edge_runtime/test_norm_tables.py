"""Normalisation tables: whole numbers survive their coding, and impossible tables give one BundleError."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError
from edge_runtime.norm_tables import NormLayer, NormTables, encode_rows, scale_and_shift, statistics
from edge_runtime.tensor_recipe import build_tensors, read_recipe

LAYERS = (NormLayer("g", "b", 2), NormLayer("g", "b", 1, bias="c"))
NORMS = NormTables("w", ("w-r64", "w-r32"), LAYERS, mean_step=0.5, deviation_step=0.25)
WEIGHTS = {
    "g": np.array([2, -1, 9], np.float32),
    "b": np.array([10, 20, 30], np.float16),
    "c": np.array([100], np.float32),
}
MEANS = np.array([[3, -4, 1], [3, -5, 300]])
DEVIATIONS = np.array([[0, 4, -8], [0, 8, -8]])
TABLES = {"w/mean": encode_rows(MEANS), "w/deviation": encode_rows(DEVIATIONS)}


def test_scale_and_shift_are_those_of_the_formula() -> None:
    found = scale_and_shift(NORMS, WEIGHTS, TABLES, "w-r32")
    deviation = 2.0 ** (np.array([0, 8, -8]) * 0.25)
    mean = np.array([3, -5, 300]) * 0.5 * deviation
    gamma, beta, bias = np.array([2, -1, 2]), np.array([10, 20, 10]), np.array([0, 0, 100])
    np.testing.assert_allclose(found["scale"], gamma / deviation)
    np.testing.assert_allclose(found["shift"], beta + (bias - mean) * gamma / deviation)
    assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}


def test_a_recipe_of_version_2_takes_its_scale_from_the_tables() -> None:
    tensors = [
        {"name": "w", "shape": [2, 1], "source": "kernel", "scale_at": 1},
        {"name": "s", "shape": [2], "vector": "shift", "vector_at": 1},
    ]
    recipe = read_recipe(json.dumps({"version": 2, "norms": asdict(NORMS), "tensors": tensors}).encode(), "recipe")
    weights = {**WEIGHTS, "kernel": np.ones((3, 1), np.float32)}
    built = build_tensors(recipe, weights, TABLES, "w-r64")
    expected = scale_and_shift(NORMS, WEIGHTS, TABLES, "w-r64")
    np.testing.assert_array_equal(built["w"][:, 0], expected["scale"][1:])
    np.testing.assert_array_equal(built["s"], expected["shift"][1:])
    assert recipe.sources == {"kernel", "g", "b", "c"}


@given(st.lists(st.lists(st.integers(-(2**29), 2**29), min_size=3, max_size=3), min_size=2, max_size=2))
def test_rows_survive_their_coding(rows: list[list[int]]) -> None:
    coded = encode_rows(np.array(rows))
    tables = {"w/mean": coded, "w/deviation": np.zeros((1, 2, 3), np.uint8)}
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(statistics(NORMS, tables, index)[0], np.array(row) * 0.5)


def test_equal_rows_cost_no_more_planes_and_a_step_too_large_is_refused() -> None:
    assert encode_rows(np.array([[127], [127]])).tolist() == [[[254], [0]]]
    assert encode_rows(np.array([[-128], [-129]])).tolist() == [[[255], [1]]]
    assert encode_rows(np.array([[128]])).shape == (2, 1, 1)
    with pytest.raises(ValueError, match="too large"):
        encode_rows(np.array([[2**31]]))


PLANES = np.zeros((1, 2, 3), np.uint8)
BAD_TABLES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no means": ({"w/mean": None}, "'w/mean' is missing"),
    "no deviations": ({"w/deviation": None}, "'w/deviation' is missing"),
    "floats": ({"w/mean": PLANES.astype(np.float32)}, "no byte planes"),
    "no plane": ({"w/mean": PLANES[:0]}, "no byte planes"),
    "five planes": ({"w/mean": np.zeros((5, 2, 3), np.uint8)}, "no byte planes"),
    "two axes": ({"w/mean": PLANES[0]}, "no byte planes"),
    "a row too few": ({"w/mean": PLANES[:, :1]}, r"is \(1, 3\), expected \(2, 3\)"),
    "a channel too many": ({"w/mean": np.zeros((1, 2, 4), np.uint8)}, r"is \(2, 4\), expected \(2, 3\)"),
    "a deviation beyond any number": ({"w/deviation": np.full((4, 2, 3), 254, np.uint8)}, "is not finite"),
    "a deviation of nothing": ({"w/deviation": np.full((4, 2, 3), 255, np.uint8)}, "is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TABLES)
def test_impossible_tables_are_refused(case: str) -> None:
    changes, message = BAD_TABLES[case]
    tables = {k: v for k, v in {**TABLES, **changes}.items() if v is not None}
    with pytest.raises(BundleError, match=message):
        scale_and_shift(NORMS, WEIGHTS, tables, "w-r32")


@pytest.mark.parametrize("weights", [{}, {"g": np.zeros(1, np.float32)}, {"c": np.zeros((1, 1), np.float32)}])
def test_factors_that_are_missing_or_too_short_are_refused(weights: dict[str, np.ndarray]) -> None:
    present = {**WEIGHTS, **weights} if weights else {}
    with pytest.raises(BundleError, match="is missing or too short"):
        scale_and_shift(NORMS, present, TABLES, "w-r32")


def test_a_point_without_a_row_is_refused() -> None:
    with pytest.raises(BundleError, match="no row for 'w-r48'"):
        scale_and_shift(NORMS, WEIGHTS, TABLES, "w-r48")


BAD_NORMS: dict[str, tuple[dict[str, Any], str]] = {
    "no step": ({"mean_step": 0.0}, "a step is 0.0"),
    "a negative step": ({"deviation_step": -1.0}, "a step is -1.0"),
    "a huge step": ({"deviation_step": 2.0}, "a step is 2.0"),
    "no rows": ({"rows": []}, "at least one row"),
    "one row twice": ({"rows": ["a", "a"]}, "each for another table"),
    "no layers": ({"layers": []}, "at least one layer"),
    "a layer without channels": ({"layers": [{"gamma": "g", "beta": "b", "channels": 0}]}, "0 channels"),
    "a layer of endless channels": ({"layers": [{"gamma": "g", "beta": "b", "channels": 1 << 40}]}, "impossible"),
    "an unknown key": ({"speed": 1}, "unknown key 'speed'"),
}


@pytest.mark.parametrize("case", BAD_NORMS)
def test_impossible_norms_are_refused(case: str) -> None:
    changes, message = BAD_NORMS[case]
    content = json.dumps({"version": 2, "tensors": [], "norms": {**asdict(NORMS), **changes}}).encode()
    with pytest.raises(BundleError, match=message):
        read_recipe(content, "recipe")


@pytest.mark.parametrize("values", [{"version": 3}, {"version": 0}, {"version": 1, "norms": asdict(NORMS)}])
def test_recipe_versions_that_are_unknown_or_do_not_fit_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="version"):
        read_recipe(json.dumps({"tensors": [], **values}).encode(), "recipe")
