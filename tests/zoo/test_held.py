"""A narrow subnet that stays while wider channels train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_systems import SIDE, SYSTEMS, Small, build, calibrated
from torch import Tensor

import zoo
from zoo.checkpoint import Checkpoint, load_checkpoint
from zoo.held import HeldSubnet, read_parameters
from zoo.pictures import PictureSource
from zoo.recipe import Recipe, RecipeError
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimError
from zoo.slim_net import materialise
from zoo.train import train

BASE: dict[str, Any] = {
    "model": "mobilenet_v2", "model_options": {"width_mult": 0.25, "small_input": True}, "widths": (0.25, 0.5, 1.0),
    "resolutions": (16, 12), "epochs": 1, "batch_size": 12, "learning_rate": 0.05, "weight_decay": 0.1,
    "random_widths": 1, "calib_pictures": 3, "select_pictures": 6, "norm_pictures": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkpoint to start from."""
    return train(Recipe(**BASE), source, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("small", SYSTEMS, ids=lambda small: small.name)
@torch.no_grad()
def test_what_a_width_does_not_read_cannot_change_it(small: Small) -> None:
    model = build(small).train()
    read = read_parameters(model, small.narrow)
    assert {name: mask.shape for name, mask in read.items()} == {n: p.shape for n, p in model.named_parameters()}
    plain = materialise(model, width=small.narrow)
    assert sum(int(mask.sum()) for mask in read.values()) == sum(value.numel() for value in plain.parameters())
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    before, wide = model(pictures, small.narrow), model(pictures, 1.0)
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.where(read[name], parameter, parameter + torch.rand_like(parameter)))
    torch.manual_seed(1)  # for layers that drop at random
    assert torch.equal(model(pictures, small.narrow), before)
    assert not torch.equal(model(pictures, 1.0), wide)


