"""The device's preprocessing and training's are the same function, written twice."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import preprocess as device
from zoo import pictures as training
from zoo.calibrate import to_tensor

SHAPES = [(64, 64), (61, 61), (61, 90), (230, 97), (20, 33), (33, 20), (1, 1), (375, 500), (256, 341)]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [16, 32, 40, 48, 56, 64, 224])
def test_the_networks_input_is_the_same_for_both(shape: tuple[int, int], side: int) -> None:
    picture = np.random.default_rng(side).integers(0, 256, (*shape, 3), np.uint8)
    found = device.preprocess(picture, device.TensorSpec(MEAN, STD), (side, side))
    resized = training.resize_rgb(training.centre_square(picture), (side, side))
    expected = to_tensor(resized[None], MEAN, STD).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)  # float32 rounding of (x - mean) / std of at most 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size_hw", [(16, 16), (48, 64), (64, 20), (400, 300), (30, 600)])
def test_the_resize_is_the_same_for_both(shape: tuple[int, int], size_hw: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    np.testing.assert_array_equal(device.resize_rgb(picture, size_hw), training.resize_rgb(picture, size_hw))


@pytest.mark.parametrize(("have", "wanted"), [(8, 8), (8, 4), (8, 3), (16, 5), (13, 7), (3, 1)])
def test_clips_are_the_same_for_both(have: int, wanted: int) -> None:
    assert device.chosen_frames(have, wanted) == training.chosen_frames(have, wanted)
    clip = np.random.default_rng(have).integers(0, 256, (have, 61, 90, 3), np.uint8)
    found = device.preprocess(clip, device.TensorSpec(MEAN, STD), (wanted, 32, 32))
    sized = training.at_size(training.centre_square(clip), (wanted, 32, 32))
    np.testing.assert_allclose(found, to_tensor(sized[None], MEAN, STD).numpy(), atol=2e-6)
    np.testing.assert_array_equal(device.resize_rgb(clip, (20, 30)), training.resize_rgb(clip, (20, 30)))


def test_every_square_is_cut_alike() -> None:
    for height in range(1, 400):
        for side in (40, 56, 224):
            picture = np.empty((height, height + height // 3, 3), np.uint8)
            top, left, rows, columns = device.crop_box(*picture.shape[:2], (side, side))
            square = training.centre_square(picture)
            assert (rows, columns) == square.shape[:2]
            assert square.ctypes.data == picture[top:, left:].ctypes.data
