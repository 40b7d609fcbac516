"""Clips of the probe: a moving window, whose way says nothing of its sense until frames are read in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.motion_probe import CLASSES, DIRECTIONS, FASTEST, MEAN, SIDE, SPREAD, draw_clips, lines, shuffled

FRAMES, ROOM = 8, 32


def plane(count: int, axis: int) -> np.ndarray:
    """Pictures whose brightness is the row (axis 0) or the column of each pixel."""
    side = SIDE + ROOM
    ramp = np.arange(side, dtype=np.uint8)
    picture = np.repeat(ramp[:, None] if axis == 0 else ramp[None, :], side, 1 - axis)
    return np.broadcast_to(picture[None, :, :, None], (count, side, side, 3))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_window_moves_by_a_constant_step_in_the_direction_of_its_label(axis: int) -> None:
    clips, labels = draw_clips(plane(200, axis), FRAMES, 1, np.random.default_rng(0))
    assert clips.shape == (200, 3, FRAMES, SIDE, SIDE)
    corners = (clips[:, 0, :, 0, 0] * SPREAD + MEAN).round().long()  # the brightness of the corner is its place
    assert int(corners.min()) >= 0
    assert int(corners.max()) <= ROOM
    steps = corners.diff(dim=1)
    signs = torch.tensor([DIRECTIONS[label][axis] for label in labels])
    assert torch.equal(steps, steps[:, :1].expand_as(steps))
    assert torch.equal(steps[:, 0].sign(), signs)
    assert set(steps.abs().flatten().tolist()) == set(range(FASTEST + 1))
    assert set(labels.tolist()) == set(range(CLASSES))


def test_where_a_way_lies_does_not_tell_its_sense() -> None:
    clips, labels = draw_clips(plane(4000, 0), FRAMES, 1, np.random.default_rng(1))
    middles = (clips[:, 0, :, 0, 0] * SPREAD + MEAN).mean(1)
    signs = torch.tensor([DIRECTIONS[label][0] for label in labels])
    up, down = middles[signs < 0], middles[signs > 0]
    assert abs(float(up.mean() - down.mean())) < 4.0 * float((up.var() / len(up) + down.var() / len(down)).sqrt())


def test_enlarging_repeats_pixels() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (3, SIDE + ROOM, SIDE + ROOM, 3), dtype=np.uint8)
    small, labels = draw_clips(pictures, FRAMES, 1, np.random.default_rng(2))
    large, same = draw_clips(pictures, FRAMES, 2, np.random.default_rng(2))
    assert torch.equal(labels, same)
    assert torch.equal(large[..., 1::2, ::2], small)


def test_shuffled_clips_have_the_same_frames_in_orders_of_their_own() -> None:
    clips = torch.arange(5 * FRAMES).view(5, 1, FRAMES, 1, 1).float()
    mixed = shuffled(clips, 0)
    assert torch.equal(mixed.sort(2).values, clips)
    assert not torch.equal(mixed, clips)
    assert len({tuple((clip - clip.min()).flatten().tolist()) for clip in mixed}) > 1


def test_a_row_says_how_large_its_clips_are() -> None:
    row = {
        "title": "Net", "options": "small", "frames": 8, "zoom": 2, "parameters": 1_230_000,
        "test": 0.5, "shuffled": 0.125, "steps": 10, "train_s": 90,
    }  # fmt: skip
    assert lines([row]).splitlines()[-1] == "| Net | small | 8x64x64 | 1.23 | 50.0% | 12.5% | 10 steps, 1.5 min |"
