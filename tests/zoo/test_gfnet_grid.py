"""The policy that learns from a grid of patches: what an atlas holds, what a place is worth, and that it is learned."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.focus_patches import cut_patches
from zoo.gfnet import Design, GFNet
from zoo.gfnet_grid import NARROW, WIDE, Atlas, expected_gain, grid_places, learn_epoch, make_atlas, spread_at
from zoo.gfnet_parts import PatchPolicy

CLASSES, SIDE, STEPS = 4, 3, 3


class Evidence:
    """A classifier that adds up what it sees: a vector is evidence for each class."""

    def step(self, vector: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        memory = vector if memory is None else torch.maximum(memory, vector)
        return memory, memory


def made_up(count: int = 96) -> tuple[Any, Atlas, Tensor]:
    """A model, an atlas where one place shows the class and the glance's map shows the place, and the places."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    where = torch.randint(SIDE**2, (count,), generator=draw)
    every = torch.arange(count)
    vectors = torch.zeros(count, SIDE**2, CLASSES)
    vectors[every, where, labels] = 4.0
    maps = torch.zeros(count, 1, SIDE, SIDE)
    maps.flatten(1)[every, where] = 1.0
    patch_maps = torch.zeros(count, SIDE**2, 1, SIDE, SIDE)
    atlas = Atlas(grid_places(SIDE), torch.zeros(count, CLASSES), maps, vectors, patch_maps, labels)
    torch.manual_seed(2)
    model = SimpleNamespace(
        policy=PatchPolicy(1, SIDE, hidden=32), classifier=Evidence(), design=SimpleNamespace(steps=STEPS)
    )
    return model, atlas, atlas.places[where]


def first_places(model: Any, atlas: Atlas) -> Tensor:
    with torch.no_grad():
        return model.policy.step(atlas.glance_maps)[0]


def test_the_policy_learns_to_look_where_the_class_shows() -> None:
    torch.set_num_threads(1)
    model, atlas, right = made_up()
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=0.01)
    before = (first_places(model, atlas) - right).norm(dim=1).mean()
    epochs = 60
    for epoch in range(epochs):
        _, accuracy = learn_epoch(model, optimizer, atlas, 32, spread_at(epoch / epochs), (0, epoch))
    after = (first_places(model, atlas) - right).norm(dim=1)
    assert before > 0.4
    assert after.mean() < 0.12
    assert accuracy[1] > 0.9  # at the first patch, with the narrow spread's noise


def test_a_narrow_spread_is_worth_what_the_nearest_place_is() -> None:
    model, atlas, _ = made_up(8)
    place = atlas.places[5]
    model.policy = FixedPolicy(place)
    gain, accuracy = expected_gain(model, atlas, torch.arange(8), 0.01, torch.Generator().manual_seed(0))
    shown = (atlas.patch_vectors[torch.arange(8), 5].max(1).values > 0).float()
    rise = math.exp(4.0) / (math.exp(4.0) + CLASSES - 1) - 1.0 / CLASSES
    # the same patch again adds nothing: one rise over STEPS - 1 looks
    assert gain.item() == pytest.approx(shown.mean().item() * rise / (STEPS - 1), abs=1e-6)
    assert len(accuracy) == STEPS


class FixedPolicy(torch.nn.Module):
    """Always the same place."""

    def __init__(self, place: Tensor) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(place.clone())

    def step(self, feature_map: Tensor, memory: Tensor | None = None) -> tuple[Tensor, None, None]:
        return self.place.expand(len(feature_map), 2), None, None


def test_the_gain_pulls_a_place_towards_the_class() -> None:
    model, atlas, right = made_up(1)
    model.policy = FixedPolicy(torch.tensor([0.4, 0.6]))
    gain, _ = expected_gain(model, atlas, torch.arange(1), 0.3, torch.Generator().manual_seed(0))
    gain.backward()
    towards = right[0] - model.policy.place.detach()
    assert torch.dot(model.policy.place.grad, towards) > 0


def test_the_spread_goes_from_wide_to_narrow() -> None:
    assert spread_at(0.0) == WIDE
    assert spread_at(1.0) == pytest.approx(NARROW)
    assert spread_at(0.5) == pytest.approx(math.sqrt(WIDE * NARROW))


@pytest.mark.parametrize("classifier", ["recurrent", "concatenating"])
def test_an_atlas_holds_what_the_encoders_say_of_each_patch(classifier: str) -> None:
    torch.manual_seed(0)
    design = Design(
        "mobilenet_v1", 12, STEPS, 24, classifier, classifier_hidden=8, policy_hidden=8,
        backbone_options={"width_mult": 0.125, "small_input": True},
    )  # fmt: skip
    model = GFNet(design, CLASSES).eval()
    pictures, glances = torch.randn(5, 3, 24, 24), torch.randn(5, 3, 12, 12)
    labels = torch.tensor([0, 1, 2, 3, 0])
    batches = [(glances[:3], pictures[:3], labels[:3]), (glances[3:], pictures[3:], labels[3:])]
    atlas = make_atlas(model, batches, SIDE)
    assert len(atlas) == 5
    assert atlas.labels.tolist() == labels.tolist()
    with torch.no_grad():
        vector, feature_map = model.focus(cut_patches(pictures, torch.tensor([1.0, 0.5]).expand(5, 2), 12))
        glance_vector, _ = model.glance(glances)
    assert torch.allclose(atlas.patch_vectors[:, 7].float(), vector, rtol=2e-3, atol=2e-3)
    assert torch.allclose(atlas.patch_maps[:, 7].float(), feature_map, rtol=2e-3, atol=2e-3)
    assert torch.allclose(atlas.glance_vectors.float(), glance_vector, rtol=2e-3, atol=2e-3)
    gain, accuracy = expected_gain(model, atlas, torch.arange(5), 0.2, torch.Generator().manual_seed(0))
    assert gain.requires_grad
    assert accuracy.shape == (STEPS,)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="grid_pictures"):
        make_atlas(SimpleNamespace(), [], SIDE)
