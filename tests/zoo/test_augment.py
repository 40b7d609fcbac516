"""Training augmentation: same draws for same (seed, epoch, picture), and each kind does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.augment import AUGMENTATIONS, augmented_batch, shrink_batch
from zoo.pictures import PictureSource, evaluation_batch, resize_rgb


def batch(source: PictureSource, kind: str, *, seed: int = 0, epoch: int = 0, rows: range = range(24)) -> np.ndarray:
    return augmented_batch(source, [source.names[i] for i in rows], rows, 16, kind, seed, epoch)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_is_rgb_bytes_of_the_asked_size(source: PictureSource, kind: str) -> None:
    found = batch(source, kind)
    assert found.shape == (24, 16, 16, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_picture_is_augmented_alike_whatever_shares_its_batch(source: PictureSource, kind: str) -> None:
    whole = batch(source, kind, seed=3, epoch=2)
    assert np.array_equal(batch(source, kind, seed=3, epoch=2, rows=range(7, 15)), whole[7:15])


@pytest.mark.parametrize("kind", ["basic", "strong"])
@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_other_pictures(source: PictureSource, kind: str, change: dict[str, int]) -> None:
    same = (batch(source, kind) == batch(source, kind, **change)).all((1, 2, 3))
    assert same.mean() < 0.1


def test_no_augmentation_is_what_evaluation_sees(source: PictureSource) -> None:
    names = source.names[:24]
    assert np.array_equal(batch(source, "none"), evaluation_batch(source, names, 16))


def test_strong_differs_from_basic_in_most_pictures(source: PictureSource) -> None:
    same = (batch(source, "basic") == batch(source, "strong")).all((1, 2, 3))
    assert same.mean() < 0.2


def test_mixed_augments_each_picture_in_one_of_two_ways_evenly(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "a").mkdir()
    draw = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a" / "1.png"), draw.integers(0, 256, (48, 48, 3), np.uint8))
    # noise that was blurred, turned or lost detail has less contrast between neighbours; "light" never does that
    sharp = {
        kind: np.abs(np.diff(pictures.astype(float), axis=2)).mean((1, 2, 3))
        for kind in ("light", "camera", "mixed")
        for pictures in [augmented_batch(PictureSource(tmp_path), ["a/1.png"] * 400, range(400), 32, kind, 1, 0)]
    }
    limit = np.quantile(sharp["light"], 0.02)
    soft = {kind: float((values < limit).mean()) for kind, values in sharp.items()}
    assert soft["camera"] > 0.4
    assert soft["mixed"] == pytest.approx((soft["light"] + soft["camera"]) / 2, abs=0.07)


def test_half_of_the_pictures_are_flipped(tmp_path: Path) -> None:
    import cv2

    left = np.zeros((16, 16, 3), np.uint8)
    left[:, :4] = 255
    (tmp_path / "left").mkdir()
    cv2.imwrite(str(tmp_path / "left" / "1.png"), left)
    found = augmented_batch(PictureSource(tmp_path), ["left/1.png"] * 400, range(400), 16, "basic", 0, 0)
    brightness = found.astype(float).mean((1, 3))
    sides = brightness[:, 0] - brightness[:, -1]
    shown = sides[np.abs(sides) > 30]  # crops that still hold the bright edge
    assert len(shown) > 100
    assert 0.4 < float((shown > 0).mean()) < 0.6


def test_augmenting_does_not_write_into_cached_pictures(source: PictureSource) -> None:
    before = [source.picture(n).copy() for n in source.names[:24]]
    for kind in AUGMENTATIONS:
        batch(source, kind)
    assert all(np.array_equal(source.picture(n), p) for n, p in zip(source.names[:24], before, strict=True))


def test_a_smaller_resolution_shows_the_same_crops(source: PictureSource) -> None:
    large = batch(source, "strong")
    small = shrink_batch(large, 12)
    assert small.shape == (24, 12, 12, 3)
    assert np.array_equal(small[5], resize_rgb(large[5], (12, 12)))
    assert shrink_batch(large, 16) is large
