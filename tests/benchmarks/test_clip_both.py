"""The picture of two bundles on one clip."""

from __future__ import annotations

import numpy as np

from benchmarks.clip_both import CAPTION_H, COLOURS, GAP, HEAD_H, PAPER, TILE_H, TILE_W, middle_frames, sheet


def test_every_photograph_of_the_clip_has_a_frame_of_its_own() -> None:
    frames = middle_frames()
    assert len(frames) == 9
    assert all(frame.shape == (480, 640, 3) for frame in frames)
    distances = [np.abs(a.astype(int) - b).mean() for i, a in enumerate(frames) for b in frames[:i]]
    assert min(distances) > 20.0


def test_the_sheet_holds_each_frame_in_its_place_with_both_captions_below() -> None:
    red, green = (np.zeros((480, 640, 3), np.uint8) for _ in range(2))
    red[..., 0], green[..., 1] = 200, 200
    answers = [[("cat", 0.9), ("tabby", 0.4)]] * 4
    picture = sheet([red, green, red, green], ["20 classes", "1,000 classes"], answers)
    assert picture.shape == (HEAD_H + GAP + 2 * (TILE_H + CAPTION_H + GAP), GAP + 3 * (TILE_W + GAP), 3)
    top, below = HEAD_H + GAP + TILE_H // 2, HEAD_H + GAP + TILE_H + CAPTION_H + GAP + TILE_H // 2
    middles = [GAP + TILE_W // 2 + column * (TILE_W + GAP) for column in range(3)]
    assert [tuple(picture[top, x]) for x in middles] == [(0, 0, 200), (0, 200, 0), (0, 0, 200)]  # BGR
    assert tuple(picture[below, middles[0]]) == (0, 200, 0)
    assert tuple(picture[below, middles[1]]) == PAPER
    caption = picture[HEAD_H + GAP + TILE_H : HEAD_H + GAP + TILE_H + CAPTION_H, : TILE_W // 3]
    assert all((caption == colour).all(axis=2).any() for colour in COLOURS)
