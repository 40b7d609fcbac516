"""The tables of the README, from benchmarks/results/*.json: python -m benchmarks.readme_table"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.glance_focus_tables import fill
from benchmarks.record import RESULTS

PAGE = RESULTS.parent.parent / "README.md"
ONE_POINT, BEST_POINT, OURS, CLAIRVOYANT = "static", "best-static", "ours", "oracle"
LOADS = {
    "stationary": "no other program",
    "step": "one busy process on each core for a third of the time",
    "bursts": "the same, on and off within a second",
}
POOL, DEFAULTS = "one global pool, no spinning", "onnxruntime's defaults"


def _read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return values


def _accuracy_rows() -> list[tuple[str, str, str]]:
    shipped, scratch = _read("default_table")["points"], _read("training")["points"]
    ends = [
        [(f"{100 * p['int8_test']:.1f} %", p["mmadds"]) for p in (shipped[0], shipped[-1])],
        [(f"{100 * p['mutualnet_test']:.1f} %", p["madds"] / 1e6) for p in (scratch[0], scratch[-1])],
    ]
    texts = [" down to ".join(f"{accuracy} at {cost:.1f} MMAdds" for accuracy, cost in end) for end in ends]
    return [
        (f"test accuracy of the shipped model over {len(shipped)} int8 points, 20 classes", texts[0], "default_table"),
        (f"the same of a small network from scratch, {len(scratch)} points", texts[1], "training_table"),
    ]


def _switch_rows() -> list[tuple[str, str, str]]:
    rows = []
    measured = _read("switch_latency")
    extra = measured["extra_latency_ms"]
    for threads in (1, 2):
        ours, theirs = extra[f"{threads} threads, {POOL}"], extra[f"{threads} threads, {DEFAULTS}"]
        text = f"{ours['p50']:.2f} / {ours['p99']:.2f} ms (defaults: {theirs['p50']:.2f} / {theirs['p99']:.2f} ms)"
        label = f"extra latency of a switch, p50 / p99, {threads} thread{'s' if threads > 1 else ''}"
        rows.append((f"{label}, all ordered pairs", text, "switch_latency"))
        near, none = (
            measured[f"extra_{kind}_ms"][f"{threads} threads, {POOL}"] for kind in ("of_neighbours", "without_switch")
        )
        text = f"{near['p50']:.2f} / {near['p99']:.2f} ms (without a switch: {none['p50']:.2f} / {none['p99']:.2f} ms)"
        rows.append((f"{label}, neighbours", text, "switch_latency"))
    return rows


def _other_rows() -> list[tuple[str, str, str]]:
    overhead = _read("pipeline_overhead")["overhead_ms"]
    imported, memory, soak = _read("import_time"), _read("resident_memory")["pss_growth"], _read("soak")
    precision, memory = next(iter(memory.items()))
    selectable = memory["every point selectable"]
    slope = f"{soak['memory_slope_mb_per_10000_frames']:+.2f} MB per 10,000 frames"
    return [
        ("frame time beside resize and engine, p50 / p99", f"{overhead['p50']:.2f} / {overhead['p99']:.2f} ms",
         "pipeline_overhead"),
        ("`import edge_runtime`, median", f"{1000 * imported['import_s_median']:.0f} ms", "import_time"),
        (f"memory with {selectable['points']} {precision} points selectable",
         f"{selectable['settled_mb']:.1f} MB, {selectable['ratio']:.2f}x the largest alone", "resident_memory"),
        (f"memory slope over {soak['minutes']:.0f} minutes at 30 fps", slope, "soak"),
    ]  # fmt: skip


def adapting_table(live: dict[str, dict[str, Any]]) -> str:
    """Markdown: what each way to run the shipped bundle keeps, live, under three loads.

    Args:
        live: recorded load -> policy -> scores, of benchmarks/closed_loop.py.
    """

    def cell(scores: dict[str, Any]) -> str:
        return f"{scores['attainment']:.1%}, {scores['in_time_accuracy']:.1%}"

    lines = [
        "| beside it runs | the most accurate point, always | the best single point, known afterwards | edge-runtime | "
        "a clairvoyant |",
        "|---|---|---|---|---|",
    ]
    for load, text in LOADS.items():
        found = next(scores for name, scores in live.items() if f" {load} " in name)
        cells = " | ".join(cell(found[policy]) for policy in (ONE_POINT, BEST_POINT, OURS))
        lines.append(f"| {text} | {cells} | {found[CLAIRVOYANT]['in_time_accuracy']:.1%} |")
    return "\n".join(lines)


def measured_table() -> str:
    """Markdown, a row for each figure, and the machine above it."""
    rows = [*_accuracy_rows(), *_switch_rows(), *_other_rows()]
    environment = _read("switch_latency")["environment"]
    lines = [
        f"On {environment['cpu']}, {environment['cores']} cores, onnxruntime {environment['versions']['onnxruntime']}:",
        "",
        "| what | figure | `python -m benchmarks.` |",
        "|---|---|---|",
        *(f"| {what} | {figure} | `{script}` |" for what, figure, script in rows),
    ]
    return "\n".join(lines)


def main() -> None:
    """Rewrite the tables."""
    tables = {"adapting": adapting_table(_read("closed_loop")["live"]), "measured": measured_table()}
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
