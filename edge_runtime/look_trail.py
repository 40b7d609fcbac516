"""Where a network that looks several times looked, in the frame's own pixels: for overlays and whoever asks why."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.early_exit import LookRecord
from edge_runtime.preprocess import TensorSpec, seen_part

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the frame."""


@dataclass(frozen=True)
class LookTrail:
    """The looks at one frame."""

    looks: int
    """Looks taken, the one at the whole picture included."""
    max_looks: int
    """Looks that the operating point allows."""
    reason: str
    """Why it stopped: "sure", "out of time", "too little to gain", "out of looks" or "a later look failed"."""
    view_xyxy: Box
    """What the first look saw: the part of the frame that reaches the network."""
    boxes_xyxy: tuple[Box, ...]
    """Patches in the order looked at; the first is the second look."""
    hinted: bool = False
    """The first patch was cut where the frame before found its answer."""


def make_trail(
    record: LookRecord, max_looks: int, frame_hw: tuple[int, int], spec: TensorSpec, size_hw: tuple[int, int]
) -> LookTrail:
    """Bring a run's patches from the network's picture back into the frame.

    Args:
        record: of the run.
        max_looks: of the operating point.
        frame_hw: rows and columns of the frame.
        spec: how the frame was made to fit.
        size_hw: of the network's picture.
    """
    top, left, rows, columns = seen_part(*frame_hw, size_hw, spec)
    scale_y, scale_x = rows / size_hw[0], columns / size_hw[1]
    boxes = tuple(
        (left + x * scale_x, top + y * scale_y, left + (x + width) * scale_x, top + (y + height) * scale_y)
        for y, x, height, width in record.boxes[: max(0, record.looks - 1)]  # a look that failed gave no answer
    )
    view = (float(left), float(top), float(left + columns), float(top + rows))
    return LookTrail(record.looks, max_looks, record.reason, view, boxes, record.hinted)
