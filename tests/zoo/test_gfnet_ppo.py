"""Reinforcement of the patch policy: returns, the clip that acts only with several updates, and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from zoo.gfnet import Look
from zoo.gfnet_parts import PatchPolicy
from zoo.gfnet_ppo import (
    PpoSettings,
    SampledPlaces,
    discounted_returns,
    log_probability,
    policy_loss,
    rewards,
    update_policy,
)


def test_a_reward_is_the_rise_of_the_true_class() -> None:
    labels = torch.tensor([0, 1])
    answers = [torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.9, 0.1], [0.7, 0.3]])]
    looks = [Look(p.log(), p.log()) for p in answers]
    torch.testing.assert_close(rewards(looks, labels), torch.tensor([[0.4, -0.2]]))


def test_returns_add_what_follows_at_a_discount() -> None:
    found = discounted_returns(torch.tensor([[1.0], [2.0], [4.0]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[1 + 0.5 * (2 + 0.5 * 4)], [2 + 0.5 * 4], [4.0]]))


def test_the_probability_is_the_gaussians() -> None:
    action, mean = torch.rand(5, 2), torch.rand(5, 2)
    expected = torch.distributions.Normal(mean, 0.1).log_prob(action).sum(1)
    torch.testing.assert_close(log_probability(action, mean, 0.1), expected)


def rollout(policy: PatchPolicy, spread: float = 0.1, count: int = 64) -> SampledPlaces:
    sampled = SampledPlaces(policy, spread, torch.Generator().manual_seed(0))
    states = torch.Generator().manual_seed(1)
    for _ in range(2):
        place = sampled(torch.randn(count, 4, 2, 2, generator=states))
        assert float(place.min()) >= 0.0
        assert float(place.max()) <= 1.0
    return sampled


def updated(settings: PpoSettings) -> Tensor:
    torch.manual_seed(0)
    policy = PatchPolicy(4, 2, hidden=8)
    sampled = rollout(policy)
    rewarded = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
    update_policy(policy, torch.optim.Adam(policy.parameters(), lr=0.02), sampled, rewarded, settings)
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def test_with_one_update_the_clip_is_inert_as_in_the_published_settings() -> None:
    assert torch.equal(updated(PpoSettings(updates=1, clip=0.2)), updated(PpoSettings(updates=1, clip=1e-6)))


def test_with_several_updates_the_clip_acts() -> None:
    tight, wide = updated(PpoSettings(updates=4, clip=0.05)), updated(PpoSettings(updates=4, clip=0.99))
    assert float((tight - wide).abs().max()) > 1e-3


def test_the_gradient_is_zero_where_the_ratio_is_beyond_the_clip() -> None:
    torch.manual_seed(0)
    policy = PatchPolicy(4, 2, hidden=8)
    sampled = rollout(policy)
    sampled.log_probabilities = [p - 1.0 for p in sampled.log_probabilities]  # every ratio is now e, above 1.2
    settings = PpoSettings(value_weight=0.0)
    policy_loss(policy, sampled, torch.full((2, 64), 5.0), settings).backward()  # better than expected, but clipped
    assert all(not p.grad.any() for p in policy.actor.parameters())
    policy.zero_grad()
    policy_loss(policy, sampled, torch.full((2, 64), -5.0), settings).backward()  # worse: the clip must not hide it
    assert any(p.grad.any() for p in policy.actor.parameters())


@pytest.mark.parametrize("target", [0.2, 0.8])
def test_the_policy_moves_to_where_the_reward_is(target: float) -> None:
    torch.manual_seed(0)
    policy = PatchPolicy(4, 2, hidden=8)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    before = copy.deepcopy(policy)
    states = torch.randn(64, 4, 2, 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sampled = SampledPlaces(policy, 0.1, generator)
        places = sampled(states)
        rewarded = -(places - target).square().sum(1)[None]
        update_policy(policy, optimizer, sampled, rewarded, PpoSettings())
    with torch.no_grad():
        errors = [float((p(states)[0] - target).abs().mean()) for p in (before, policy)]
    assert errors[1] < 0.1
    assert errors[1] < 0.5 * errors[0]
