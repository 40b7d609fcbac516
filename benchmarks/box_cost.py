"""What it costs to turn a detector's output into boxes: 25 000 rows of 20 labels, with few and with many candidates.

    python -m benchmarks.box_cost

Median and best milliseconds of a frame; processor time does not hold the waits for a core that other processes cause.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from edge_runtime.detection import detect, surest
from edge_runtime.manifest import Boxes, OperatingPoint
from edge_runtime.preprocess import TensorSpec

ROWS, SIDE, FRAME_HW, RUNS = 25_000, 512, (480, 640), 200
LABELS = tuple(f"label {number}" for number in range(20))
CASES = ((0, 0.3), (20, 0.3), (200, 0.3), (2000, 0.3), (200, 0.0))
"""Rows that are sure of a label, and `unsure_below`; with 0 every row is a candidate for every label."""


def main() -> None:
    """Measure and print."""
    spec = TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for sure, unsure_below in CASES:
        point = OperatingPoint(
            "p", "p", 1.0, (SIDE, SIDE), 1, {"select": 0.5}, anchors=ROWS, unsure_below=unsure_below
        )  # fmt: skip
        output, wall_ms, processor_ms = made_up(sure), [], []
        for _ in range(RUNS):
            started_ns, started_processor_ns = time.perf_counter_ns(), time.thread_time_ns()
            boxes = detect(output, LABELS, Boxes(), point, spec, FRAME_HW)
            surest(boxes, output, LABELS)
            processor_ms.append((time.thread_time_ns() - started_processor_ns) / 1e6)
            wall_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
        times = "  ".join(
            f"{name}: median {statistics.median(some):6.2f} ms, best {min(some):6.2f} ms"
            for name, some in (("processor", processor_ms), ("wall", wall_ms))
        )
        print(f"{sure:5d} sure rows, unsure_below {unsure_below}: {len(boxes):3d} boxes  {times}")


def made_up(sure: int) -> np.ndarray:
    """An output (1, ROWS, 4 + labels) float32: background, and so many rows with a score around 0.7."""
    draw = np.random.default_rng(0)
    output = np.empty((1, ROWS, 4 + len(LABELS)), np.float32)
    centres, sides = draw.uniform(0, SIDE, (ROWS, 2)), draw.uniform(10, 100, (ROWS, 2))
    output[0, :, :2], output[0, :, 2:4] = centres - sides / 2, centres + sides / 2
    output[0, :, 4:] = draw.normal(-8.0, 1.0, (ROWS, len(LABELS)))
    rows = draw.choice(ROWS, sure, replace=False)
    output[0, rows, 4 + draw.integers(0, len(LABELS), sure)] = draw.normal(1.0, 1.0, sure)
    return output


if __name__ == "__main__":
    main()
