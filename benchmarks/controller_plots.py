"""Pictures of the controller's results, under docs/pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS
from benchmarks.simulator import RunLog

PICTURES = RESULTS.parent.parent / "docs" / "pictures"
COLOURS = {
    "ours": "#0b6e4f", "alert": "#d1495b", "threshold": "#edae49", "pi": "#7a6c9d", "slackfit": "#66a3d2",
    "static": "#999999", "best-static": "#555555", "best of each second": "#000000", "oracle": "#000000",
}  # fmt: skip
SHOWN_BESIDE = ("threshold", "alert")
LARGEST_REGRET = 0.45
"""The axis ends here; worse ones are drawn at its edge."""


def plot_table(table: dict[str, dict[str, dict[str, Any]]]) -> Path:
    """Regret of every policy on every trace, one row a trace."""
    figure, axes = _figure(8.0, 0.9 + 0.34 * len(table))
    kinds = list(table)
    policies = [p for p in COLOURS if p != "oracle" and any(p in rows for rows in table.values())]
    for policy in reversed(policies):
        at = [
            (100 * min(table[k][policy]["regret"], LARGEST_REGRET), i)
            for i, k in enumerate(kinds)
            if policy in table[k]
        ]
        marker, size = ("|", 160) if policy == "best of each second" else ("o", 70 if policy == "ours" else 34)
        axes.scatter(*zip(*at, strict=True), label=policy, color=COLOURS[policy], marker=marker, s=size, zorder=3)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set_xlabel(f"accuracy lost against the oracle, % of its own (beyond {100 * LARGEST_REGRET:.0f} at the edge)")
    axes.grid(axis="x", color="#dddddd")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _save(figure, "controller-regret")


def plot_step(runs: Sequence[tuple[RunLog, RunLog]], name: str) -> Path:
    """Which accuracy was chosen over time around a load step, and which frames were late: (run, its oracle) each."""
    figure, all_axes = _figure(8.0, 1.5 * len(runs) + 0.6, rows=len(runs))
    for axes, (run, oracle) in zip(np.atleast_1d(all_axes), runs, strict=True):
        at_s = np.arange(len(run.score)) / run.fps
        accuracy = np.array([p.accuracy for p in run.points])
        axes.plot(at_s, 100 * oracle.score, color="#c8c8c8", linewidth=0.8, label="oracle")
        chosen = np.where(run.point >= 0, accuracy[run.point], np.nan)
        axes.step(at_s, 100 * chosen, where="post", color=COLOURS[run.policy], linewidth=1.2, label=run.policy)
        missed = run.feasible & ~run.on_time
        axes.plot(at_s[missed], np.full(missed.sum(), 100 * accuracy.min() - 3), "|", color="#d00000", label="missed")
        for (begin_s, what), (end_s, _) in zip(run.marks, [*run.marks[1:], (at_s[-1], "")], strict=True):
            if what == "load on":
                axes.axvspan(begin_s, end_s, color="#f4e9d8", zorder=0)
        axes.set_ylabel("accuracy, %")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, fontsize=8, frameon=False)
    axes.set_xlabel("seconds; others load the cores in the shaded time")
    return _save(figure, name)


def plot_live(live: dict[str, Any], same_minutes: dict[str, Any], recorded: dict[str, Any]) -> Path:
    """In-time accuracy of each load and policy live, against its replays: of the same minutes, and hollow of the
    recording made before."""
    figure, axes = _figure(5.4, 4.6)
    for policy, colour in COLOURS.items():
        for replayed, face in ((recorded, "none"), (same_minutes, colour)):
            pairs = [
                (100 * replayed[kind][policy]["in_time_accuracy"], 100 * rows[policy]["in_time_accuracy"])
                for kind, rows in live.items()
                if policy in same_minutes.get(kind, {})
            ]
            if pairs:
                label = policy if replayed is same_minutes else None
                axes.scatter(*zip(*pairs, strict=True), facecolors=face, edgecolors=colour, label=label, s=30, zorder=3)
    axes.scatter([], [], facecolors="none", edgecolors="#555555", s=30, label="hollow: the recording made before")
    low, high = (f(*axes.get_xlim(), *axes.get_ylim()) for f in (min, max))
    line = np.array([low, high])
    axes.fill_between(line, line - 2, line + 2, color="#eeeeee", zorder=0, label="within 2 points")
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="in-time accuracy in replay, %", ylabel="live, %")
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, "controller-live")


def plot_fleet(values: dict[str, dict[str, Sequence[float]]]) -> Path:
    """Distribution over devices: policy -> {"attainment": ..., "regret": ...}."""
    figure, (left, right) = _figure(8.0, 3.4, columns=2)
    for policy, of in values.items():
        for axes, name in ((left, "attainment"), (right, "regret")):
            ordered = 100 * np.sort(np.asarray(of[name], np.float64))
            share = 100 * (np.arange(len(ordered)) + 1) / len(ordered)
            axes.plot(ordered, share, color=COLOURS[policy], label=policy)
    left.set(xlabel="attainment, %", ylabel="devices at or below, %", xlim=(80, 100.2), yscale="log")
    left.set_yticks([1, 5, 10, 50, 100], ["1", "5", "10", "50", "100"])
    right.set(xlabel="accuracy lost against the oracle, %", ylabel="devices at or below, %", xlim=(-2, 40))
    right.legend(frameon=False, fontsize=8)
    return _save(figure, "fleet-tail")


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "edge-runtime", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", sharex=rows > 1)


def _save(figure: Any, name: str) -> Path:
    import matplotlib.pyplot as plt

    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"wrote {path.relative_to(PICTURES.parent.parent)}")
    return path
