"""Learning where to look from every place at once: what each patch of a grid would gain, without sampling.

Reinforcement sees the reward of the one place that it tried; a differentiable patch sees how the loss changes by a
pixel. Both learn slowly. Here the networks are frozen, and every patch of a coarse grid of each picture is encoded once
(an `Atlas`). From then on a step costs the policy and the classifier alone, and the classifier says for all places how
much the true class's probability would rise. The policy's place spreads to the places of the grid by a Gaussian, and
the expected rise has an exact gradient. The Gaussian begins wide, so that far places are felt, and becomes narrow.

Ours; the reward is GFNet's (arXiv:2010.05300). Each look is judged by its own rise alone: the worth of later looks
does not reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.focus_patches import cut_patches
from zoo.gfnet import GFNet

WIDE, NARROW = 0.3, 0.1
"""Standard deviation of the Gaussian in the first and in the last epoch; places are 0-1."""


@dataclass(frozen=True)
class Atlas:
    """What frozen encoders say of pictures and of every patch of a grid; float16 on the CPU."""

    places: Tensor
    """(P, 2) float32: the grid, row by row."""
    glance_vectors: Tensor
    """(N, V)"""
    glance_maps: Tensor
    """(N, C, h, w)"""
    patch_vectors: Tensor
    """(N, P, V)"""
    patch_maps: Tensor
    """(N, P, C, h, w)"""
    labels: Tensor
    """(N,) int64"""

    def __len__(self) -> int:
        return len(self.labels)


def grid_places(side: int) -> Tensor:
    """`side` x `side` places from edge to edge, (side ** 2, 2) float32."""
    axis = torch.linspace(0.0, 1.0, side)
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def make_atlas(model: GFNet, batches: Iterable[tuple[Tensor, Tensor, Tensor]], side: int) -> Atlas:
    """Encode pictures and their patches.

    Args:
        model: in eval mode.
        batches: glances (N, 3, patch, patch), pictures (N, 3, S, S) and labels (N,).
        side: places of the grid in a row.
    Raises:
        ValueError: there is no batch.
    """
    places = grid_places(side)
    rows: list[tuple[Tensor, ...]] = []
    for glances, pictures, labels in batches:
        vectors, maps = [], []
        for place in places:
            patches = cut_patches(pictures, place.expand(len(pictures), 2), model.design.patch)
            vector, feature_map = model.focus(patches)
            vectors.append(vector.half().cpu())
            maps.append(feature_map.half().cpu())
        vector, feature_map = model.glance(glances)
        rows.append((vector.half().cpu(), feature_map.half().cpu().contiguous(), torch.stack(vectors, 1),
                     torch.stack(maps, 1), labels.cpu()))  # fmt: skip
    if not rows:
        raise ValueError("policy: no pictures to learn from; give grid_pictures at least one batch")
    return Atlas(places, *(torch.cat(parts) for parts in zip(*rows, strict=True)))


def spread_at(share: float) -> float:
    """Standard deviation after this share (0-1) of the training, from WIDE to NARROW in equal ratios."""
    return WIDE * (NARROW / WIDE) ** share


def expected_gain(
    model: GFNet, atlas: Atlas, rows: Tensor, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the policy's patches gain in expectation, look by look; the next look follows a place that is drawn.

    Args:
        rows: (B,) int64, pictures of the atlas.
        spread: standard deviation of the Gaussian around the policy's place.
        generator: of the draws, on the CPU.
    Returns:
        gain, a scalar with the policy's gradient: the mean rise of the true class's probability by a look; and the
        accuracy after each look (steps,), of the drawn places.
    """
    device = next(model.policy.parameters()).device
    labels, places = atlas.labels[rows].to(device), atlas.places.to(device)
    vector = atlas.glance_vectors[rows].to(device).float()
    feature_map = atlas.glance_maps[rows].to(device).float()
    vectors, maps = atlas.patch_vectors[rows].to(device).float(), atlas.patch_maps[rows]
    every = torch.arange(len(rows))
    with torch.no_grad():
        answer, memory = model.classifier.step(vector)
        answer = model.glance.own_logits(vector) if answer is None else answer
    right = _probability(answer, labels)
    accuracy, gains = [_accuracy(answer, labels)], []
    policy_memory = None
    for _ in range(1, model.design.steps):
        place, _, policy_memory = model.policy.step(feature_map, policy_memory)
        with torch.no_grad():
            answers, memories = _classify_all(model, vectors, memory)
            rises = _probability(answers, labels[:, None].expand(answers.shape[:2])) - right[:, None]
        distance = (place[:, None, :] - places).square().sum(2)
        weights = torch.softmax(-0.5 * distance / spread**2, 1)
        gains.append((weights * rises).sum(1).mean())
        chosen = torch.multinomial(weights.detach().cpu(), 1, generator=generator).squeeze(1)
        feature_map = maps[every, chosen].to(device).float()
        memory, answer = memories[every, chosen], answers[every, chosen]
        right = _probability(answer, labels)
        accuracy.append(_accuracy(answer, labels))
    return torch.stack(gains).mean(), torch.stack(accuracy)


def _classify_all(model: GFNet, vectors: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, P, classes) and memories (B, P, M) after each patch of the grid."""
    count, places = vectors.shape[:2]
    answers, memories = model.classifier.step(vectors.flatten(0, 1), memory.repeat_interleave(places, 0))
    return answers.view(count, places, -1), memories.view(count, places, -1)


def _probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the true class; one dimension less than the logits."""
    return logits.float().softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean().cpu()


def learn_epoch(
    model: GFNet, optimizer: torch.optim.Optimizer, atlas: Atlas, batch_size: int, spread: float,
    seed: Sequence[int], share: Callable[[], object] = lambda: None,
) -> tuple[float, list[float]]:  # fmt: skip
    """One pass of the policy over the atlas.

    Args:
        seed: of the order and the draws.
        share: called between backward and step, where processes average their gradients.
    Returns:
        the mean expected gain, and the mean accuracy after each look.
    """
    draw = np.random.default_rng(list(seed))
    generator = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
    order = torch.from_numpy(draw.permutation(len(atlas)))
    steps = math.ceil(len(atlas) / batch_size)
    total = torch.zeros(1 + model.design.steps)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        rows = order[step * batch_size : (step + 1) * batch_size]
        gain, accuracy = expected_gain(model, atlas, rows, spread, generator)
        (-gain).backward()
        share()
        optimizer.step()
        total += torch.cat([gain.detach().cpu()[None], accuracy])
    gain, *accuracy = (total / steps).tolist()
    return gain, accuracy
