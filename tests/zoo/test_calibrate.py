"""Calibration and evaluation of operating points, against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_net import TinyNet
from torch import nn

import zoo
from zoo.calibrate import calibrate, point_statistics, to_tensor
from zoo.evaluate import evaluate_points
from zoo.pictures import PictureSource, Split, evaluation_batch

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)


@pytest.fixture(scope="module")
def splits(source: PictureSource) -> dict[str, Split]:
    return source.splits(6, 9)


def test_pictures_are_normalised_per_channel() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    found = to_tensor(batch, MEAN, STD)
    expected = ((batch - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(expected).float())


def test_statistics_are_the_mean_over_batches_of_batch_means_and_variances() -> None:
    torch.manual_seed(0)
    model = TinyNet()
    batches = [torch.randn(8, 3, 12, 12) + shift for shift in (0.0, 1.0, 2.0)]
    stats = point_statistics(model, 0.5, batches)

    plain = zoo.materialise(model, width=0.5).train()  # torch's own cumulative average, momentum None
    norms = {n: m for n, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.momentum = None
    with torch.no_grad():
        for batch in batches:
            plain(batch)
    assert set(stats) == set(norms)
    for name, norm in norms.items():
        torch.testing.assert_close(stats[name][0], norm.running_mean, rtol=1e-4, atol=1e-5)
        count = 8 * (12 * 12 if name != "stages.1.1" else 6 * 6)  # torch divides by count - 1
        torch.testing.assert_close(stats[name][1], norm.running_var * (count - 1) / count, rtol=1e-4, atol=1e-5)


def test_a_short_last_batch_weighs_by_its_pictures() -> None:
    torch.manual_seed(0)
    model, pictures = TinyNet(), torch.randn(9, 3, 8, 8)
    pictures[8] *= 10
    stats = point_statistics(model, 1.0, [pictures[:8], pictures[8:]])
    means = model.stem[0](pictures).mean((0, 2, 3))
    torch.testing.assert_close(stats["stem.1"][0], means.detach(), rtol=1e-4, atol=1e-5)


def test_calibration_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        point_statistics(TinyNet(), 1.0, [])


@torch.no_grad()
def test_calibration_sees_what_deployment_sees(source: PictureSource, splits: dict[str, Split]) -> None:
    torch.manual_seed(0)
    model = TinyNet()
    calibrate(model, source, splits["calib"], [(0.5, 12)], MEAN, STD)
    pictures = to_tensor(evaluation_batch(source, splits["calib"].names, 12), MEAN, STD)
    expected = torch.nn.functional.conv2d(pictures, model.stem[0].weight[:8], padding=1)
    mean, variance = model.norm_bank.entries[model.point_key(0.5, 12)]["stem.1"]
    torch.testing.assert_close(mean, expected.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance, expected.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5)


def test_one_resolution_does_not_serve_another(source: PictureSource, splits: dict[str, Split]) -> None:
    model = TinyNet()
    calibrate(model, source, splits["calib"], [(0.5, 16), (1.0, 16)], MEAN, STD)
    zoo.materialise(model, width=0.5, resolution=16)
    with pytest.raises(zoo.NotCalibratedError, match="12"):
        zoo.materialise(model, width=0.5, resolution=12)


def test_calibrating_again_replaces_the_bank_and_a_failure_keeps_it(
    source: PictureSource, splits: dict[str, Split]
) -> None:
    model = TinyNet()
    calibrate(model, source, splits["calib"], [(0.5, 16)], MEAN, STD)
    calibrate(model, source, splits["calib"], [(1.0, 12)], MEAN, STD)
    assert list(model.norm_bank.entries) == [model.point_key(1.0, 12)]
    with pytest.raises(ValueError, match="no pictures"):
        calibrate(model, source, Split((), np.zeros(0, np.int64)), [(0.5, 16)], MEAN, STD)
    assert list(model.norm_bank.entries) == [model.point_key(1.0, 12)]


def test_accuracy_and_multiply_adds_are_those_of_each_subnet(source: PictureSource, splits: dict[str, Split]) -> None:
    torch.manual_seed(1)
    model = TinyNet()
    points = [(1.0, 16), (0.5, 16), (0.5, 12)]
    calibrate(model, source, splits["train"], points, MEAN, STD)
    held_out = {"select": splits["select"], "test": splits["test"]}
    rows = evaluate_points(model, source, held_out, points, MEAN, STD, batch_size=5)

    assert [(row["width"], row["resolution"]) for row in rows] == points
    for row in rows:
        for name, split in held_out.items():
            pictures = to_tensor(evaluation_batch(source, split.names, row["resolution"]), MEAN, STD)
            with torch.no_grad():
                right = (model(pictures, row["width"]).argmax(1).numpy() == split.labels).mean()
            assert row[f"{name}_accuracy"] == pytest.approx(right)
    # stem 3*c*9 and depthwise c*9 on all pixels, dense c*2c*9 on a quarter, linear 2c*3
    assert [row["madds"] for row in rows] == [_madds(16, 16), _madds(8, 16), _madds(8, 12)]


def _madds(channels: int, side: int) -> int:
    return (27 + 9) * channels * side**2 + 18 * channels**2 * (side // 2) ** 2 + 6 * channels


def test_a_split_without_pictures_has_no_accuracy(source: PictureSource, splits: dict[str, Split]) -> None:
    model = TinyNet()
    calibrate(model, source, splits["calib"], [(1.0, 16)], MEAN, STD)
    empty = {"select": Split((), np.zeros(0, np.int64)), "test": splits["test"]}
    (row,) = evaluate_points(model, source, empty, [(1.0, 16)], MEAN, STD)
    assert "select_accuracy" not in row
    assert "test_accuracy" in row