def test_held_values_outlast_a_step_with_momentum_and_decay() -> None:
    model = build(SYSTEMS[0]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    pictures = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    model(pictures, 1.0).square().sum().backward()
    optimizer.step()  # leaves momentum for every entry
    held, read = HeldSubnet(model, 0.5), read_parameters(model, 0.5)
    norms = {f"{name}.{key}" for name in held.norms for key in ("weight", "bias")}
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer.zero_grad()
    model(pictures, 1.0).square().sum().backward()
    held.mask_gradients()
    weights = [(name, parameter) for name, parameter in model.named_parameters() if name not in norms]
    assert all(not parameter.grad[read[name]].any() for name, parameter in weights)
    optimizer.step()
    held.restore()
    for name, parameter in weights:
        assert torch.equal(parameter[read[name]], before[name][read[name]]), name
    for name, parameter in model.named_parameters():
        assert name in norms or read[name].all() or not torch.equal(parameter, before[name]), name
    assert all(not torch.equal(dict(model.named_parameters())[name], before[name]) for name in norms)


@torch.no_grad()
def test_norms_of_the_wide_widths_can_be_written_as_statistics_beside_those_of_the_held_one() -> None:
    small = SYSTEMS[0]
    model = calibrated(small, (0.5, 1.0))
    held = HeldSubnet(model, 0.5)
    pictures = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    narrow = model(pictures, 0.5)
    for norm in (m for m in model.modules() if isinstance(m, SlimBatchNorm)):  # as if they had been trained
        norm.weight.mul_(torch.empty_like(norm.weight).uniform_(0.5, 2.0))
        norm.bias.add_(torch.empty_like(norm.bias).uniform_(-0.3, 0.3))
    wide = model(pictures, 1.0)
    narrow_entry = model.norm_bank.entries.pop(model.point_key(0.5, SIDE))
    held.return_norms(model)
    model.norm_bank.entries[model.point_key(0.5, SIDE)] = narrow_entry
    assert torch.equal(model(pictures, 0.5), narrow)
    torch.testing.assert_close(model(pictures, 1.0), wide, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_scale_keeps_its_sign_and_one_that_is_zero_stays_zero() -> None:
    model = build(SYSTEMS[0])
    norm = model.stem[1]
    norm.weight[:4] = torch.tensor([0.5, -0.5, 0.5, 0.0])
    norm.bias[3] = 0.25
    held = HeldSubnet(model, 0.5)
    norm.weight[:4] = torch.tensor([-0.1, 0.1, 0.001, 0.3])
    norm.bias[3] = 0.75
    held.restore()
    assert norm.weight[:4].tolist() == pytest.approx([0.005, -0.005, 0.005, 0.0])
    assert float(norm.bias[3]) == 0.25


def test_a_layer_that_computes_its_weights_is_refused_by_name() -> None:
    class Halved(SlimConv):
        def active_parameters(self, width: float) -> tuple[Tensor, Tensor | None]:
            weight, bias = super().active_parameters(width)
            return weight / 2.0, bias

    model = build(SYSTEMS[0])
    model.stem[0] = Halved(3, Channels(8), 3)
    with pytest.raises(SlimError, match=r"^stem\.0: computes its weights anew for width 0\.5"):
        HeldSubnet(model, 0.5)


def test_training_of_wide_widths_leaves_the_narrow_one(trained: Path, source: PictureSource, tmp_path: Path) -> None:
    start = load_checkpoint(trained)
    recipe = Recipe(**BASE, init=str(trained), sort_channels=False, head_passes=0, trained_widths=(0.5, 1.0))
    assert recipe.held_width() == 0.25
    found = load_checkpoint(train(recipe, source, tmp_path / "wide"))
    moved = 0
    for name, mask in read_parameters(_network(start.model, source), 0.25).items():
        assert torch.equal(found.model[name][mask], start.model[name][mask]), name
        moved += int((found.model[name] != start.model[name]).sum())
    assert moved > 100
    before, after = (_accuracy(checkpoint) for checkpoint in (start, found))
    assert [after[0.25, side] for side in (16, 12)] == [before[0.25, side] for side in (16, 12)]
    bank = {key: found.build().norm_bank.entries[key] for key in start.build().norm_bank.entries}
    assert len(bank) == 6


def test_training_of_wide_widths_resumes_with_the_norms_of_the_narrow_one(
    trained: Path, source: PictureSource, tmp_path: Path
) -> None:
    options = BASE | {"epochs": 2}
    recipe = Recipe(**options, init=str(trained), sort_channels=False, head_passes=0, trained_widths=(0.5, 1.0))
    whole = load_checkpoint(train(recipe, source, tmp_path / "whole"))
    last = train(recipe, source, tmp_path / "parts", stop_after_epochs=1)
    assert not torch.equal(
        load_checkpoint(last).model["stem.1.weight"], load_checkpoint(trained).model["stem.1.weight"]
    )
    parts = load_checkpoint(train(recipe, source, tmp_path / "parts"))
    assert torch.equal(parts.model["stem.1.weight"], load_checkpoint(trained).model["stem.1.weight"])
    assert parts.accuracy == whole.accuracy


def test_training_of_the_narrow_width_alone_reaches_nothing_beyond_it(
    trained: Path, source: PictureSource, tmp_path: Path
) -> None:
    start = load_checkpoint(trained)
    options = BASE | {"random_widths": 0}
    recipe = Recipe(**options, init=str(trained), sort_channels=False, head_passes=0, trained_widths=(0.25,))
    assert recipe.held_width() is None
    found = load_checkpoint(train(recipe, source, tmp_path / "narrow"))
    read = read_parameters(_network(start.model, source), 0.25)
    for name, mask in read.items():
        assert torch.equal(found.model[name][~mask], start.model[name][~mask]), name
    assert not torch.equal(found.model["stem.0.weight"], start.model["stem.0.weight"])


def test_frozen_layers_stay_for_all_widths(trained: Path, source: PictureSource, tmp_path: Path) -> None:
    start = load_checkpoint(trained)
    kept = ("classifier", "stages.1")
    recipe = Recipe(**BASE, init=str(trained), sort_channels=False, head_passes=0, frozen_layers=kept)
    found = load_checkpoint(train(recipe, source, tmp_path / "all"))
    parameters = dict(_network(start.model, source).named_parameters())
    same = {name for name in parameters if torch.equal(found.model[name], start.model[name])}
    assert same == {name for name in parameters if name.startswith(("classifier.", "stages.1."))}
    unknown = Recipe(**BASE, init=str(trained), sort_channels=False, head_passes=0, frozen_layers=("head",))
    with pytest.raises(RecipeError, match=r"frozen_layers: there is no layer 'head' with parameters in MobileNetV2"):
        train(unknown, source, tmp_path / "unknown")


def test_norms_of_the_wide_widths_start_from_those_of_another_teacher(
    trained: Path, source: PictureSource, tmp_path: Path
) -> None:
    other = train(Recipe(**BASE, seed=1), source, tmp_path / "other")
    start = {
        "init": str(trained),
        "sort_channels": False,
        "head_passes": 0,
        "init_teacher": True,
        "teacher": str(other),
    }
    options = BASE | start | {"learning_rate": 1e-12, "clip_gradient_norm": 1e-6, "epochs": 2}
    recipe = Recipe(**options, teacher_share=0.5, trained_widths=(0.5, 1.0))
    last = load_checkpoint(train(recipe, source, tmp_path / "wide", stop_after_epochs=1))
    assert torch.allclose(last.model["stem.1.weight"], load_checkpoint(other).model["stem.1.weight"])
    assert torch.equal(last.training["held_norms"]["stem.1"][0], load_checkpoint(trained).model["stem.1.weight"])
    assert torch.allclose(last.model["stem.0.weight"], load_checkpoint(trained).model["stem.0.weight"])


def test_the_teacher_can_be_another_checkpoint(trained: Path, source: PictureSource, tmp_path: Path) -> None:
    other = train(Recipe(**BASE, seed=1), source, tmp_path / "other")
    start = {"init": str(trained), "sort_channels": False, "head_passes": 0, "init_teacher": True}
    options = BASE | {"epochs": 2} | start
    recipe = Recipe(**options, teacher=str(other), teacher_share=0.5)
    whole = load_checkpoint(train(recipe, source, tmp_path / "whole"))
    last = load_checkpoint(train(recipe, source, tmp_path / "parts", stop_after_epochs=1))
    assert torch.equal(last.training["teacher"]["stem.0.weight"], load_checkpoint(other).model["stem.0.weight"])
    other.unlink()  # a run that goes on does not need it
    parts = load_checkpoint(train(recipe, source, tmp_path / "parts"))
    assert torch.equal(parts.model["stem.0.weight"], whole.model["stem.0.weight"])
    own = load_checkpoint(train(Recipe(**options, teacher_share=0.5), source, tmp_path / "own"))
    assert not torch.equal(own.model["stem.0.weight"], whole.model["stem.0.weight"])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"trained_widths": (0.3,)}, r"trained_widths is \(0\.3,\), expected some of widths"),
        ({"trained_widths": (0.5, 1.0), "width_choices": (0.25,)}, r"width_choices .* between 0\.5 and 1\.0"),
        ({"teacher": "model.pt"}, r"teacher is 'model\.pt', expected empty without init_teacher"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        Recipe(**BASE, **values)


def _accuracy(checkpoint: Checkpoint) -> dict[tuple[float, int], float]:
    return {(row["width"], row["resolution"]): row["test_accuracy"] for row in checkpoint.accuracy}


def _network(state: dict[str, Any], source: PictureSource) -> Any:

    model = zoo.create(BASE["model"], num_classes=len(source.classes), **BASE["model_options"])
    model.load_state_dict(state)
    return model
