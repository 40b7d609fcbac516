"""The tables of docs/zoo.md as Markdown, from the values that system_table.py records."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.system_list import ABS, PLAIN_TRANSFORMER, RESFORMER, SYSTEMS, System

KINDS = {"ORT fp32": "-fp32", "ORT int8": "-int8", "ET fp32": "-fp32-et", "ET int8": "-int8-et"}
"""Engine (onnxruntime, ExecuTorch) and precision -> how the names of its points end."""
SIDES = (24, 32, 40, 48, 56, 64, 72, 80, 96)
"""For ResFormer and the plain transformer: what patches of 8 pixels tile."""
MARGIN = 0.20
"""By how much a network should beat the linear classifier on pixels."""


def unseen(values: dict[str, Any]) -> list[int]:
    """The sides that neither transformer was trained at."""
    trained = {p["resolution"] for name in (RESFORMER, PLAIN_TRANSFORMER) for p in values["trained"][name]["points"]}
    return [side for side in SIDES if side not in trained]


def resolution_lines(values: dict[str, Any]) -> list[str]:
    """ResFormer against the same network without its recipe."""
    found = values["resolutions"]
    if not {RESFORMER, PLAIN_TRANSFORMER} <= set(found):
        return ["Not measured: both transformers have to be trained first."]
    sides = unseen(values)
    lines = [
        "| side, px | " + " | ".join(f"{s}" if s in sides else f"{s} (trained)" for s in SIDES) + " | mean of unseen |",
        "|---" * (2 + len(SIDES)) + "|",
    ]
    for title, name in (("ResFormer", RESFORMER), ("the same network, one resolution", PLAIN_TRANSFORMER)):
        cells = [f"{100 * found[name][str(s)]:.1f}" for s in SIDES]
        mean = statistics.mean(found[name][str(s)] for s in sides)
        lines.append(f"| {title} | {' | '.join(cells)} | {100 * mean:.1f} |")
    epochs = values["trained"][RESFORMER]["epochs"]
    lines += ["", f"Test accuracy in percent, 1,000 pictures, {epochs} epochs each, one seed. {_source(values)}"]
    return lines


def small_lines(values: dict[str, Any]) -> list[str]:
    """What the small versions reach, cost, and lose on each engine."""
    probe = values["probe"]["test"]
    lines = [
        "| system | model | params, M | MMAdds | px | epochs | select | test | over pixels "
        "| " + " | ".join(f"{kind}, ms" for kind in KINDS) + " | int8 test, ORT / ET | parity, ORT / ET | plays on |",
        "|---" * (12 + len(KINDS)) + "|",
    ]
    titles = {s.recipe: s.title.partition(",")[0] for s in SYSTEMS if s.recipe} | {PLAIN_TRANSFORMER: "plain ViT"}
    for name, title in titles.items():
        row = values["trained"].get(name)
        if row is None:
            lines.append(f"| {title} | `{name}` is not trained" + " |" * (11 + len(KINDS)))
            continue
        lines.append(_small_row(title, row, values["latency_ms"].get(name, {}), values["bundles"].get(name, {}), probe))
    pixels = f"{100 * probe:.1f} % of test with logistic regression on {values['probe']['side']}-pixel pictures"
    lines += [
        "",
        f"*Over pixels*: points of test accuracy above {pixels}. *Parity*: largest difference of a logit from torch's, "
        "as a share of the largest logit, over the select and test pictures and all float points; a bundle is only "
        f"written where 99.9 % of the answers agree. One seed. Latency: batch 1, one thread, in turn. "
        f"{_machines(values)}{_source(values)}",
    ]
    for name, built in values["bundles"].items():
        lines += [f"- `{name}`, refused: {what}: {why}" for what, why in built["refused"].items()]
        lines += [
            f"- `{name}`: {note}" for note in built.get("notes", ()) if "left out" in note or "stay float" in note
        ]
    return lines


def _small_row(title: str, row: dict[str, Any], times: dict[str, float], built: dict[str, Any], probe: float) -> str:
    """One trained system: network, accuracy, latency by kind, and what its bundle holds."""
    point = row["points"][0]
    over = point["test_accuracy"] - probe
    options = ", ".join(f"{k} {v}" for k, v in row["options"].items())
    cells = [
        title, f"`{row['model']}`, {options}", f"{row['parameters'] / 1e6:.2f}", f"{point['madds'] / 1e6:.1f}",
        str(point["resolution"]), str(row["epochs"]), f"{100 * point['select_accuracy']:.1f}",
        f"{100 * point['test_accuracy']:.1f}", f"{100 * over:+.1f}" + ("" if over >= MARGIN else " (short)"),
        *(f"{times[kind]:.2f}" if kind in times else "-" for kind in KINDS),
        " / ".join(_int8_cell(built, point["resolution"], suffix) for suffix in ("-int8", "-int8-et")),
        " / ".join(_parity_cell(built, suffix) for suffix in ("-fp32", "-fp32-et")), _played_cell(built),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def system_lines(values: dict[str, Any]) -> list[str]:
    """All systems."""
    lines = [
        "| system, file | paper | what it brings | variants | width knob | resolution | parity | exports "
        "| small data |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for system in SYSTEMS:
        files = ", ".join(f"`{file}`" for file in system.files)
        papers = ", ".join(f"[{number}]({ABS}{number})" for number in system.papers)
        row = values["trained"].get(system.recipe)
        result = "-" if row is None else f"{100 * row['points'][0]['test_accuracy']:.1f} %"
        cells = [
            f"{system.title}<br>{files}", papers, system.brings, str(len(system.variants) or "-"), system.width_knob,
            system.resolution_knob, system.parity, _exports(system, values["bundles"]), result,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _exports(system: System, bundles: dict[str, Any]) -> str:
    """What the trained system's bundle holds, else what the tests export."""
    built = bundles.get(system.recipe) if system.recipe else None
    if built is None or not built["checks"]:
        return "ONNX (tests)"
    kinds = [kind for kind, suffix in KINDS.items() if any(p.endswith(suffix) for p in built["points"])]
    return ", ".join(kinds)


def _int8_cell(built: dict[str, Any], side: int, suffix: str) -> str:
    found = built.get("checks", {}).get(f"w1.00-r{side:03d}{suffix}")
    return "-" if found is None else f"{100 * found['accuracy']['test']:.1f}"


def _parity_cell(built: dict[str, Any], suffix: str) -> str:
    errors = [c["max_relative_error"] for point, c in built.get("checks", {}).items() if point.endswith(suffix)]
    return f"{max(errors):.0e}" if errors else "-"


def _played_cell(built: dict[str, Any]) -> str:
    engines = {"onnxruntime": "ORT", "executorch": "ET"}
    played = built.get("played", {})
    names = [engines[name] for name, run in played.items() if run["frames"]]
    faults = [v for v in built.get("self_test", {}).values() if v["fault"] is not None]
    return (", ".join(names) or "-") + (f"; {len(faults)} self-tests fail" if faults else "")


def _machines(values: dict[str, Any]) -> str:
    """Which latency is of which machine, where there are several."""
    of: dict[str, list[str]] = {}
    for name, machine in values.get("machines", {}).items():
        of.setdefault(machine, []).append(f"`{name}`")
    if len(of) < 2:
        return ""
    return "Compare latencies of one machine only: " + "; ".join(f"{m}: {', '.join(n)}" for m, n in of.items()) + ". "


def _source(values: dict[str, Any]) -> str:
    facts = values["environment"]
    return f"{facts['cpu']}, {facts['date'][:10]}, commit {facts['commit']}: `python -m benchmarks.system_table`"
