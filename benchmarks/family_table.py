"""The table of docs/family.md: the points of a family bundle, fp32 and int8 side by side.

    python -m converters imagenet --photos PHOTOS.zip --out imagenet-lite.bundle --keep-dominated
    python -m benchmarks.family_table imagenet-lite.bundle

Accuracy and multiply-adds are the manifest's, measured by the converter; latency is measured here, in turn, one thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.bundle_table import measure
from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "family.md"
BEGIN, END = "<!-- family:begin -->", "<!-- family:end -->"
PRECISIONS = ("fp32", "int8")


def rows_of(bundle: Any, latency_ms: dict[str, float]) -> list[dict[str, Any]]:
    """One row per model and size; a precision that was left out is None."""
    points = {p.name: p for p in bundle.manifest.points}
    keys = dict.fromkeys(name.rpartition("-")[0] for name in points)
    rows = []
    for key in keys:
        row: dict[str, Any] = {"point": key}
        for precision in PRECISIONS:
            found = points.get(f"{key}-{precision}")
            row[precision] = None if found is None else {
                "accuracy": found.accuracy, "latency_ms": round(latency_ms[found.name], 3)
            }  # fmt: skip
            row["madds"] = row.get("madds") if found is None else found.madds
        rows.append(row)
    return rows


def render(rows: list[dict[str, Any]]) -> str:
    """Accuracy on test and on all pictures, and milliseconds."""
    lines = ["| model and size | MMAdds | fp32: test / all | int8: test / all | fp32, int8 latency |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        cells, times = [], []
        for precision in PRECISIONS:
            found = row[precision]
            if found is None:
                cells.append("left out")
                times.append("-")
                continue
            shares = (found["accuracy"].get(split) for split in ("test", "all"))
            cells.append(" / ".join("-" if s is None else f"{100 * s:.1f} %" for s in shares))
            times.append(f"{found['latency_ms']:.2f} ms")
        lines.append(f"| {row['point']} | {row['madds'] / 1e6:.0f} | {cells[0]} | {cells[1]} | {', '.join(times)} |")
    return "\n".join(lines)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Measure, write benchmarks/results/family_table.json and the table of docs/family.md."""
    from edge_runtime import Bundle

    bundle = Bundle.load(path)
    rows = rows_of(bundle, measure(bundle))
    size_bytes = sum(fact.size_bytes for fact in bundle.manifest.files.values())
    weights_bytes = bundle.manifest.files[str(bundle.manifest.weights)].size_bytes
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    sizes = f"The bundle has {size_bytes / 1e6:.1f} MB, of which {weights_bytes / 1e6:.1f} MB are weights."
    splits = "; ".join(f"{name}: {what}" for name, what in bundle.manifest.splits.items())
    PAGE.write_text(f"{head}{BEGIN}\n{render(rows)}\n\n{sizes} {splits}.\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(render(rows), sizes, *bundle.manifest.notes, sep="\n")
    save("family_table", {
        "bundle": path.name, "threads": 1, "size_bytes": size_bytes, "weights_bytes": weights_bytes,
        "splits": bundle.manifest.splits, "notes": list(bundle.manifest.notes), "points": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
