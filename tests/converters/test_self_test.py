"""The made-up clips of a bundle's self-test."""

from __future__ import annotations

import io

import cv2
import numpy as np

from converters.self_test import CELLS, PICTURES, SIDE, made_up_clips


def test_one_frame_is_the_whole_picture() -> None:
    coarse = np.random.default_rng(2026).integers(0, 256, (PICTURES, CELLS, CELLS, 3), np.uint8)
    whole = [cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for cells in coarse]
    np.testing.assert_array_equal(made_up_clips(1)[:, 0], whole)


def test_views_move_over_a_picture_each_in_its_own_direction() -> None:
    clips = made_up_clips(5)
    assert clips.shape == (PICTURES, 5, SIDE, SIDE, 3)
    right, down, back = clips
    for now, later in zip(range(4), range(1, 5), strict=True):
        np.testing.assert_array_equal(right[later][:, :-2], right[now][:, 2:])
        np.testing.assert_array_equal(down[later][:-2], down[now][2:])
        np.testing.assert_array_equal(back[later][2:, 2:], back[now][:-2, :-2])


def test_many_frames_pack_into_little_more_than_one() -> None:
    sizes = []
    for frames in (1, 16):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, pixels=made_up_clips(frames))
        sizes.append(len(buffer.getvalue()))
    assert sizes[1] < 5 * sizes[0]
