"""Weights between two checkpoints, and what becomes of norms that only statistics hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.calibrate import calibrate
from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.finish import norm_subset
from zoo.mix import mix_checkpoints
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.refit import tune_checkpoint
from zoo.slim_layers import SlimBatchNorm
from zoo.train import train

BASE: dict[str, Any] = {
    "model": "mobilenet_v2", "model_options": {"width_mult": 0.25, "small_input": True}, "widths": (0.5, 1.0),
    "resolutions": (16,), "epochs": 1, "batch_size": 12, "learning_rate": 0.005,
    "random_widths": 0, "seed": 0, "calib_pictures": 3, "select_pictures": 6, "norm_pictures": 30,
}  # fmt: skip
MORE: dict[str, Any] = {"sort_channels": False, "head_passes": 0}


@pytest.fixture(scope="module")
def pair(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished checkpoint, and one that was trained on from it."""
    folder = tmp_path_factory.mktemp("pair")
    start = train(Recipe(**BASE), source, folder / "start")
    return start, train(Recipe(**BASE, **MORE, init=str(start)), source, folder / "end")


@pytest.fixture(scope="module")
def around(pair: tuple[Path, Path], source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose full net was trained around its narrow one."""
    recipe = Recipe(**BASE | {"learning_rate": 0.5}, **MORE, init=str(pair[0]), trained_widths=(1.0,))
    return train(recipe, source, tmp_path_factory.mktemp("around"))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_mix_lies_on_the_line_between_both(
    pair: tuple[Path, Path], share: float, source: PictureSource, tmp_path: Path
) -> None:
    start, end = (load_checkpoint(path) for path in pair)
    mixed = load_checkpoint(mix_checkpoints(*pair, share, source, tmp_path))
    for name, value in mixed.build().named_parameters():
        expected = (1.0 - share) * start.model[name] + share * end.model[name]
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=1e-6)
    assert mixed.recipe == end.recipe
    assert [(row["width"], row["resolution"]) for row in mixed.accuracy] == [(1.0, 16), (0.5, 16)]
    ends = {0.0: start, 1.0: end}
    if share in ends:
        banks = [checkpoint.build().norm_bank.entries for checkpoint in (mixed, ends[share])]
        assert banks[0].keys() == banks[1].keys()
        for key, entry in banks[0].items():
            for name, stats in entry.items():
                torch.testing.assert_close(stats, banks[1][key][name])
        assert [row["test_accuracy"] for row in mixed.accuracy] == [
            row["test_accuracy"] for row in ends[share].accuracy
        ]


def test_a_mix_of_other_networks_or_of_lost_norms_is_refused(
    pair: tuple[Path, Path], around: Path, source: PictureSource, tmp_path: Path
) -> None:
    options = {"model_options": {"width_mult": 0.5, "small_input": True}}
    other = train(Recipe(**BASE | options), source, tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"is not of the network of .*start.model\.pt"):
        mix_checkpoints(pair[0], other, 0.5, source, tmp_path / "mixed")
    with pytest.raises(CheckpointError, match=r"some widths have norms of their own"):
        mix_checkpoints(pair[0], around, 0.5, source, tmp_path / "mixed")
    with pytest.raises(CheckpointError, match=r"around0.*: some widths have norms of their own"):
        mix_checkpoints(around, pair[1], 0.5, source, tmp_path / "mixed")
    more = Recipe(**BASE | {"resolutions": (16, 12)}, **MORE, init=str(pair[0]), trained_widths=(0.5,))
    end = train(more, source, tmp_path / "more")
    with pytest.raises(CheckpointError, match=r"start.model\.pt: lacks points of .*more.model\.pt"):
        mix_checkpoints(pair[0], end, 0.5, source, tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_wide_widths_keep_tuned_norms_when_narrow_ones_alone_were_trained(
    source: PictureSource, tmp_path: Path
) -> None:
    widths = {"widths": (0.5, 0.75, 1.0)}
    checkpoint = load_checkpoint(train(Recipe(**BASE | widths), source, tmp_path / "start"))
    before, start = checkpoint.build(), tmp_path / "tuned.pt"
    for entry in before.norm_bank.entries.values():  # as if they had been tuned
        for name, (mean, variance) in entry.items():
            entry[name] = (mean + 0.2 * variance.sqrt(), 1.3 * variance)
    checkpoint.model = before.state_dict()
    torch.save(dataclasses.asdict(checkpoint), start)
    end = train(Recipe(**BASE | widths, **MORE, init=str(start), trained_widths=(0.5,)), source, tmp_path / "end")
    pictures = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    same = load_checkpoint(mix_checkpoints(start, end, 0.0, source, tmp_path / "same")).build()
    for width in (0.75, 1.0):
        torch.testing.assert_close(same(pictures, width), before(pictures, width), rtol=1e-3, atol=1e-3)
    gone = load_checkpoint(mix_checkpoints(start, end, 1.0, source, tmp_path / "gone")).build()
    assert not torch.allclose(gone(pictures, 1.0), before(pictures, 1.0), rtol=1e-2, atol=1e-2)


def test_wide_widths_keep_their_scales_and_shifts_when_a_narrow_one_alone_was_trained(
    pair: tuple[Path, Path], source: PictureSource, tmp_path: Path
) -> None:
    recipe = Recipe(**BASE | {"learning_rate": 0.002}, **MORE, init=str(pair[0]), trained_widths=(0.5,))
    end = train(recipe, source, tmp_path / "end")
    mixed = load_checkpoint(mix_checkpoints(pair[0], end, 1.0, source, tmp_path / "mixed")).build()
    before, expected = load_checkpoint(pair[0]).build(), load_checkpoint(end).build()
    pictures = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed(pictures, 0.5), expected(pictures, 0.5), rtol=1e-3, atol=1e-3)
    for (_, old), norm in zip(before.named_modules(), expected.modules(), strict=True):
        if isinstance(norm, SlimBatchNorm):
            norm.load_state_dict(old.state_dict())
    subset = norm_subset(recipe, source.splits(recipe.calib_pictures, recipe.select_pictures)["train"])
    calibrate(expected, source, subset, [(1.0, 16)], recipe.mean, recipe.std)
    torch.testing.assert_close(mixed(pictures, 1.0), expected(pictures, 1.0), rtol=1e-3, atol=1e-3)
    assert torch.equal(mixed.stem[1].weight, load_checkpoint(end).model["stem.1.weight"])
    assert not torch.equal(mixed.stem[1].weight, before.stem[1].weight)


@pytest.mark.parametrize(
    ("trained", "share", "factor"), [((0.5,), 0.25, 0.5), ((0.5,), 1.0, 0.01), ((), 0.25, 0.5), ((), 1.0, -1.0)]
)
def test_a_scale_keeps_its_sign_where_a_narrow_width_alone_was_trained(
    pair: tuple[Path, Path], trained: tuple[float, ...], share: float, factor: float, source: PictureSource,
    tmp_path: Path,
) -> None:  # fmt: skip
    recipe = Recipe(**BASE, **MORE, init=str(pair[0]), trained_widths=trained)
    checkpoint = load_checkpoint(train(recipe, source, tmp_path / "end"))
    before = load_checkpoint(pair[0]).model["stem.1.weight"]
    checkpoint.model["stem.1.weight"] = -before
    torch.save(dataclasses.asdict(checkpoint), tmp_path / "end.pt")
    mixed = load_checkpoint(mix_checkpoints(pair[0], tmp_path / "end.pt", share, source, tmp_path / "mixed")).build()
    torch.testing.assert_close(mixed.stem[1].weight.detach(), factor * before)


def test_tuning_goes_on_from_norms_that_only_statistics_hold(
    around: Path, source: PictureSource, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(around)
    slow = dataclasses.replace(Recipe.from_dict(checkpoint.recipe), point_learning_rate=1e-9)
    checkpoint.recipe, path = slow.to_dict(), tmp_path / "slow.pt"
    torch.save(dataclasses.asdict(checkpoint), path)
    tuned = load_checkpoint(tune_checkpoint(path, source, tmp_path / "tuned", 1))
    banks = [one.build().norm_bank.entries for one in (tuned, checkpoint)]
    assert len(banks[0]) == 2
    for key, entry in banks[0].items():
        for name, stats in entry.items():
            torch.testing.assert_close(stats, banks[1][key][name], rtol=1e-4, atol=1e-5)
