"""All policies on all traces, and the table of docs/controller.md: python -m benchmarks.policy_table

While tuning:  python -m benchmarks.policy_table --dry --kinds step,bursts --policies ours,alert --seeds 2 \\
                   --set step_up_dwell_s=0.3

Live figures stand beside the simulated ones where benchmarks/closed_loop.py has measured them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import click

from benchmarks.controller_plots import SHOWN_BESIDE, plot_step, plot_table
from benchmarks.parallel import run_all
from benchmarks.policy_runs import BLIND, REFERENCES, Job, all_kinds, run_job, run_policies, world_maker
from benchmarks.record import RESULTS, save
from benchmarks.scores import Scores, bootstrap_interval
from benchmarks.traces import recorded_traces

PAGE = RESULTS.parent.parent / "docs" / "controller.md"
BEGIN, END = "<!-- policies:begin -->", "<!-- policies:end -->"
REPORTED_SEED = 100
"""The constants were chosen on seeds from 0 on; the page has seeds that took no part in it."""
NEAR = 0.001
"""In-time accuracies closer than this are equal."""
Table = dict[str, dict[str, dict[str, Any]]]
"""kind -> policy -> means over the seeds."""


def simulate_table(
    kinds: Sequence[str], policies: Sequence[str], seeds: range, processes: int, settings: Any, jitter: float = 1.0
) -> Table:
    """Run everything; a recording has one seed, the generated traces those that are asked for."""
    recorded = {t.name for t in recorded_traces()}
    jobs = [
        Job(kind, seed, tuple(policies), tuple(settings.items()), jitter)
        for kind in kinds
        for seed in (range(1) if kind in recorded else seeds)
    ]
    found: dict[str, dict[str, list[Scores]]] = defaultdict(lambda: defaultdict(list))
    for job, scores in run_all(run_job, jobs, processes, "simulated"):
        for policy, values in scores.items():
            found[job.kind][policy].append(values)
    return {kind: {policy: summary(found[kind][policy]) for policy in (*policies, *REFERENCES)} for kind in kinds}


def summary(scores: Sequence[Scores]) -> dict[str, Any]:
    """Means over seeds, with the 95 % interval of the regret."""

    def mean(name: str) -> float | None:
        values = [v for s in scores if (v := getattr(s, name)) is not None]
        return round(statistics.fmean(values), 5) if values else None

    names = (
        "attainment", "in_time_accuracy", "oracle_accuracy", "regret", "switches_per_minute", "dropped",
        "p99_latency_ms", "recovery_frames", "up_s", "calibration_error",
    )  # fmt: skip
    worst = [s.recovery_frames_worst for s in scores if s.recovery_frames_worst is not None]
    low, high = bootstrap_interval([s.regret for s in scores])
    return {
        "runs": len(scores),
        "feasible": round(statistics.fmean(s.feasible / s.frames for s in scores), 5),
        **{name: mean(name) for name in names},
        "recovery_frames_worst": max(worst) if worst else None,
        "regret_interval": [round(low, 5), round(high, 5)],
    }


FIGURES = (
    ("In-time accuracy, %", "in_time_accuracy", 100, 2, max),
    ("Attainment on feasible frames, %", "attainment", 100, 2, max),
    ("Regret, % of the oracle's accuracy", "regret", 100, 2, min),
    ("Switches a minute", "switches_per_minute", 1, 0, None),
    ("Recovery after a step, frames", "recovery_frames", 1, 0, None),
    ("Back up after a step, seconds", "up_s", 1, 1, None),
    ("Calibration error of the expected probability of being on time, points", "calibration_error", 100, 1, None),
)
"""Title, field, scale, digits, and which value of a row is set in bold."""


def render(table: Table, live: Table) -> str:
    """One table a figure, one row a trace; live rows below their replays."""
    rows: list[tuple[str, dict[str, dict[str, Any]]]] = []
    for kind, of in table.items():
        rows.append((kind, of))
        if kind in live:
            rows.append((f"{kind}, live", live[kind]))
    policies = [p for p in next(iter(table.values())) if p not in REFERENCES]
    parts = []
    for title, name, scale, digits, best in FIGURES:
        shown = [(kind, of) for kind, of in rows if any(row.get(name) is not None for row in of.values())]
        known = [p for p in policies if any(of[p].get(name) is not None for _, of in shown if p in of)]
        columns = (*known, *REFERENCES) if name == "in_time_accuracy" else tuple(known)
        lines = [f"**{title}**", "", f"| trace | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        for kind, of in shown:
            values = {p: of[p].get(name) if p in of else None for p in columns}
            own = [v for p, v in values.items() if v is not None and p in policies]
            bold = best(own) if best is not None and own else None
            cells = [_cell(v, scale, digits, v == bold and p in policies) for p, v in values.items()]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        if shown:
            parts.append("\n".join(lines))
    return "\n\n".join(
        [*parts, "\n".join(verdict({**table, **{f"{k}, live": v for k, v in live.items() if k in table}}))]
    )


def verdict(table: Table) -> list[str]:
    """Where ours is not the best, in sentences."""
    lines = []
    for kind, rows in table.items():
        if "ours" not in rows:
            continue
        best = max((p for p in rows if p not in REFERENCES), key=lambda policy: rows[policy]["in_time_accuracy"])
        behind = rows[best]["in_time_accuracy"] - rows["ours"]["in_time_accuracy"]
        if behind > NEAR:
            lines.append(f"- {kind}: {best} is ahead of ours by {100 * behind:.2f} points of in-time accuracy.")
    head = "Ours is best or equal in in-time accuracy on every trace" + (", except:" if lines else ".")
    return [head, *([""] if lines else []), *lines]


def _cell(value: float | None, scale: float, digits: int, bold: bool) -> str:
    if value is None:
        return "-"
    text = f"{value * scale:.{digits}f}" if math.isfinite(value) else "never"
    return f"**{text}**" if bold else text


def render_agreement(live: Table, same_minutes: Table, recorded: Table) -> str:
    """Live, the replay of the same minutes and that of the recording made before: in-time accuracy, markdown."""
    lines = ["| load | policy | live | replay of the same minutes | replay of the recording |", "|---|---|---|---|---|"]
    for kind, rows in same_minutes.items():
        for policy in rows:
            cells = [100.0 * table[kind][policy]["in_time_accuracy"] for table in (live, same_minutes, recorded)]
            lines.append(f"| {kind} | {policy} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def provenance() -> str:
    """Where the recordings and the live rows come from, and how busy the machine was with other things."""
    lines = []
    for what, name in (("Recorded", "contention_noise"), ("Live", "closed_loop")):
        path = RESULTS / f"{name}.json"
        if path.exists():
            at = json.loads(path.read_text(encoding="utf-8"))["environment"]
            lines.append(
                f"{what} on {at['cpu']}, {at['cores']} cores, {at['date'][:10]}, load average "
                f"{at['load_average_1min']:.1f} at its end: `{at['command']}`."
            )
    return "\n".join(lines)


def live_table() -> Table:
    """What closed_loop.py measured, if it has."""
    path = RESULTS / "closed_loop.json"
    return json.loads(path.read_text(encoding="utf-8"))["live"] if path.exists() else {}


def agreement_text() -> str:
    """How far live and replay are apart, if closed_loop.py has measured it."""
    path = RESULTS / "closed_loop.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "same_minutes" not in found:
        return ""
    same, recording = found["agreement"]["same_minutes"], found["agreement"]["recording"]
    table = render_agreement(found["live"], found["same_minutes"], found["replayed"])
    return (
        f"**Live and replayed, in-time accuracy, %**\n\n{table}\n\nOn the same minutes live and replay are within 2 "
        f"points at {same['within_2_points']} of {same['of']}, at most {abs(same['worst_points']):.2f} apart "
        f"({same['worst']}); on the recording made before at {recording['within_2_points']} of {recording['of']}.\n\n"
    )


def write_page(text: str) -> None:
    """Replace what stands between the markers of docs/controller.md."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def draw_step() -> None:
    """A picture of one generated step, for ours and for those that are shown beside it."""
    runs, oracle = run_policies(world_maker("step", 0), ("ours", *SHOWN_BESIDE), 0)
    plot_step([(run, oracle) for run in runs], "controller-step")


