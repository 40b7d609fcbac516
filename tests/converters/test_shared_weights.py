"""Weights once: recipes rebuild the folded weights of every point from one copy of the full network's tensors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import RESOLUTIONS, WIDTHS

from converters.norm_folding import find_norm_pairs, fold_norms
from converters.norm_rounding import round_norms
from converters.shared_weights import TensorStore, full_store, make_recipe, recipe_values
from edge_runtime.tensor_recipe import build_tensors, read_recipe
from zoo import materialise
from zoo.checkpoint import Checkpoint


@pytest.mark.parametrize("width", WIDTHS)
def test_a_recipe_rebuilds_the_folded_weights_of_every_resolution(checkpoint: Checkpoint, width: float) -> None:
    model = checkpoint.build()
    store = full_store(model)
    plains = {r: materialise(model, width=width, resolution=r) for r in RESOLUTIONS}
    picture = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    pairs = find_norm_pairs(plains[24], picture)
    assert len(pairs) == 3
    shapes = {n: tuple(p.shape) for n, p in fold_norms(plains[24], pairs, picture).named_parameters()}
    rounded = round_norms({str(r): plain for r, plain in plains.items()}, pairs, store, "sub")
    assert rounded is not None
    recipe = replace(make_recipe(plains[24], pairs, shapes, store, "sub"), norms=rounded[0], version=2)
    written = json.dumps(recipe_values(recipe)).encode()
    for resolution, plain in plains.items():
        made = build_tensors(read_recipe(written, "recipe"), store.arrays, rounded[1], str(resolution))
        expected = dict(fold_norms(plain, pairs, picture).named_parameters())
        assert set(made) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(made[name], value.detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    assert not any(name.startswith("sub/") for name in store.arrays)  # every tensor is a slice of the full network's


def test_a_tensor_that_is_no_slice_is_stored_for_its_subnet_alone() -> None:
    full = np.arange(12, dtype=np.float32).reshape(3, 4)
    store = TensorStore({"w": full})
    assert store.source_of("w", full[:2, :3], "sub") == "w"
    assert store.source_of("w", full[1:, :3], "sub") == "sub/w"
    assert store.source_of("new", full[0], "sub") == "sub/new"
    assert store.source_of("w", np.zeros((4, 4), np.float32), "big") == "big/w"
    assert set(store.arrays) == {"w", "sub/w", "sub/new", "big/w"}
