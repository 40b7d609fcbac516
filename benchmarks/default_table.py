"""The table of docs/default-model.md: every point of the default model, float and int8, with its calibration.

    python -m benchmarks.default_table runs/default-20/model.pt --bundle apps/demo/everyday-20.bundle

Float figures are the training's, from the checkpoint; int8 figures are the converter's, from the bundle's manifest.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "default-model.md"
BEGIN, END = "<!-- points:begin -->", "<!-- points:end -->"


def joined(rows: list[dict[str, Any]], int8: dict[tuple[float, int], dict[str, float]]) -> list[dict[str, Any]]:
    """One row a point, with the int8 accuracy beside the float one; None where int8 was left out."""
    found = []
    for row in rows:
        accuracy = int8.get((row["width"], row["resolution"]))
        found.append(
            {
                "width": row["width"], "resolution": row["resolution"], "mmadds": row["madds"] / 1e6,
                "select": row["select_accuracy"], "test": row["test_accuracy"],
                "int8_test": None if accuracy is None else accuracy["test"], "ece": row["ece"],
                "unsure_known": row["unsure_known"], "unsure_others": row.get("unsure_others"),
            }
        )  # fmt: skip
    return found


def drops(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracy on test that int8 costs, in points: mean and worst."""
    lost = [100.0 * (r["test"] - r["int8_test"]) for r in rows if r["int8_test"] is not None]
    return {"mean": statistics.mean(lost), "worst": max(lost)}


def table(rows: list[dict[str, Any]], lost: dict[str, float]) -> list[str]:
    """Markdown lines."""
    lines = [
        "| width | pixels | MMAdds | select | test | test, int8 | calibration error | known answered unsure "
        "| strangers answered unsure |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        others = "" if r["unsure_others"] is None else f"{r['unsure_others']:.1%}"
        int8 = "left out" if r["int8_test"] is None else f"{r['int8_test']:.1%}"
        lines.append(
            f"| {r['width']:.2f} | {r['resolution']} | {r['mmadds']:.1f} | {r['select']:.1%} | {r['test']:.1%} "
            f"| {int8} | {r['ece']:.1%} | {r['unsure_known']:.1%} | {others} |"
        )
    return [
        *lines,
        "",
        f"int8 costs {lost['mean']:.2f} points of test accuracy on average, {lost['worst']:.1f} at worst.",
    ]


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
def main(checkpoint: Path, bundle: Path) -> None:
    """Write the JSON and the table."""
    from edge_runtime.bundle import Bundle
    from zoo.checkpoint import load_checkpoint

    loaded = Bundle.load(bundle)
    points = [p for p in loaded.points_for("onnxruntime") if loaded.program(p).precision == "int8"]
    int8 = {(p.width, p.size_hw[0]): p.accuracy for p in points}
    rows = joined(load_checkpoint(checkpoint).accuracy, int8)
    lost = drops(rows)
    save("default_table", {"points": rows, "int8_drop_points": lost})
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, *table(rows, lost), END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
