"""What a frame costs beside decoding, resizing and the engine: controller, normalisation, answer, telemetry."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from benchmarks.record import percentiles, save

FRAMES, WARM_UP = 2000, 100


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--threads", default=1, show_default=True)
@click.option("--frames", default=FRAMES, show_default=True)
@click.option("--record/--no-record", default=True, help="Write benchmarks/results/pipeline_overhead.json.")
def main(bundle: Path | None, threads: int, frames: int, record: bool) -> None:
    """Measure, print and record."""
    import edge_runtime.preprocess as preprocessing
    from edge_runtime import Budget, Runtime, default_bundle_path

    path = bundle or default_bundle_path()
    resize, spent = preprocessing.resize_rgb, [0.0]

    def timed_resize(*arguments: Any) -> np.ndarray:
        started = time.perf_counter()
        resized = resize(*arguments)
        spent[0] += time.perf_counter() - started
        return resized

    preprocessing.resize_rgb = timed_resize
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(8)]
    rows: dict[str, list[float]] = {"overhead_ms": [], "resize_ms": [], "engine_ms": [], "frame_ms": []}
    with (
        TemporaryDirectory() as folder,
        Runtime.load(path, threads=threads, budget=Budget(33.3), telemetry=Path(folder) / "t.jsonl") as runtime,
    ):
        runtime.wait_ready()
        for index in range(WARM_UP + frames):
            spent[0] = 0.0
            started = time.perf_counter()
            result = runtime.infer(pictures[index % len(pictures)])
            frame_ms, resize_ms = (time.perf_counter() - started) * 1000.0, spent[0] * 1000.0
            if index >= WARM_UP:
                rows["frame_ms"].append(frame_ms)
                rows["resize_ms"].append(resize_ms)
                rows["engine_ms"].append(result.run_ms)
                rows["overhead_ms"].append(frame_ms - resize_ms - result.run_ms)
    summary = {name: percentiles(values) for name, values in rows.items()}
    for name, values in summary.items():
        print(f"{name}: {values}")
    if record:
        save("pipeline_overhead", {"bundle": Path(path).name, "frame": "640x480", "threads": threads, **summary})


if __name__ == "__main__":
    main()