@click.command()
@click.option("--kinds", default=None, help="Comma-separated; default: all.")
@click.option("--policies", default=",".join(BLIND), show_default=True)
@click.option("--seeds", default=5, show_default=True, help="Of each generated trace.")
@click.option("--first-seed", default=REPORTED_SEED, show_default=True, help="0 while constants are chosen.")
@click.option("--processes", default=1, show_default=True)
@click.option("--set", "changes", multiple=True, help="A constant of ours, name=value; implies --dry.")
@click.option("--jitter", default=1.0, show_default=True, help="Factor on the recorded scatter; else implies --dry.")
@click.option("--dry", is_flag=True, help="Print only; leave the page and the result as they are.")
def main(
    kinds: str | None,
    policies: str,
    seeds: int,
    first_seed: int,
    processes: int,
    changes: tuple[str, ...],
    jitter: float,
    dry: bool,
) -> None:
    """Simulate, print, and write benchmarks/results/policy_table.json and the table of docs/controller.md."""
    settings = {name: float(value) for name, value in (change.split("=") for change in changes)}
    chosen = kinds.split(",") if kinds else all_kinds()
    unknown = sorted(set(chosen) - set(all_kinds()))
    if unknown:
        raise click.BadParameter(f"no trace is named {unknown[0]!r}; choose from: {', '.join(all_kinds())}")
    drawn = range(first_seed, first_seed + seeds)
    table = simulate_table(chosen, policies.split(","), drawn, processes, settings, jitter)
    text = render(table, live_table())
    print(text)
    if dry or changes or jitter != 1.0:
        return
    plot_table(table)
    draw_step()
    write_page(f"{text}\n\n{agreement_text()}{provenance()}")
    save("policy_table", {"seeds": seeds, "first_seed": first_seed, "simulated": table, "live": live_table()})


if __name__ == "__main__":
    main()
