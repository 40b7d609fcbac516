"""Extra latency of a switch between resident points, over all ordered pairs.

For each pair (A, B): two frames at A, then one at B; the extra latency is that frame's time less the median time of a
frame at B that follows frames at B. What the second frame at A takes beyond its own median is what the machine scatters
by without any switch. Neighbours are next to each other in latency. Three ways to run the engine are compared, each in
processes of its own, in turn.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import percentiles, save

WAYS = {
    "one global pool, no spinning": {"global_thread_pool": True, "spinning": False},
    "a pool per session, no spinning": {"global_thread_pool": False, "spinning": False},
    "onnxruntime's defaults": {"global_thread_pool": False, "spinning": True},
}
KINDS = {"all": "all pairs", "neighbours": "neighbours", "none": "no switch"}
STEADY_FRAMES, TURNS_PER_PAIR, ROUNDS = 60, 3, 3


def measure(bundle_path: str, options: dict[str, Any]) -> dict[str, Any]:
    """In a child process, milliseconds: extra latencies of all pairs, of neighbours, and of frames without a switch."""
    from edge_runtime import Budget, Bundle, Runtime
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.sensor_loop import NoSensors

    bundle = Bundle.load(bundle_path)
    name = bundle.manifest.programs[0].backend
    points = bundle.points_for(name)
    backend = open_backend(name, bundle, BackendOptions(**options))
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with Runtime(bundle, backend, points, budget=Budget(1000.0), sensors=NoSensors(), resident="all") as runtime:
        runtime.wait_ready()

        def frame_ms(point: str) -> float:
            runtime.pin(point)
            started = time.perf_counter()
            runtime.infer(picture)
            return (time.perf_counter() - started) * 1000.0

        names = [p.name for p in points]
        steady = {n: statistics.median([frame_ms(n) for _ in range(STEADY_FRAMES)][10:]) for n in names}
        pairs = [(a, b) for a in names for b in names if a != b] * TURNS_PER_PAIR
        random.Random(0).shuffle(pairs)
        place = {n: i for i, n in enumerate(sorted(names, key=steady.__getitem__))}
        extra: dict[str, list[float]] = {"all": [], "neighbours": [], "none": []}
        for before, after in pairs:
            frame_ms(before)
            extra["none"].append(frame_ms(before) - steady[before])
            extra["all"].append(frame_ms(after) - steady[after])
            if abs(place[before] - place[after]) == 1:
                extra["neighbours"].append(extra["all"][-1])
    return extra


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--threads", default="1,2", show_default=True)
@click.option("--rounds", default=ROUNDS, show_default=True, help="Processes per way, in turn.")
@click.option("--child", hidden=True, default=None)
def main(bundle: Path | None, threads: str, rounds: int, child: str | None) -> None:
    """Measure and write benchmarks/results/switch_latency.json."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    if child is not None:
        print(json.dumps(measure(path, json.loads(child))))
        return
    results: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for count in (int(t) for t in threads.split(",")):
        samples: dict[str, dict[str, list[float]]] = {way: {kind: [] for kind in KINDS} for way in WAYS}
        for _ in range(rounds):
            for way, options in WAYS.items():
                command = [sys.executable, "-m", "benchmarks.switch_latency", "--bundle", path]
                command += ["--child", json.dumps({"threads": count, **options})]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                for kind, values in json.loads(output.splitlines()[-1]).items():
                    samples[way][kind] += values
        for way, kinds in samples.items():
            for kind, values in kinds.items():
                results[kind][f"{count} threads, {way}"] = percentiles(values)
                print(f"{count} threads, {way}, {KINDS[kind]}: extra ms {percentiles(values)}", flush=True)
    save("switch_latency", {
        "bundle": Path(path).name, "extra_latency_ms": results["all"], "extra_of_neighbours_ms": results["neighbours"],
        "extra_without_switch_ms": results["none"],
    })  # fmt: skip


if __name__ == "__main__":
    main()
