"""Made-up pictures or clips (never the data's) and what each point says of them, for a self-test on the device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from converters.verification import engine_logits
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle

PICTURES, SIDE, CELLS = 3, 64, 5
DETECTOR_PICTURES = 1  # a detector's output has thousands of rows
DETECTOR_BITS = 10  # kept of the largest value of each kind: rounding takes a 20th of the tolerance, and it packs well
STEPS = ((0, 2), (2, 0), (-2, -2))
"""How far the view of each clip moves between frames: rows, columns. Whole pixels: frames repeat, and pack well."""


def self_test(bundle: Bundle, threads: int) -> dict[str, np.ndarray]:
    """Inputs and outputs.

    Returns:
        `pixels` (N, H, W, 3) uint8, of a clip bundle (N, T, H, W, 3) with the largest number of frames, and, for each
        point, through its own engine, `logits/<point>` (N, classes), of detectors (N, anchors, 4 + labels), rounded.
    """
    counts = [p.frames for p in bundle.manifest.points if p.frames is not None]
    pixels = made_up_clips(max(counts, default=1))
    if not counts:
        pixels = pixels[:, 0]
    detects = bundle.manifest.boxes is not None
    if detects:
        pixels = pixels[:DETECTOR_PICTURES]
    rows = {}
    for name in dict.fromkeys(p.backend for p in bundle.manifest.programs):
        backend = open_backend(name, bundle, BackendOptions(threads))
        for point in bundle.points_for(name):
            found = engine_logits(backend, bundle, point, list(pixels))
            rows[f"logits/{point.name}"] = rounded_rows(found) if detects else found
        backend.close()
    return {"pixels": pixels, **rows}


def rounded_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes and logits (N, anchors, 4 + labels), each rounded to steps of 2^-DETECTOR_BITS of its largest value."""
    kinds = []
    for kind in (rows[..., :4], rows[..., 4:]):
        largest = max(float(np.abs(kind).max()), 1e-6)
        step = np.float32(2.0 ** (np.ceil(np.log2(largest)) - DETECTOR_BITS))
        kinds.append(np.rint(kind / step) * step)
    return np.concatenate(kinds, -1)


def made_up_clips(frames: int) -> npt.NDArray[np.uint8]:
    """Views that move over pictures of soft spots: (PICTURES, frames, SIDE, SIDE, 3)."""
    import cv2

    draw = np.random.default_rng(2026)
    coarse = draw.integers(0, 256, (PICTURES, CELLS, CELLS, 3), np.uint8)
    side = SIDE + max(map(abs, sum(STEPS, ()))) * (frames - 1)
    clips = np.empty((PICTURES, frames, SIDE, SIDE, 3), np.uint8)
    for clip, cells, steps in zip(clips, coarse, STEPS, strict=True):
        picture = cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
        for index in range(frames):
            top, left = (step * (index if step >= 0 else index - frames + 1) for step in steps)
            clip[index] = picture[top : top + SIDE, left : left + SIDE]
    return clips
