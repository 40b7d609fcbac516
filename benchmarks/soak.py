"""Run at 30 frames per second for minutes, under changing deadlines, and watch the process's memory."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from benchmarks.record import percentiles, save

FPS = 30.0
SAMPLE_EVERY_FRAMES = 150
SETTLE_SHARE = 0.1  # of the run: caches and arenas fill up


def anonymous_bytes() -> int:
    """Anonymous memory of this process, where a leak shows; PSS would also move when other programs come and go."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not state the anonymous memory of a process")


def slope_mb(memory: list[tuple[int, int]]) -> float:
    """MB per 10,000 frames: the line through (frame, bytes) with the least squared error."""
    frames, sizes = zip(*memory, strict=True)
    return float(np.polyfit(frames, sizes, 1)[0]) * 10_000 / 1e6


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--minutes", type=float, default=10.0, show_default=True)
def main(bundle: Path | None, minutes: float) -> None:
    """Measure and write benchmarks/results/soak.json."""
    from edge_runtime import Budget, Runtime, default_bundle_path

    path = bundle or default_bundle_path()
    deadlines = (33.3, 5.0, 2.0, 1.0, 12.0)
    frames = int(minutes * 60 * FPS)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    memory: list[tuple[int, int]] = []
    latency: list[float] = []
    used: set[str] = set()
    with (
        TemporaryDirectory() as folder,
        Runtime.load(path, threads=1, telemetry=Path(folder) / "t.jsonl", global_thread_pool=True) as runtime,
    ):
        runtime.wait_ready()
        started = time.perf_counter()
        for index in range(frames):
            runtime.budget = Budget(deadlines[index // 300 % len(deadlines)])
            result = runtime.infer(picture)
            latency.append(result.latency_ms)
            used.add(result.decision.point)
            if index % SAMPLE_EVERY_FRAMES == 0:
                gc.collect()
                memory.append((index, anonymous_bytes()))
            time.sleep(max(0.0, started + (index + 1) / FPS - time.perf_counter()))
    settled = [(i, b) for i, b in memory if i >= frames * SETTLE_SHARE]
    values = {
        "bundle": Path(path).name,
        "minutes": minutes,
        "frames": frames,
        "fps": FPS,
        "memory_slope_mb_per_10000_frames": round(slope_mb(settled), 4),
        "memory": "anonymous resident memory of the process",
        "memory_first_mb": round(settled[0][1] / 1e6, 2),
        "memory_last_mb": round(settled[-1][1] / 1e6, 2),
        "points_used": len(used),
        "latency_ms": percentiles(latency),
    }
    print(values)
    save("soak", values)


if __name__ == "__main__":
    main()
