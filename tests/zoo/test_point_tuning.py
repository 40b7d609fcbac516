"""Norms that are tuned for one operating point, and how they become statistics."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.calibrate import calibrate
from zoo.checkpoint import load_checkpoint
from zoo.madds import count_madds
from zoo.models import create
from zoo.pictures import PictureSource, Split
from zoo.point_tuning import (
    TunedNorm,
    learned_statistics,
    shared_out,
    tunable,
    tune_bank,
    tune_points,
)
from zoo.processes import Processes
from zoo.quantization_aware import round_weight, round_weights
from zoo.recipe import Recipe, RecipeError
from zoo.refit import tune_checkpoint
from zoo.slim_layers import SlimConv
from zoo.slim_net import SlimNet, materialise
from zoo.strangers import Strangers
from zoo.train import train

RECIPE = Recipe(
    model_options={"width_mult": 0.25, "small_input": True},
    widths=(0.25, 1.0),
    resolutions=(16, 12),
    epochs=1,
    batch_size=12,
    learning_rate=0.05,
    calib_pictures=3,
    select_pictures=6,
    norm_pictures=30,
    point_epochs=3,
    point_batch_size=13,
    point_learning_rate=0.05,
)
POINTS = RECIPE.points()


class KilledError(Exception):
    """The process is killed here."""


@pytest.fixture(scope="module")
def trained(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = dataclasses.replace(RECIPE, point_epochs=0, epochs=4)
    return train(recipe, source, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def model(trained: Path) -> SlimNet:
    return load_checkpoint(trained).build()


def filled_norm(channels: int = 6) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=draw))
        norm.bias.copy_(torch.randn(channels, generator=draw))
        norm.running_mean.copy_(torch.randn(channels, generator=draw))
        norm.running_var.copy_(torch.rand(channels, generator=draw) * 4 + 0.1)
    assert norm.weight.min() < 0 < norm.weight.max()
    return norm


def with_statistics(norm: nn.BatchNorm2d, stats: tuple[Tensor, Tensor]) -> nn.BatchNorm2d:
    other = copy.deepcopy(norm)
    other.running_mean.copy_(stats[0])
    other.running_var.copy_(stats[1])
    return other


def test_a_norm_that_learned_nothing_is_the_norm_it_was() -> None:
    norm, x = filled_norm(), torch.randn(3, 6, 4, 5)
    tuned = TunedNorm(norm)
    torch.testing.assert_close(tuned(x), norm(x))
    for found, was in zip(tuned.statistics(), (norm.running_mean, norm.running_var), strict=True):
        torch.testing.assert_close(found, was)


def test_learned_scale_and_shift_are_statistics_beside_the_shared_affine_pair() -> None:
    norm, x = filled_norm(), torch.randn(3, 6, 4, 5)
    tuned = TunedNorm(norm)
    with torch.no_grad():
        tuned.log_scale.copy_(torch.linspace(-1.0, 0.9, 6))
        tuned.offset.copy_(torch.linspace(2.0, -2.0, 6))
    assert not torch.allclose(tuned(x), norm(x))
    torch.testing.assert_close(with_statistics(norm, tuned.statistics())(x), tuned(x), rtol=1e-4, atol=1e-4)


def test_a_scale_never_grows_beyond_what_a_variance_can_say() -> None:
    norm, x = filled_norm(), torch.randn(3, 6, 4, 5)
    tuned = TunedNorm(norm)
    with torch.no_grad():
        tuned.log_scale.fill_(50.0)
    mean, variance = tuned.statistics()
    assert (variance >= 0.0).all()
    assert torch.isfinite(mean).all()
    expected = tuned(x).detach()
    found = with_statistics(norm, (mean, variance))(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_only_norms_can_be_learned(model: SlimNet) -> None:
    net = tunable(model, (0.25, 12))
    learned = {name for name, p in net.named_parameters() if p.requires_grad}
    norms = [name for name, module in net.named_modules() if isinstance(module, TunedNorm)]
    assert learned == {f"{name}.{key}" for name in norms for key in ("log_scale", "offset")}
    assert set(norms) == set(model.norm_bank.entries[model.point_key(0.25, 12)])


def test_a_network_without_batch_norms_is_refused() -> None:
    network = create("hornet_tiny_7x7", num_classes=3, small_input=True, depths=(1, 1, 1, 1))
    with pytest.raises(RecipeError, match="point_epochs needs a network with batch norms"):
        tunable(network, (1.0, 32))


def loss_of(model: SlimNet, source: PictureSource, point: tuple[float, int]) -> float:
    from zoo.evaluate import picture_logits

    split = source.splits(RECIPE.calib_pictures, RECIPE.select_pictures)["train"]
    plain = materialise(model, width=point[0], resolution=point[1])
    logits = picture_logits(plain, source, split.names, point[1], RECIPE.mean, RECIPE.std)
    return float(nn.functional.cross_entropy(logits, torch.from_numpy(split.labels)))


def test_tuning_lowers_the_loss_and_leaves_the_weights(model: SlimNet, source: PictureSource, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, point_epochs=16, point_augmentation="none")
    before = {point: loss_of(model, source, point) for point in POINTS}
    weights = {name: p.clone() for name, p in model.named_parameters()}
    found = tune_points(model, recipe, source, POINTS, tmp_path)
    assert list(found) == POINTS
    for point in POINTS:
        model.norm_bank.entries[model.point_key(*point)] = found[point]
        assert loss_of(model, source, point) < 0.95 * before[point], point
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, weights[name], rtol=0, atol=0)


@pytest.mark.parametrize("killed_at", [1, 4, 9])
def test_a_killed_run_goes_on_to_the_same_statistics(
    model: SlimNet, source: PictureSource, tmp_path: Path, killed_at: int
) -> None:
    points = POINTS[1:3]
    whole = tune_points(model, RECIPE, source, points, tmp_path / "whole", progress=lambda event: None)

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["done"] == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        tune_points(model, RECIPE, source, points, tmp_path / "killed", progress=kill, checkpoint_every_s=0.0)
    done: list[int] = []
    again = tune_points(
        model, RECIPE, source, points, tmp_path / "killed",
        progress=lambda event: done.append(event["done"]) if event["event"] == "step" else None,
    )  # fmt: skip
    assert min(done) == killed_at  # the killed step was not saved
    for point in points:
        for name, stats in whole[point].items():
            torch.testing.assert_close(again[point][name], stats, rtol=0, atol=0)


def test_state_of_another_run_is_refused(model: SlimNet, source: PictureSource, tmp_path: Path) -> None:
    tune_points(model, RECIPE, source, POINTS[:1], tmp_path)
    other = dataclasses.replace(RECIPE, point_learning_rate=0.5)
    with pytest.raises(RecipeError, match=r"points-0\.pt: belongs to another run; choose another --out or remove it"):
        tune_points(model, other, source, POINTS[:1], tmp_path)
    with pytest.raises(RecipeError, match="belongs to another run"):
        tune_points(model, RECIPE, source, POINTS[:2], tmp_path)
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)  # another network
    with pytest.raises(RecipeError, match="belongs to another run"):
        tune_points(model, RECIPE, source, POINTS[:1], tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_processes_share_the_points_out(model: SlimNet, count: int) -> None:
    shares = [shared_out(model, POINTS, Processes(rank, count)) for rank in range(count)]
    assert sorted(point for share in shares for point in share) == sorted(POINTS)
    costs = {(w, r): count_madds(materialise(model, width=w, resolution=r), (1, 3, r, r)) for w, r in POINTS}
    loads = [sum(costs[point] for point in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs.values())


def test_a_point_that_is_worse_on_select_keeps_its_statistics(
    model: SlimNet, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {key: dict(entry) for key, entry in model.norm_bank.entries.items()}

    def spoiled(*args: Any, **options: Any) -> Any:
        found = tune_points(*args, **options)
        for name, (mean, variance) in found[POINTS[0]].items():
            found[POINTS[0]][name] = (mean + 1e3, variance)
        return found

    scores = {point: iter((0.5, 0.4 if point == POINTS[0] else 0.5)) for point in POINTS}
    monkeypatch.setattr("zoo.point_tuning.tune_points", spoiled)
    monkeypatch.setattr(
        "zoo.point_tuning.evaluate_points",
        lambda net, pictures, splits, points, *args: [{"select_accuracy": next(scores[p])} for p in points],
    )
    rows = tune_bank(model, RECIPE, source, tmp_path)
    assert [(row["width"], row["resolution"]) for row in rows] == POINTS
    assert [row["taken"] for row in rows] == [point != POINTS[0] for point in POINTS]
    assert (rows[0]["select_before"], rows[0]["select_tuned"]) == (0.5, 0.4)
    for point in POINTS:
        key = model.point_key(*point)
        same = all(torch.equal(before[key][name][0], stats[0]) for name, stats in model.norm_bank.entries[key].items())
        assert same == (point == POINTS[0])


def test_strangers_join_the_batches(
    model: SlimNet, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=3, point_epochs=1)
    seen: list[np.ndarray] = []
    from zoo import point_tuning

    real = point_tuning.labelled_loss

    def watched(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels.numpy().copy())
        return real(logits, labels)

    monkeypatch.setattr(point_tuning, "labelled_loss", watched)
    tune_points(model, recipe, source, POINTS[:1], tmp_path, strangers=Strangers(source))
    assert [int((labels == -1).sum()) for labels in seen] == [3, 3, 3]  # 3 of 12 in training, here of 13
    assert {len(labels) for labels in seen} == {16}


def test_the_command_and_a_recipe_give_the_same_network(source: PictureSource, tmp_path: Path) -> None:
    at_once = load_checkpoint(train(RECIPE, source, tmp_path / "once"))
    before = train(dataclasses.replace(RECIPE, point_epochs=0), source, tmp_path / "before")
    after = load_checkpoint(tune_checkpoint(before, source, tmp_path / "after", RECIPE.point_epochs))
    assert after.recipe == at_once.recipe
    assert after.accuracy == at_once.accuracy
    bank, same = at_once.build().norm_bank.entries, after.build().norm_bank.entries
    changed = load_checkpoint(before).build().norm_bank.entries
    assert any(not torch.equal(bank[k][n][0], changed[k][n][0]) for k in bank for n in bank[k])
    for key, entry in bank.items():
        for name, stats in entry.items():
            torch.testing.assert_close(same[key][name], stats, rtol=0, atol=0)


def test_statistics_on_the_bank_are_those_of_the_tuned_network(model: SlimNet, source: PictureSource) -> None:
    split = source.splits(3, 6)["train"]
    calibrate(model, source, Split(split.names[:9], split.labels[:9]), POINTS, RECIPE.mean, RECIPE.std)
    net, x = tunable(model, (0.25, 12)), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        model.norm_bank.entries[model.point_key(0.25, 12)] = learned_statistics(net)
        torch.testing.assert_close(model(x, 0.25), net(x), rtol=1e-3, atol=1e-3)


def test_with_rounding_the_weights_are_rounded_for_good_and_every_point_is_judged_with_them(
    source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        RECIPE, point_rounding=True, quantization_largest=3, point_epochs=1, point_augmentation="none"
    )
    before = train(dataclasses.replace(recipe, point_epochs=0), source, tmp_path / "before")
    judged: list[bool] = []
    from zoo import point_tuning

    real = point_tuning.evaluate_points

    def watched(model: SlimNet, *rest: Any) -> Any:
        judged.append(is_rounded(model))
        return real(model, *rest)

    def is_rounded(model: SlimNet) -> bool:
        layers = [module for module in model.modules() if isinstance(module, SlimConv)]
        return all(torch.equal(layer.weight, round_weight(layer.weight, 3)) for layer in layers)

    monkeypatch.setattr(point_tuning, "evaluate_points", watched)
    tuned = load_checkpoint(tune_checkpoint(before, source, tmp_path / "after", 1)).build()
    started = load_checkpoint(before).build()
    assert judged == [True, True]
    assert is_rounded(tuned)
    assert not is_rounded(started)
    for (name, after), weight in zip(tuned.named_parameters(), started.parameters(), strict=True):
        step = weight.flatten(1).abs().amax(1).max() / 3 if weight.dim() == 4 else 0.0
        assert (after - weight).abs().max() <= 0.5 * step + 1e-6, name


def test_the_norms_make_up_for_coarse_integers(source: PictureSource, tmp_path: Path) -> None:
    """3 levels to either side of zero: what was tuned beside them is better than a calibration."""
    recipe = dataclasses.replace(
        RECIPE, point_rounding=True, quantization_largest=3, point_epochs=8, point_augmentation="none"
    )
    before = train(dataclasses.replace(recipe, point_epochs=0), source, tmp_path / "before")
    model, point = load_checkpoint(before).build(), (1.0, 12)
    round_weights(model, 3)
    split = source.splits(recipe.calib_pictures, recipe.select_pictures)["train"]
    calibrate(model, source, Split(split.names[:9], split.labels[:9]), POINTS, recipe.mean, recipe.std)
    calibrated = loss_of(model, source, point)
    model.norm_bank.entries[model.point_key(*point)] = tune_points(model, recipe, source, [point], tmp_path / "t")[
        point
    ]
    assert loss_of(model, source, point) < 0.9 * calibrated
