"""The table of docs/bundle.md: both engines and precisions at every point of one bundle, side by side.

    python -m converters build --checkpoint runs/mutualnet-20/model.pt --data imagenet20-64.zip \\
        --out runs/everyday-both.bundle --backend onnxruntime,executorch --precision fp32,int8
    python -m benchmarks.bundle_table runs/everyday-both.bundle

Accuracy and multiply-adds are the manifest's, measured by the converter; latency is measured here, in turn, one thread.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "bundle.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
KINDS = {
    "onnxruntime fp32": "-fp32",
    "onnxruntime int8": "-int8",
    "ExecuTorch fp32": "-fp32-et",
    "ExecuTorch int8": "-int8-et",
}
WARM_UP, RUNS = 10, 100


def measure(bundle: Any) -> dict[str, float]:
    """Point -> median milliseconds of one run; every point of every engine in each round."""
    from edge_runtime.backends import BackendOptions, open_backend

    names = dict.fromkeys(p.backend for p in bundle.manifest.programs)
    backends = {name: open_backend(name, bundle, BackendOptions(threads=1)) for name in names}
    runners = {p.name: b.load(p) for name, b in backends.items() for p in bundle.points_for(name)}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(WARM_UP + RUNS):
        for name, runner in runners.items():
            started = time.perf_counter()
            runner.run()
            if turn >= WARM_UP:
                samples[name].append((time.perf_counter() - started) * 1000.0)
    return {name: statistics.median(values) for name, values in samples.items()}


def rows_of(bundle: Any, latency_ms: dict[str, float]) -> list[dict[str, Any]]:
    """One row per (width, resolution): latency and test accuracy of each kind; None where a point was left out."""
    points = {p.name: p for p in bundle.manifest.points}
    keys = sorted({p.name.partition("-fp32")[0].partition("-int8")[0] for p in points.values()}, reverse=True)
    rows = []
    for key in keys:
        row: dict[str, Any] = {"point": key}
        for kind, suffix in KINDS.items():
            found = points.get(key + suffix)
            row[kind] = None if found is None else {
                "latency_ms": round(latency_ms[found.name], 4), "test_accuracy": found.accuracy["test"]
            }  # fmt: skip
        rows.append(row)
    return rows


def render(rows: list[dict[str, Any]]) -> str:
    """Milliseconds / test accuracy in percent, for the kinds that the bundle has."""
    kinds = [k for k in KINDS if any(row[k] for row in rows)]
    lines = [f"| point | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|"]
    for row in rows:
        cells = [
            "left out" if row[k] is None else f"{row[k]['latency_ms']:.2f} ms / {100 * row[k]['test_accuracy']:.1f}"
            for k in kinds
        ]
        lines.append(f"| {row['point']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def drops(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy that int8 loses on test against fp32 of the same engine, in points."""
    found = {}
    for engine in ("onnxruntime", "ExecuTorch"):
        lost = [
            100 * (row[f"{engine} fp32"]["test_accuracy"] - row[f"{engine} int8"]["test_accuracy"])
            for row in rows
            if row[f"{engine} fp32"] and row[f"{engine} int8"]
        ]
        if lost:
            found[engine] = {"mean": round(statistics.mean(lost), 2), "worst": round(max(lost), 2), "points": len(lost)}
    return found


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Measure, write benchmarks/results/bundle_table.json and the table of docs/bundle.md."""
    from edge_runtime import Bundle

    bundle = Bundle.load(path)
    rows = rows_of(bundle, measure(bundle))
    lost = drops(rows)
    sizes = {
        p.file: bundle.manifest.files[p.file].size_bytes for p in bundle.manifest.programs if p.file.endswith(".pte")
    }
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{render(rows)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(render(rows), lost, sizes, *bundle.manifest.notes, sep="\n")
    save("bundle_table", {
        "bundle": path.name, "threads": 1, "int8_drop_points_on_test": lost, "pte_size_bytes": sizes,
        "notes": list(bundle.manifest.notes), "points": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
