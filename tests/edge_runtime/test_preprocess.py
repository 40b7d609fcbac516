"""From a picture to the network's input: which part of it, which kernel, which numbers, into which memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import FrameError
from edge_runtime.preprocess import TensorSpec, crop_box, preprocess, resize_rgb

SPEC = TensorSpec((10.0, 20.0, 30.0), (1.0, 2.0, 4.0))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_each_channel_is_normalised_and_laid_out_as_nchw() -> None:
    pixels = picture(8, 8)
    found = preprocess(pixels, SPEC, (8, 8))
    assert found.shape == (1, 3, 8, 8)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    for channel, (mean, std) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        np.testing.assert_allclose(found[0, channel], (pixels[..., channel].astype(np.float64) - mean) / std, rtol=1e-6)


def test_the_given_buffer_is_written_and_returned_and_the_picture_is_not_changed() -> None:
    pixels, out = picture(20, 30), np.full((1, 3, 8, 8), np.nan, np.float32)
    before = pixels.copy()
    pixels.flags.writeable = False
    assert preprocess(pixels, SPEC, (8, 8), out=out) is out
    np.testing.assert_array_equal(out, preprocess(pixels, SPEC, (8, 8)))
    np.testing.assert_array_equal(pixels, before)


def test_crop_takes_the_centre_and_squash_the_whole() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    cropped = preprocess(pixels, TensorSpec((0.0,) * 3, (1.0,) * 3), (10, 10))
    assert np.all(cropped == 200)
    squashed = preprocess(pixels, TensorSpec((0.0,) * 3, (1.0,) * 3, fit="squash"), (10, 30))
    assert np.all(squashed[..., 10:20] == 200)
    assert np.all(squashed[..., :10] == 0)


def test_a_share_keeps_the_middle_of_the_crop() -> None:
    assert crop_box(100, 200, (10, 10), 0.5) == (25, 75, 50, 50)
    assert crop_box(100, 200, (10, 20)) == (0, 0, 100, 200)
    assert crop_box(1, 1, (64, 64), 0.1) == (0, 0, 1, 1)


@pytest.mark.parametrize("side", [32, 40, 48, 56, 64, 224])
def test_the_crop_of_a_square_input_is_the_largest_centred_square(side: int) -> None:
    for height in range(1, 800):  # 56 x 61 / 56 is 60.99 in floating point
        assert crop_box(height, height + 7, (side, side)) == (0, 3, height, height)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(8, 300), st.integers(8, 300), st.floats(0.01, 1.0))
def test_the_crop_lies_inside_the_picture(height: int, width: int, rows: int, columns: int, share: float) -> None:
    top, left, tall, wide = crop_box(height, width, (rows, columns), share)
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert min(tall, wide) >= 1


def test_shrinking_averages_areas_and_growing_interpolates() -> None:
    checks = np.zeros((8, 8, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    assert np.all(resize_rgb(checks, (4, 4)) == 100)
    ramp = np.repeat(np.array([[0, 200]], np.uint8)[..., None], 3, 2)
    grown = resize_rgb(ramp, (1, 8))[0, :, 0]
    assert np.all(np.diff(grown.astype(int)) >= 0)
    assert len(set(grown)) > 2
    assert resize_rgb(checks, (8, 8)) is checks


def test_cubic_is_sharper_than_area_and_still_averages_when_much_is_left_out() -> None:
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 16:] = 200
    sharp, soft = (resize_rgb(edge, (24, 24), how)[0, :, 0].astype(int) for how in ("cubic", "area"))
    assert np.abs(np.diff(sharp)).max() > np.abs(np.diff(soft)).max()
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    assert np.all(resize_rgb(checks, (8, 8), "cubic") == 100)
    cubic = preprocess(edge, TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize="cubic"), (24, 24))
    np.testing.assert_array_equal(cubic[0, 0, 0], resize_rgb(edge, (24, 24), "cubic")[0, :, 0])


@pytest.mark.parametrize("view", ["flipped", "channels reversed", "strided", "transposed"])
def test_views_give_what_their_copies_give(view: str) -> None:
    pixels = picture(40, 60)
    seen = {
        "flipped": pixels[::-1, ::-1], "channels reversed": pixels[..., ::-1], "strided": pixels[::2, ::3],
        "transposed": pixels.transpose(1, 0, 2),
    }[view]  # fmt: skip
    for size in ((16, 16), (50, 30), seen.shape[:2]):
        np.testing.assert_array_equal(preprocess(seen, SPEC, size), preprocess(seen.copy(), SPEC, size))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3)])
def test_an_empty_picture_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(FrameError, match="expected at least one pixel"):
        preprocess(np.zeros(shape, np.uint8), SPEC, (8, 8))
