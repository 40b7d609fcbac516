"""Learning where to look by reinforcement: proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347).

GFNet (arXiv:2010.05300) rewards a patch by the rise of the true class's probability. Its published settings make one
update for each batch (K = 1). The policy that is updated is then the one that acted, every ratio of probabilities is
exactly 1, and the clip to 0.8-1.2 can never act: what runs is plain advantage actor-critic. `updates = 1` reproduces
that. With more updates the ratio moves away from 1 and the clip does what it is for; the default is 4.

Two more differences from the published code. It takes the probability of an action after clipping the action to the
picture, which a Gaussian does not give; here the unclipped action keeps its probability and only the patch is clipped.
And its entropy bonus is left out: the spread is fixed, so the entropy is a constant that has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.gfnet import Look
from zoo.gfnet_parts import PatchPolicy


@dataclass(frozen=True)
class PpoSettings:
    """Constants of the reinforcement; defaults are GFNet's but for `updates`."""

    updates: int = 4
    """Steps of the optimiser on each batch of looks."""
    clip: float = 0.2
    """The ratio of probabilities counts within 1 - clip and 1 + clip."""
    spread: float = 0.1
    """Standard deviation of a sampled place."""
    discount: float = 0.7
    """Worth of the next look's reward."""
    value_weight: float = 0.5


@dataclass
class SampledPlaces:
    """Chooser that draws places around the policy's mean and keeps what the update needs."""

    policy: PatchPolicy
    spread: float
    generator: torch.Generator
    states: list[Tensor] = field(default_factory=list)
    """Feature maps, detached."""
    actions: list[Tensor] = field(default_factory=list)
    """(N, 2) before they are clipped to the picture."""
    log_probabilities: list[Tensor] = field(default_factory=list)
    """(N,) of each action when it was drawn."""
    _memory: Tensor | None = None

    @torch.no_grad()
    def __call__(self, feature_map: Tensor) -> Tensor:
        mean, _, self._memory = self.policy.step(feature_map, self._memory)
        noise = torch.randn(mean.shape, generator=self.generator).to(mean.device)
        action = mean + self.spread * noise
        self.states.append(feature_map.detach())
        self.actions.append(action)
        self.log_probabilities.append(log_probability(action, mean, self.spread))
        return action.clamp(0.0, 1.0)


def log_probability(action: Tensor, mean: Tensor, spread: float) -> Tensor:
    """Of actions (N, 2) under independent Gaussians; (N,)."""
    constant = math.log(spread) + 0.5 * math.log(2.0 * math.pi)
    return (-0.5 * ((action - mean) / spread).square() - constant).sum(1)


@torch.no_grad()
def rewards(looks: Sequence[Look], labels: Tensor) -> Tensor:
    """Rise of the true class's probability by each patch, (patches, N)."""
    right = torch.stack([look.logits.float().softmax(1).gather(1, labels[:, None]).squeeze(1) for look in looks])
    return right[1:] - right[:-1]


def discounted_returns(rewarded: Tensor, discount: float) -> Tensor:
    """What each patch and those after it gain, (patches, N): G_t = r_t + discount * G_(t+1)."""
    gained, following = [], torch.zeros_like(rewarded[0])
    for reward in rewarded.flip(0):
        following = reward + discount * following
        gained.append(following)
    return torch.stack(gained[::-1])


def policy_loss(policy: PatchPolicy, sampled: SampledPlaces, returns: Tensor, settings: PpoSettings) -> Tensor:
    """The clipped objective and the critic's error, for the policy as it is now.

    Args:
        sampled: what the policy did, when it was as it was then.
        returns: (patches, N), standardised over the batch.
    """
    memory, total = None, torch.zeros((), device=returns.device)
    for state, action, before, gained in zip(
        sampled.states, sampled.actions, sampled.log_probabilities, returns, strict=True
    ):
        mean, value, memory = policy.step(state, memory)
        value = value.squeeze(1)
        ratio = (log_probability(action, mean, settings.spread) - before).exp()
        advantage = gained - value.detach()
        bounded = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
        total = total - torch.minimum(ratio * advantage, bounded * advantage).mean()
        total = total + settings.value_weight * (value - gained).square().mean()
    return total / len(returns)


def update_policy(
    policy: PatchPolicy,
    optimizer: torch.optim.Optimizer,
    sampled: SampledPlaces,
    rewarded: Tensor,
    settings: PpoSettings,
    share: Callable[[], object] = lambda: None,
) -> float:
    """Update the policy from one batch of looks.

    Args:
        rewarded: (patches, N), from `rewards`.
        share: called between backward and step, where processes average their gradients.
    Returns:
        the loss of the last update.
    """
    returns = discounted_returns(rewarded, settings.discount)
    returns = (returns - returns.mean()) / (returns.std() + 1e-5)
    loss = torch.zeros(())
    for _ in range(settings.updates):
        optimizer.zero_grad(set_to_none=True)
        loss = policy_loss(policy, sampled, returns, settings)
        loss.backward()
        share()
        optimizer.step()
    return float(loss.detach())
