"""The table of docs/training.md: MutualNet, US-Net and individually trained widths at every (width, resolution).

Reads the finished checkpoints of `make train-default` and `make train-baselines` and writes
benchmarks/results/training.json and the part of docs/training.md between its markers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.record import save

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "training.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
SINGLES = ("single-0.25-20", "single-0.5-20", "single-0.75-20", "single-1.0-20")


def read_rows(runs: Path) -> dict[str, dict[tuple[float, int], dict[str, Any]]]:
    """Method -> (width, resolution) -> the row that evaluation left in the checkpoint."""
    from zoo.checkpoint import load_checkpoint

    groups = {"mutualnet": ("mutualnet-20",), "usnet": ("usnet-20",), "individual": SINGLES}
    found: dict[str, dict[tuple[float, int], dict[str, Any]]] = {}
    for method, names in groups.items():
        finished = [runs / name / "model.pt" for name in names if (runs / name / "model.pt").exists()]
        rows = [row for path in finished for row in load_checkpoint(path).accuracy]
        found[method] = {(r["width"], r["resolution"]): r for r in rows}
    return found


def frontier(rows: dict[tuple[float, int], dict[str, Any]], madds: int) -> tuple[float, float]:
    """Select and test accuracy of the point that is best on select among those with at most so many multiply-adds."""
    affordable = [r for r in rows.values() if r["madds"] <= madds]
    if not affordable:
        return float("nan"), float("nan")
    best = max(affordable, key=lambda r: (r["select_accuracy"], -r["madds"]))
    return best["select_accuracy"], best["test_accuracy"]


def compare(found: dict[str, dict[tuple[float, int], dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per point: accuracy of each method there, and of the point each would choose for these multiply-adds."""
    table = []
    for key, row in sorted(found["mutualnet"].items(), key=lambda item: -item[1]["madds"]):
        line: dict[str, Any] = {"width": key[0], "resolution": key[1], "madds": row["madds"]}
        for method, rows in found.items():
            line[f"{method}_test"] = rows[key]["test_accuracy"] if key in rows else None  # a run that is not finished
            line[f"{method}_budget_test"] = frontier(rows, row["madds"])[1]
        table.append(line)
    return table


def render(table: list[dict[str, Any]]) -> str:
    """The table as Markdown, in percent; the gap is MutualNet's budget column less the better of the two others."""
    lines = [
        "| width | px | MMAdds | MutualNet | US-Net | individual | budget: MutualNet | US-Net | individual | gap |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        gap = row["mutualnet_budget_test"] - max(row["usnet_budget_test"], row["individual_budget_test"])
        cells = [f"{row['width']:.2f}", str(row["resolution"]), f"{row['madds'] / 1e6:.2f}"]
        for kind in ("test", "budget_test"):
            found = [row[f"{method}_{kind}"] for method in ("mutualnet", "usnet", "individual")]
            cells += ["not trained" if value is None else f"{100 * value:.1f}" for value in found]
        lines.append("| " + " | ".join([*cells, f"{100 * gap:+.1f}"]) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def main(runs: Path) -> None:
    """Write the table."""
    table = compare(read_rows(runs))
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{render(table)}\n{END}{tail}", encoding="utf-8")
    print(render(table))
    save("training", {"split": "test; the point for a budget is chosen on select", "points": table})


if __name__ == "__main__":
    main()
