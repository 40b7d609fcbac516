"""How much slower a run is after a pause, as between two frames, than back to back.

    python -m benchmarks.frame_pause

The points alternate with the kinds of pause in random order; median milliseconds of the engine alone, one thread.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.ladder import spread_points
from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "profiling.md"
BEGIN, END = "<!-- pause:begin -->", "<!-- pause:end -->"
POINTS = 3
PAUSES = {
    "none, back to back": (False, 0.0),
    "other data and a picture": (True, 0.0),
    "the same, and 2 ms of sleep": (True, 0.002),
    "the same, at 30 frames a second": (True, 1.0 / 30.0),
}
ROUNDS, RUNS, WARM = 8, 12, 2


def measure(path: str) -> dict[str, dict[str, float]]:
    """Pause -> point -> median milliseconds."""
    from edge_runtime import Bundle
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.preprocess import preprocess
    from edge_runtime.residency import OTHER_DATA_BYTES

    bundle = Bundle.load(path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1, global_thread_pool=True))
    names = spread_points(bundle, POINTS)
    runners = {name: backend.load(bundle.point(name)) for name in names}
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    elsewhere = np.zeros(OTHER_DATA_BYTES // 4, np.float32)
    samples: dict[tuple[str, str], list[float]] = {(pause, name): [] for pause in PAUSES for name in names}
    order, generator = list(samples), random.Random(0)
    for _ in range(ROUNDS):
        generator.shuffle(order)
        for pause, name in order:
            (frame, sleep_s), runner = PAUSES[pause], runners[name]
            for turn in range(WARM + RUNS):
                if frame:
                    elsewhere += 1.0
                    if sleep_s > 0.0:  # sleeping for no time still gives the core away
                        time.sleep(sleep_s)
                    preprocess(picture, bundle.spec, bundle.point(name).size_hw, out=runner.input)
                started = time.perf_counter()
                runner.run()
                if turn >= WARM:
                    samples[pause, name].append((time.perf_counter() - started) * 1000.0)
    return {p: {n: round(statistics.median(samples[p, n]), 4) for n in names} for p in PAUSES}


def render(values: dict[str, dict[str, float]]) -> str:
    """The table of docs/profiling.md."""
    names = list(next(iter(values.values())))
    lines = [f"| pause before the run | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    lines += [
        f"| {pause} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |" for pause, row in values.items()
    ]
    return "\n".join(lines)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--record/--no-record", default=True, help="Write the JSON and the table of docs/profiling.md.")
def main(bundle: Path | None, record: bool) -> None:
    """Measure and write benchmarks/results/frame_pause.json."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    values: dict[str, Any] = measure(path)
    print(render(values))
    if record:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{render(values)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
        save("frame_pause", {"bundle": Path(path).name, "threads": 1, "median_ms": values})


if __name__ == "__main__":
    main()
