"""Train and search the paths of a supernet: sampled paths share each step, then evolution finds one without training.

Single Path One-Shot (Guo et al. 2019, arXiv:1904.00420) trains one uniformly drawn path a step. RSBNet (Peng et al.
2021, arXiv:2112.03456) names an "ensemble single-path" strategy in its abstract and explains no more; here a step
averages the gradients of several drawn paths, which is **our reading**. The evolution is that of Single Path One-Shot:
what it evaluates are paths with statistics measured anew, since those of training describe a mixture of all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zoo.madds import count_madds
from zoo.rsbnet import CHOICES, LAYERS, STAGE_CHANNELS, STAGE_DEPTHS, STEM_CHANNELS, Path, RSBNet, chosen_network

DRAWS = 50
"""Tries for each new path that is wanted."""


@dataclass(frozen=True)
class Evolution:
    """How a search goes on; the defaults are those of Single Path One-Shot."""

    population: int = 50
    kept: int = 10
    """The best paths so far, of which the next are made."""
    mutations: int = 25
    crossovers: int = 25
    change: float = 0.1
    """Probability that a mutation draws a layer's choice anew."""
    rounds: int = 20

    def __post_init__(self) -> None:
        if min(self.population, self.kept, self.rounds) < 1 or min(self.mutations, self.crossovers) < 0:
            raise ValueError("evolution: population, kept and rounds are 1 or more, mutations and crossovers 0 or more")
        if self.kept > self.population:
            raise ValueError(f"evolution: kept is {self.kept}, expected at most the population, {self.population}")
        if not 0.0 < self.change <= 1.0:
            raise ValueError(f"evolution: change is {self.change}, expected more than 0 and at most 1")


@dataclass(frozen=True)
class Found:
    """A path and what it is worth."""

    path: Path
    score: float


@dataclass(frozen=True)
class PathCosts:
    """Multiply-adds of every choice, so that a path's are a sum."""

    fixed: int
    """Stem and head."""
    choices: tuple[tuple[int, ...], ...]
    """For each layer, of each choice."""

    def of(self, path: Path) -> int:
        """Multiply-adds of one picture along a path."""
        return self.fixed + sum(costs[choice] for costs, choice in zip(self.choices, path, strict=True))


def path_costs(model: RSBNet, side: int) -> PathCosts:
    """Count every choice once.

    Args:
        model: not run; with the head of its task.
        side: of the pictures, in pixels.
    """
    blank = copy.deepcopy(model).to("meta").eval()  # shapes without numbers: nothing is computed
    counts, channels = [], STEM_CHANNELS
    side_px = (side + 1) // 2
    for layer, forms in enumerate(blank.layers):
        counts.append(tuple(count_madds(form, (1, channels, side_px, side_px)) for form in forms))
        stage = next(i for i in range(len(STAGE_DEPTHS)) if layer < sum(STAGE_DEPTHS[: i + 1]))
        channels = STAGE_CHANNELS[stage]
        if forms[0].stride == 2:
            side_px = (side_px + 1) // 2
    first = (0,) * LAYERS
    whole = count_madds(chosen_network(blank, first), (1, 3, side, side))
    return PathCosts(whole - sum(costs[0] for costs in counts), tuple(counts))


def draw_path(draw: np.random.Generator) -> Path:
    """A path in which every choice of every layer is equally likely."""
    return tuple(int(choice) for choice in draw.integers(0, len(CHOICES), LAYERS))


def accumulate_path_gradients(
    model: RSBNet, pictures: Tensor, loss_of: Callable[[Tensor | list[Tensor]], Tensor], paths: Sequence[Path]
) -> float:
    """One training step's gradients: the mean over the paths.

    Args:
        model: in training mode; gradients are added to what is there.
        pictures: (N, 3, H, W) float, normalised.
        loss_of: the head's output -> a scalar.
        paths: drawn for this step.
    Returns:
        the mean loss.
    Raises:
        ValueError: there is no path.
    """
    if not paths:
        raise ValueError("accumulate_path_gradients: no paths; draw at least one a step")
    total = 0.0
    for path in paths:
        loss = loss_of(model(pictures, path)) / len(paths)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


