"""Pictures of none of the classes: their halves, their sharpness, and what a training step makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_train import RECIPE, assert_equal_weights, weights
from tiny_net import TinyNet

from zoo.augment import augmented_batch
from zoo.finish import train_strangers
from zoo.mutual import STRANGER, Subnet, accumulate_gradients, labelled_loss
from zoo.pictures import DataError, PictureSource
from zoo.processes import Processes
from zoo.recipe import RecipeError
from zoo.refit import refit_confidence
from zoo.strangers import Strangers, through_jpeg
from zoo.train import train

NAMES = [
    f"{i:04d}_{what}.jpg" for i, what in enumerate(("tench", "tusker", "crane", "sunglass", "drum", "kite", "fan"))
]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    """Seven pictures of noise in no class folder, 80 x 60 pixels."""
    folder = tmp_path_factory.mktemp("others")
    draw = np.random.default_rng(5)
    for name in NAMES:
        assert cv2.imwrite(str(folder / name), draw.integers(0, 256, (60, 80, 3), np.uint8))
    return PictureSource(folder, labelled=False)


def test_strangers_are_cut_in_two_and_the_classes_like_are_left_out(others: PictureSource) -> None:
    strangers = Strangers(others, skipped=("tusker", "sunglass"))
    assert strangers.train_names == ("0000_tench.jpg", "0004_drum.jpg", "0006_fan.jpg")
    assert strangers.test_names == ("0002_crane.jpg", "0005_kite.jpg")
    assert others.classes == []


def test_strangers_are_no_sharper_than_the_training_pictures(others: PictureSource) -> None:
    name = NAMES[0]
    assert Strangers(others).picture(name).shape == (60, 80, 3)
    assert Strangers(others, side_px=64).picture(name).shape == (60, 80, 3)
    small = Strangers(others, side_px=16).picture(name)
    assert small.shape == (16, 16, 3)
    assert small.std() < 0.5 * others.picture(name).std()  # averaged over blocks of noise


def test_strangers_bear_the_traces_of_the_training_pictures_file_format(others: PictureSource) -> None:
    name = NAMES[0]
    plain, coded = Strangers(others, side_px=16), Strangers(others, side_px=16, jpeg_quality=75)
    before, after = plain.picture(name), coded.picture(name)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    assert np.array_equal(after, through_jpeg(before, 75))
    assert 0.0 < np.abs(after.astype(float) - before).mean() < 40.0
    worse = np.abs(through_jpeg(before, 10).astype(float) - before).mean()
    assert worse > np.abs(after.astype(float) - before).mean()
    large = Strangers(others, side_px=64, jpeg_quality=75)
    assert np.array_equal(large.picture(name), others.picture(name))  # not shrunk: it is as small as they are


def test_a_recipe_says_through_which_jpeg_strangers_go(shapes_folder: Path, others: PictureSource) -> None:
    source = PictureSource(shapes_folder)
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=2, strangers_jpeg_quality=70)
    found = train_strangers(recipe, source, source.splits(3, 6)["train"], others)
    assert found is not None
    side = min(source.picture(source.names[0]).shape[:2])
    assert (found.side_px, found.jpeg_quality) == (side, 70)
    assert train_strangers(RECIPE, source, source.splits(3, 6)["train"], None) is None


def test_jpeg_keeps_the_order_of_colours() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(through_jpeg(red, 90).astype(int) - red).max() < 8


def test_a_draw_takes_every_stranger_before_one_comes_twice(others: PictureSource) -> None:
    strangers = Strangers(others)
    assert sorted(strangers.draw(4, np.random.default_rng(0))) == [0, 1, 2, 3]
    assert len(strangers.draw(9, np.random.default_rng(0))) == 9


def test_too_few_strangers_are_refused(others: PictureSource) -> None:
    with pytest.raises(DataError, match="at least two pictures of none of the classes"):
        Strangers(others, skipped=("0",))


def test_a_strangers_target_is_every_class_alike() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([2, STRANGER, 0, STRANGER])
    target = torch.full((4, 5), 0.2)
    target[0], target[2] = torch.eye(5)[2], torch.eye(5)[0]
    wanted = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(labelled_loss(logits, labels), wanted)
    known = torch.tensor([2, 1, 0, 4])
    assert labelled_loss(logits, known) == torch.nn.functional.cross_entropy(logits, known)


def test_steps_with_strangers_alone_make_the_net_unsure_of_them_at_each_width() -> None:
    torch.manual_seed(0)
    model = TinyNet().train()
    with torch.no_grad():
        model.classifier.bias[0] = 4.0  # sure of the first class
    pictures, labels = torch.randn(6, 3, 16, 16), torch.full((6,), STRANGER)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    subnets = [Subnet(1.0, 16), Subnet(0.5, 16)]
    before = [float(model(pictures, s.width).softmax(1).max(1).values.mean().detach()) for s in subnets]
    for _ in range(60):
        optimizer.zero_grad()
        accumulate_gradients(model, lambda resolution: pictures, labels, subnets)
        optimizer.step()
    after = [float(model(pictures, s.width).softmax(1).max(1).values.mean().detach()) for s in subnets]
    assert min(before) > 0.8
    assert max(after) < 0.45  # a third each would be perfect


def test_a_run_with_strangers_can_be_done_in_parts(shapes_folder: Path, others: PictureSource, tmp_path: Path) -> None:
    source = PictureSource(shapes_folder)
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=2, strangers_skipped=("tusker",), full_every=2)
    whole = train(recipe, source, tmp_path / "whole", strangers=others)
    train(recipe, source, tmp_path / "parts", strangers=others, stop_after_epochs=1)
    parts = train(recipe, source, tmp_path / "parts", strangers=others)
    assert_equal_weights(parts, whole)
    without = train(dataclasses.replace(recipe, strangers_per_batch=0), source, tmp_path / "without")
    assert not torch.equal(weights(without)["classifier.weight"], weights(whole)["classifier.weight"])


def test_each_stranger_of_an_epoch_is_augmented_by_draws_of_its_own(
    shapes_folder: Path, others: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[tuple[int, int]] = []

    def note(source: object, names: object, indices: list[int], *more: Any) -> np.ndarray:
        if isinstance(source, Strangers):
            keys.extend((more[-1], int(index)) for index in indices)
        return augmented_batch(source, names, indices, *more)

    monkeypatch.setattr("zoo.train.augmented_batch", note)
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=2)
    train(recipe, PictureSource(shapes_folder), tmp_path / "run", strangers=others)
    assert len(keys) == len(set(keys)) == 2 * 3 * 2  # epochs, steps, strangers
    assert min(index for _, index in keys) >= 39  # none is a training picture's


def test_strangers_have_to_divide_among_the_processes(
    shapes_folder: Path, others: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.train.Processes.join", lambda device: Processes(0, 2))
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=3)
    with pytest.raises(RecipeError, match="strangers_per_batch 3 does not divide among 2 processes"):
        train(recipe, PictureSource(shapes_folder), tmp_path / "run", strangers=others)


def test_rejection_is_measured_on_the_half_that_training_left_aside(
    shapes_folder: Path, others: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PictureSource(shapes_folder)
    path = train(dataclasses.replace(RECIPE, strangers_per_batch=2), source, tmp_path / "run", strangers=others)
    looked_at: list[str] = []
    read = PictureSource.picture
    monkeypatch.setattr(PictureSource, "picture", lambda self, name: (looked_at.append(name), read(self, name))[1])
    rows = refit_confidence(path, source, others)
    assert {name for name in looked_at if name in others.names} == set(Strangers(others).test_names)
    assert all(row["unsure_others"] in (0.0, 1 / 3, 2 / 3, 1.0) for row in rows)


def test_a_recipe_that_asks_for_strangers_says_so_without_them(shapes_folder: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, strangers_per_batch=2)
    with pytest.raises(RecipeError, match="--strangers"):
        train(recipe, PictureSource(shapes_folder), tmp_path / "run")
