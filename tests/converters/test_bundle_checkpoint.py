"""The way back from a bundle to a checkpoint: same network, same answers, and the same integers when built again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from built_bundle import Built
from click.testing import CliRunner

from converters.__main__ import ERRORS, main
from converters.build import BuildRequest, build
from converters.bundle_checkpoint import checkpoint_from_bundle
from converters.errors import ConversionError
from converters.int8_graph import QuantSpec
from edge_runtime.bundle import Bundle, default_bundle_path
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.slim_layers import SlimError

SHIPPED_RECIPE = "zoo/recipes/efficientnet-lite0-20.toml"


def recipe_of(checkpoint: Checkpoint) -> Recipe:
    return Recipe.from_dict(checkpoint.recipe)


def test_a_float_bundle_gives_the_weights_bit_for_bit(built: Built, checkpoint: Checkpoint) -> None:
    back = checkpoint_from_bundle(Bundle.load(built.path), recipe_of(checkpoint))
    before, after = checkpoint.build(), back.build()
    for (name, expected), found in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(found, expected), name
    assert back.classes == checkpoint.classes
    assert sorted(back.recipe["widths"]) == sorted(checkpoint.recipe["widths"])
    assert sorted(back.recipe["resolutions"]) == sorted(checkpoint.recipe["resolutions"])


def test_its_points_answer_as_the_checkpoint_does(built: Built, checkpoint: Checkpoint) -> None:
    back = checkpoint_from_bundle(Bundle.load(built.path), recipe_of(checkpoint)).build()
    before = checkpoint.build()
    torch.manual_seed(0)
    for width in checkpoint.recipe["widths"]:
        for side in checkpoint.recipe["resolutions"]:
            x = torch.randn(8, 3, side, side)
            with torch.no_grad(), before.at(width, side), back.at(width, side):
                expected, found = before(x), back(x)
            # the bundle's tables round the statistics
            assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_an_int8_bundle_built_again_has_the_same_integers(
    narrow: Checkpoint, source: PictureSource, tmp_path: Path
) -> None:
    spec = QuantSpec(max_drop=1.0)
    first, _ = build(BuildRequest(narrow, source, tmp_path / "a.bundle", "a", ("int8",), spec), print)
    back = checkpoint_from_bundle(Bundle.load(first), recipe_of(narrow))
    second, _ = build(BuildRequest(back, source, tmp_path / "b.bundle", "b", ("int8",), spec), print)
    one, other = Bundle.load(first).weights, Bundle.load(second).weights
    whole = [name for name in one if name.endswith("/int8")]
    assert whole
    for name in whole:
        assert np.array_equal(one[name], other[name]), name
        assert np.allclose(one[name + "_scale"], other[name + "_scale"], rtol=1e-6)


def test_the_shipped_bundle_goes_back(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.pt"
    arguments = ["checkpoint", str(default_bundle_path()), "--recipe", SHIPPED_RECIPE, "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "20 points" in done.output
    again = CliRunner().invoke(main, arguments)
    assert isinstance(again.exception, ERRORS)
    assert "is there already" in str(again.exception)


def test_a_recipe_of_another_network_is_refused(built: Built, checkpoint: Checkpoint) -> None:
    other = dataclasses.replace(recipe_of(checkpoint), model="mobilenet_v1", model_options={"width_mult": 0.25})
    with pytest.raises((ConversionError, SlimError), match=r"another network|trained with"):
        checkpoint_from_bundle(Bundle.load(built.path), other)


def test_a_bundle_without_shared_weights_is_refused(tmp_path: Path, built: Built, checkpoint: Checkpoint) -> None:
    bundle = Bundle.load(built.path)
    bare = Bundle(bundle.root, dataclasses.replace(bundle.manifest, weights=None))
    with pytest.raises(ConversionError, match="no shared weights"):
        checkpoint_from_bundle(bare, recipe_of(checkpoint))
