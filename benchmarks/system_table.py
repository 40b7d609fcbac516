"""The tables of docs/zoo.md: all systems, what their small versions reach, and ResFormer over unseen resolutions.

    python -m zoo train --recipe zoo/recipes/NAME.toml --data imagenet20-64.zip --out runs/NAME  # system-*
    python -m benchmarks.pixel_probe imagenet20-64.zip
    python -m benchmarks.system_bundles --data imagenet20-64.zip
    python -m benchmarks.system_table --data imagenet20-64.zip

Accuracy comes from the finished checkpoints, parity from benchmarks/results/system_bundles.json, the probe from
pixel_probe.json; latency and the unseen resolutions are measured here. A system without checkpoint keeps what was
recorded of it, or is shown as such; the page says which latency is of which machine.
`--keep-measured` keeps the recorded latencies and resolutions, `--page-only` writes the page from what is recorded.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.page_block import fill
from benchmarks.record import RESULTS, environment, save
from benchmarks.system_list import PLAIN_TRANSFORMER, RESFORMER, SYSTEMS
from benchmarks.system_page import KINDS, SIDES, resolution_lines, small_lines, system_lines

PAGE = RESULTS.parent.parent / "docs" / "zoo.md"
TRAINED = tuple(s.recipe for s in SYSTEMS if s.recipe is not None)
WARM_UP, RUNS = 10, 100


def measure_checkpoint(path: Path) -> dict[str, Any]:
    """What training left, for the largest resolution, and how large the network is."""
    from zoo.checkpoint import load_checkpoint
    from zoo.slim_net import materialise

    checkpoint = load_checkpoint(path)
    rows = sorted(checkpoint.accuracy, key=lambda row: (row["width"], row["resolution"]), reverse=True)
    plain = materialise(checkpoint.build(), width=rows[0]["width"], resolution=rows[0]["resolution"])
    recipe = checkpoint.recipe
    return {
        "model": recipe["model"], "options": recipe["model_options"], "method": recipe["method"],
        "epochs": recipe["epochs"], "seed": recipe["seed"],
        "parameters": sum(p.numel() for p in plain.parameters()),
        "points": [
            {k: row[k] for k in ("width", "resolution", "madds", "select_accuracy", "test_accuracy")} for row in rows
        ],
    }  # fmt: skip


def measure_latency(bundles: dict[str, Path], side_of: dict[str, int]) -> dict[str, dict[str, float]]:
    """Recipe -> kind -> median milliseconds of one picture at the largest resolution, one thread, all in turn."""
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.bundle import Bundle

    runners: dict[tuple[str, str], Any] = {}
    backends = []
    for name, path in bundles.items():
        bundle = Bundle.load(path)
        key = f"w1.00-r{side_of[name]:03d}"
        for engine in dict.fromkeys(p.backend for p in bundle.manifest.programs):
            backends.append(open_backend(engine, bundle, BackendOptions(threads=1)))
            points = {p.name: p for p in bundle.points_for(engine)}
            for kind, suffix in KINDS.items():
                if key + suffix in points:
                    runners[name, kind] = backends[-1].load(points[key + suffix])
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    for turn in range(WARM_UP + RUNS):
        for key, runner in runners.items():
            started = time.perf_counter()
            runner.run()
            if turn >= WARM_UP:
                samples[key].append((time.perf_counter() - started) * 1000.0)
    found: dict[str, dict[str, float]] = {name: {} for name in bundles}
    for (name, kind), values in samples.items():
        found[name][kind] = round(statistics.median(values), 4)
    return found


def measure_resolutions(paths: dict[str, Path], data: str) -> dict[str, dict[str, float]]:
    """Recipe -> side -> accuracy (0-1) on test; layer norms need no statistics, so any side can be asked for."""
    from zoo.calibrate import calibrate
    from zoo.checkpoint import load_checkpoint
    from zoo.evaluate import evaluate_points
    from zoo.pictures import PictureSource, Split

    source = PictureSource(data)
    splits = source.splits()
    few = Split(splits["train"].names[:1], splits["train"].labels[:1])
    found = {}
    for name, path in paths.items():
        checkpoint = load_checkpoint(path)
        model, recipe = checkpoint.build(), checkpoint.recipe
        points = [(1.0, side) for side in SIDES]
        calibrate(model, source, few, points, recipe["mean"], recipe["std"])
        rows = evaluate_points(model, source, {"test": splits["test"]}, points, recipe["mean"], recipe["std"])
        found[name] = {str(row["resolution"]): row["test_accuracy"] for row in rows}
    return found


def _recorded(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def measure(runs: Path, data: str, anew: bool) -> None:
    """Everything that can be measured now, into benchmarks/results/system_table.json."""
    import torch

    torch.set_num_threads(1)
    names = [n for n in (*TRAINED, PLAIN_TRANSFORMER) if (runs / n / "model.pt").exists()]
    trained = {n: measure_checkpoint(runs / n / "model.pt") for n in names}
    built = {n: runs / f"{n}.bundle" for n in names if (runs / f"{n}.bundle" / "manifest.json").exists()}
    before = _recorded("system_table")
    trained = before.get("trained", {}) | trained
    times, resolutions = before.get("latency_ms", {}), before.get("resolutions", {})
    machines = before.get("machines") or {n: _machine(before["environment"]) for n in times}
    if anew:
        times |= measure_latency(built, {n: trained[n]["points"][0]["resolution"] for n in built})
        machines |= dict.fromkeys(built, _machine(environment()))
        pair = {n: runs / n / "model.pt" for n in (RESFORMER, PLAIN_TRANSFORMER) if n in names}
        resolutions |= measure_resolutions(pair, data)
    save("system_table", {
        "probe": _recorded("pixel_probe")["chosen"], "trained": trained, "latency_ms": times, "machines": machines,
        "bundles": {n: v for n, v in _recorded("system_bundles").get("systems", {}).items() if n in trained},
        "resolutions": resolutions,
    })  # fmt: skip


def _machine(facts: dict[str, Any]) -> str:
    return f"{facts['cpu']}, {facts['date'][:10]}"


@click.command()
@click.option("--data", help="The pictures that the systems were trained on.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--keep-measured", is_flag=True, help="Keep the recorded latencies and resolutions.")
@click.option("--page-only", is_flag=True, help="Write the page from what is recorded.")
def main(data: str | None, runs: Path, keep_measured: bool, page_only: bool) -> None:
    """Measure, and write the JSON and the tables."""
    if not page_only:
        if data is None:
            raise click.UsageError("--data is missing; give the pictures, or --page-only")
        measure(runs, data, not keep_measured)
    values = _recorded("system_table")
    for name, lines in (
        ("systems", system_lines(values)),
        ("small", small_lines(values)),
        ("resolutions", resolution_lines(values)),
    ):
        fill(PAGE, name, lines)
        print("\n".join(lines))


if __name__ == "__main__":
    main()
