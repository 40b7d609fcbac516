"""Patches come back into the frame where they were cut, whatever made the frame fit the network."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.early_exit import FAILED, SURE, LookRecord, cut
from edge_runtime.look_trail import make_trail
from edge_runtime.preprocess import TensorSpec, preprocess

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("frame_hw", [(96, 128), (128, 96), (64, 64), (61, 200)])
@pytest.mark.parametrize("fit", [{"fit": "crop"}, {"fit": "crop", "crop_share": 0.8}, {"fit": "squash"}])
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.25), (0.4, 1.0)])
def test_a_patch_is_drawn_over_what_the_network_saw_in_it(
    frame_hw: tuple[int, int], fit: dict[str, object], place: tuple[float, float]
) -> None:
    spec = TensorSpec(**PLAIN, **fit)  # type: ignore[arg-type]
    rows, columns = np.mgrid[0 : frame_hw[0], 0 : frame_hw[1]]
    frame = np.stack([rows, columns, rows * 0], 2).astype(np.uint8)  # each pixel says where it is
    picture, patch = preprocess(frame, spec, (32, 32)), np.zeros((1, 3, 8, 8), np.float32)
    box = cut(picture, np.array([place], np.float32), patch)
    trail = make_trail(LookRecord(2, SURE, 0.9, (box,), (1.0, 1.0)), 3, frame_hw, spec, (32, 32))
    left, top, right, bottom = trail.boxes_xyxy[0]
    assert (top + bottom) / 2 == pytest.approx(patch[0, 0].mean() + 0.5, abs=1.0)
    assert (left + right) / 2 == pytest.approx(patch[0, 1].mean() + 0.5, abs=1.0)
    view = trail.view_xyxy
    assert view[0] <= left < right <= view[2] + 1e-6
    assert view[1] <= top < bottom <= view[3] + 1e-6
    assert right - left == pytest.approx((view[2] - view[0]) / 4)


def test_a_look_that_failed_is_not_drawn() -> None:
    record = LookRecord(1, FAILED, 0.4, ((0, 0, 8, 8),), (1.0,))
    trail = make_trail(record, 3, (64, 64), TensorSpec(**PLAIN), (32, 32))  # type: ignore[arg-type]
    assert (trail.looks, trail.max_looks, trail.reason, trail.boxes_xyxy) == (1, 3, FAILED, ())
