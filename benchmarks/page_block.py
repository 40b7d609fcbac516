"""Fill the marked blocks of docs/bundle.md from committed results: `python -m benchmarks.page_block`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

PAGE = RESULTS.parent.parent / "docs" / "bundle.md"


def fill(page: Path, name: str, lines: list[str]) -> None:
    """Replace what stands between <!-- name:begin --> and <!-- name:end -->.

    Raises:
        ValueError: the page has no such block.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page}: no block {name!r}; put {begin} and {end} where the table belongs")
    page.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")


def _source(values: dict[str, Any]) -> str:
    facts = values["environment"]
    return f"{facts['cpu']}, {facts['date'][:10]}, commit {facts['commit']}: `{facts['command']}`"


def size_lines(values: dict[str, Any]) -> list[str]:
    """Of benchmarks/results/bundle_size.json."""
    lines = [
        "| precision | points | bundle | tables | widest width alone | ratio | plain ONNX file | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for precision, row in values["precisions"].items():
        lines.append(
            f"| {precision} | {row['points']} | {row['bundle_bytes'] / 1e6:.2f} MB "
            f"| {row['bundle_parts']['tables'] / 1e6:.2f} MB | {row['widest_alone_bytes'] / 1e6:.2f} MB "
            f"| {row['ratio_to_widest_alone']:.3f} | {row['plain_onnx_bytes'] / 1e6:.2f} MB "
            f"| {row['ratio_to_plain_onnx']:.3f} |"
        )
    return [*lines, "", f"{values['bundle']}; {_source(values)}"]


def memory_lines(values: dict[str, Any]) -> list[str]:
    """Of benchmarks/results/resident_memory.json."""
    lines = ["| precision | what | PSS | of it no file | ratio | resident at once |", "|---|---|---|---|---|---|"]
    for precision, rows in values["pss_growth"].items():
        for kind, row in rows.items():
            lines.append(
                f"| {precision} | {kind} | {row['settled_mb']:.1f} MB | {row['anonymous_mb']:.1f} MB "
                f"| {row['ratio']:.2f} | {row['fewest_resident']} to {row['most_resident']} of {row['points']} |"
            )
    return [*lines, "", f"{values['bundle']}; {_source(values)}"]


def trial_lines(values: dict[str, Any]) -> list[str]:
    """Of benchmarks/results/residency_trials_*.json."""
    lines = ["| way | sessions | memory of all points | costliest point |", "|---|---|---|---|"]
    for way, row in values["ways"].items():
        lines.append(f"| {way} | {row['sessions']} | {row['growth_mb']:.1f} MB | {row['costliest_point_ms']:.2f} ms |")
    return [*lines, "", f"{values['bundle']}; {_source(values)}"]


def statistics_lines(values: dict[str, Any]) -> list[str]:
    """Of benchmarks/results/shared_statistics.json."""
    lines = ["| statistics | mean change | worst point |", "|---|---|---|"]
    for way, row in values["ways"].items():
        lines.append(f"| {way} | {row['mean_points']:+.2f} | {row['worst_points']:+.2f} |")
    return [*lines, "", f"Points of accuracy, {values['pictures']} test pictures; {_source(values)}"]


BLOCKS = {
    "bundle_size": ("size", size_lines),
    "resident_memory": ("memory", memory_lines),
    "residency_trials_fp32": ("trials-fp32", trial_lines),
    "residency_trials_int8": ("trials-int8", trial_lines),
    "shared_statistics": ("statistics", statistics_lines),
}


def main() -> None:
    """Fill every block whose result is there."""
    for result, (name, lines_of) in BLOCKS.items():
        path = RESULTS / f"{result}.json"
        if path.exists():
            values = json.loads(path.read_text(encoding="utf-8"))
            if result == "resident_memory" and "arena on" in values["pss_growth"]:
                continue  # of the time when every point stayed
            fill(PAGE, name, lines_of(values))
            print(f"{PAGE.name}: {name}")


if __name__ == "__main__":
    main()
