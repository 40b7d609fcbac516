"""Cutting patches and choosing them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.focus_patches import CentrePlaces, PolicyPlaces, RandomPlaces, SaliencyPlaces, cut_patches, sample_patches
from zoo.gfnet_parts import Encoder, PatchPolicy


def test_a_patch_lies_where_its_place_says() -> None:
    pictures = torch.arange(2 * 1 * 6 * 8).float().reshape(2, 1, 6, 8)
    found = cut_patches(pictures, torch.tensor([[0.0, 1.0], [1.0, 0.49]]), 4)
    assert torch.equal(found[0], pictures[0, :, 0:4, 4:8])
    assert torch.equal(found[1], pictures[1, :, 2:6, 1:5])  # 0.49 * 4 rounds down to 1


@pytest.mark.parametrize("corner", [(0, 0), (3, 1), (7, 11), (12, 12)])
def test_the_differentiable_patch_equals_the_cut_one_at_whole_pixels(corner: tuple[int, int]) -> None:
    pictures = torch.randn(2, 3, 20, 20)
    places = torch.tensor([corner, corner]).double().add(1e-9).div(12.0)
    torch.testing.assert_close(
        sample_patches(pictures, places.float(), 8), cut_patches(pictures, places, 8), rtol=1e-3, atol=1e-4
    )


def test_the_gradient_of_a_place_points_to_where_the_picture_gets_brighter() -> None:
    ramp = torch.linspace(0, 1, 20).expand(1, 1, 20, 20)  # brighter to the right
    places = torch.full((1, 2), 0.4, requires_grad=True)
    sample_patches(ramp, places, 8).mean().backward()
    assert places.grad[0, 1] > 0.1
    assert abs(float(places.grad[0, 0])) < 1e-4


def test_random_places_depend_on_the_generator_alone() -> None:
    state = torch.zeros(5, 2, 3, 3)
    draws = [RandomPlaces(torch.Generator().manual_seed(seed))(state) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].shape == (5, 2)


def test_the_centre_comes_first_and_no_place_twice() -> None:
    chooser, state = CentrePlaces(), torch.zeros(1, 2, 3, 3)
    places = [tuple(chooser(state)[0].tolist()) for _ in range(5)]
    assert places[0] == (0.5, 0.5)
    assert len(set(places)) == 5


@pytest.mark.parametrize("detach", [True, False])
def test_the_policy_may_be_kept_from_the_encoders(detach: bool) -> None:
    policy = PatchPolicy(2, 3, hidden=4)
    state = torch.randn(1, 2, 3, 3, requires_grad=True)
    PolicyPlaces(policy, detach)(state).sum().backward()
    assert (state.grad is None) == detach
    assert policy.actor.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_saliency_looks_first_where_the_best_class_is_seen_and_never_twice() -> None:
    torch.manual_seed(0)
    encoder = Encoder(zoo.create("mobilenet_v1", num_classes=3, width_mult=0.125, small_input=True)).eval()
    encoder.head.weight.copy_(F.pad(torch.eye(3), (0, encoder.vector_channels - 3)))  # class k reads channel k
    encoder.head.bias.zero_()
    state = torch.zeros(1, encoder.map_channels, 4, 4)
    state[0, 1, 3, 0] = 8.0  # most of all, class 1 at the bottom left
    state[0, 1, 0, 3] = 6.0
    state[0, 0, 1, 1] = 9.0  # another class shines brighter but once
    chooser = SaliencyPlaces(encoder, 64, 16)
    assert chooser(state)[0].tolist() == [1.0, 0.0]
    assert chooser(state)[0].tolist() == [0.0, 1.0]
    assert chooser(state)[0].tolist() not in ([1.0, 0.0], [0.0, 1.0])


@torch.no_grad()
def test_saliency_reads_the_last_map_whatever_map_the_policy_reads() -> None:
    torch.manual_seed(0)
    net = zoo.create("mobilenet_v1", num_classes=3, width_mult=0.125, small_input=True)
    coarse = Encoder(net).eval()
    glances = torch.randn(4, 3, 16, 16)
    expected = SaliencyPlaces(coarse, 64, 16)(coarse(glances)[1])
    fine = Encoder(copy.deepcopy(net), head=coarse.head, map_stride=2).eval()
    assert fine(glances)[1].shape != coarse(glances)[1].shape
    assert torch.equal(SaliencyPlaces(fine, 64, 16, glances)(fine(glances)[1]), expected)