@torch.no_grad()
def measure_statistics(model: RSBNet, path: Path, batches: Iterable[Tensor]) -> None:
    """Give the norms of a path the statistics of these pictures, each batch counted by its size; ends in eval mode.

    Args:
        batches: (N, 3, H, W) float, normalised.
    Raises:
        ValueError: there is no batch.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    seen = 0
    model.train()
    try:
        for batch in batches:
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # a running mean over all pictures so far
            model(batch, path)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        model.eval()
    if seen == 0:
        raise ValueError("measure_statistics: no pictures; give at least one batch")


def evolve(
    score_of: Callable[[Path], float], fits: Callable[[Path], bool], draw: np.random.Generator,
    evolution: Evolution | None = None,
) -> list[Found]:  # fmt: skip
    """Search the paths that fit a limit.

    Args:
        score_of: what a path is worth, the more the better (accuracy on held-out pictures); called once a path.
        fits: whether a path keeps the limit, for example on multiply-adds or measured latency.
        draw: decides every draw, so that a search can be repeated.
        evolution: sizes and probabilities.
    Returns:
        the best paths, best first, at most `evolution.kept`.
    Raises:
        ValueError: after many draws no path fits the limit.
    """
    plan = evolution or Evolution()
    scores: dict[Path, float] = {}
    generation = _new_paths(lambda: draw_path(draw), plan.population, fits, scores)
    if not generation:
        raise ValueError(f"evolve: none of {plan.population * DRAWS} random paths keeps the limit; raise it")
    for _ in range(plan.rounds):
        scores.update((path, score_of(path)) for path in generation)
        parents = [found.path for found in _best(scores, plan.kept)]
        generation = _next_generation(parents, plan, fits, scores, draw)
    scores.update((path, score_of(path)) for path in generation)
    return _best(scores, plan.kept)


def _best(scores: dict[Path, float], count: int) -> list[Found]:
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Found(path, score) for path, score in ordered[:count]]


def _next_generation(
    parents: list[Path], plan: Evolution, fits: Callable[[Path], bool], known: Iterable[Path], draw: np.random.Generator
) -> list[Path]:
    """Mutations and crossovers of the parents, filled up with random paths; none is known."""
    made: dict[Path, None] = dict.fromkeys(known)
    before = len(made)
    ways = (
        (plan.mutations, lambda: _mutated(parents, plan.change, draw)),
        (plan.crossovers, lambda: _crossed(parents, draw)),
    )
    for wanted, make in ways:
        made |= dict.fromkeys(_new_paths(make, wanted, fits, made))
    missing = plan.population - (len(made) - before)
    made |= dict.fromkeys(_new_paths(lambda: draw_path(draw), missing, fits, made))
    return list(made)[before:]


def _new_paths(
    make: Callable[[], Path], wanted: int, fits: Callable[[Path], bool], known: Container[Path]
) -> list[Path]:
    """Up to `wanted` paths that keep the limit and are not known; fewer where none are found."""
    found: dict[Path, None] = {}
    for _ in range(max(wanted, 0) * DRAWS):
        if len(found) >= wanted:
            break
        path = make()
        if path not in known and path not in found and fits(path):
            found[path] = None
    return list(found)


def _mutated(parents: list[Path], change: float, draw: np.random.Generator) -> Path:
    parent = parents[int(draw.integers(len(parents)))]
    anew = draw.random(LAYERS) < change
    return tuple(new if renewed else old for old, new, renewed in zip(parent, draw_path(draw), anew, strict=True))


def _crossed(parents: list[Path], draw: np.random.Generator) -> Path:
    one, other = (parents[int(i)] for i in draw.integers(0, len(parents), 2))
    return tuple(a if first else b for a, b, first in zip(one, other, draw.random(LAYERS) < 0.5, strict=True))
