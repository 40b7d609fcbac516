"""Made-up pictures (never the data's) and what each point says of them, for a self-test on the device."""

from __future__ import annotations

import numpy as np

from converters.verification import engine_logits
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle

PICTURES, SIDE, CELLS = 3, 64, 5


def self_test(bundle: Bundle, threads: int) -> dict[str, np.ndarray]:
    """`pixels` (N, H, W, 3) uint8 and, for each point, through its own engine, `logits/<point>` (N, classes)."""
    import cv2

    draw = np.random.default_rng(2026)
    coarse = draw.integers(0, 256, (PICTURES, CELLS, CELLS, 3), np.uint8)
    pixels = np.stack([cv2.resize(c, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for c in coarse])
    rows = {}
    for name in dict.fromkeys(p.backend for p in bundle.manifest.programs):
        backend = open_backend(name, bundle, BackendOptions(threads))
        for point in bundle.points_for(name):
            rows[f"logits/{point.name}"] = engine_logits(backend, bundle, point, list(pixels))
        backend.close()
    return {"pixels": pixels, **rows}
