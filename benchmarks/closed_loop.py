"""All policies live on this machine, beside real contention: python -m benchmarks.closed_loop --minutes 20

First every load is recorded at every rate with all points in turn (record_contention.py); the recordings are committed,
give the deadlines, and are what the replays run on. Then the policies run in blocks in random order, each with the same
script of contention per seed, in a real Runtime with this device's sensors; nobody tells them of the load. The oracle
of a block is the clairvoyant replay of what was measured in it (counterfactual.py), and its own policy is replayed on
that, too: whether live agrees with replay is told by the same minutes. A late or dropped frame scores 0.

Writes benchmarks/results/closed_loop.json, docs/pictures/controller-live.svg and -live-step.svg. Nothing else should
run meanwhile.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from benchmarks.contention import LOADS
from benchmarks.controller_plots import COLOURS, SHOWN_BESIDE, plot_live, plot_step
from benchmarks.frame_loop import Meter, measure_quiet, open_meter
from benchmarks.live_block import Block, LiveSetup, Outcome, run_block
from benchmarks.policy_runs import BLIND, REFERENCES, best_static, run_policies
from benchmarks.policy_table import Table, render, render_agreement, summary
from benchmarks.record import save
from benchmarks.record_contention import record_all
from benchmarks.scores import Scores, score
from benchmarks.simulator import RunLog, steady_choice, switch_cost_ms
from benchmarks.traces import Trace, TraceWorld
from edge_runtime import Bundle, default_bundle_path
from edge_runtime.manifest import OperatingPoint

SHORTEST_S = 8.0
"""A block shorter than this has no time to come back up after a third of load."""
AROUND_S = 2.0
"""What a block takes beside its length: opening and warming the points."""
RECORDING_SHARE = 0.2
"""Of the time, for the recordings."""
TOP_SHARE_OF_PERIOD = 0.55
"""The costliest point should take about this share of a frame period at 30 fps; --repeat 0 sees to it."""

ByPolicy = dict[str, dict[str, list[Scores]]]
"""kind -> policy -> scores, one a seed."""
BlockRuns = dict[Block, Outcome]


def choose_repeat(bundle: Bundle) -> int:
    """How often to run each network so that a camera's deadline matters."""
    meter, points = open_meter(bundle, 1)
    costliest = max(points, key=lambda p: p.madds)
    quiet_ms = measure_quiet(meter, (costliest,))
    meter.close()
    return max(1, round(TOP_SHARE_OF_PERIOD * 1000.0 / 30.0 / quiet_ms[costliest.name]))


def replay(kind: str, trace: Trace, policies: list[str]) -> dict[str, Scores]:
    """The policies on the recording, in simulation."""
    runs, oracle = run_policies(lambda: TraceWorld(trace), policies, seed=0)
    return {run.policy: score(run, oracle) for run in (*runs, steady_choice(oracle), oracle)}


def run_blocks(blocks: list[Block], setup: LiveSetup) -> BlockRuns:
    """All blocks, in the order given."""
    from rich.progress import Progress

    switch_ms = switch_cost_ms()
    best = {
        kind: run.points[int(run.point.max())].name
        for kind, trace in setup.recordings.items()
        for run in [best_static(lambda trace=trace: TraceWorld(trace), 0, switch_ms)]  # type: ignore[misc]
    }
    with Progress() as progress:
        return {b: run_block(b, setup, best[b.kind]) for b in progress.track(blocks, description="live")}


def live_scores(runs: BlockRuns) -> ByPolicy:
    """What the blocks scored; the references are those of the blocks of ours, or of whoever ran first."""
    found: ByPolicy = defaultdict(lambda: defaultdict(list))
    policies = [block.policy for block in runs]
    blocks_of_references = "ours" if "ours" in policies else policies[0]
    for block, outcome in runs.items():
        found[block.kind][block.policy].append(outcome.scores)
        if block.policy == blocks_of_references:
            for reference in (steady_choice(outcome.oracle), outcome.oracle):
                found[block.kind][reference.policy].append(score(reference, outcome.oracle))
    return found


def replayed_scores(runs: BlockRuns) -> ByPolicy:
    """What the same policies scored in simulation on the blocks' own minutes."""
    found: ByPolicy = defaultdict(lambda: defaultdict(list))
    for block, outcome in runs.items():
        found[block.kind][block.policy].append(outcome.replayed)
    return found


def agreement(live: Table, replayed: Table) -> dict[str, Any]:
    """Live against replay, in points of in-time accuracy."""
    apart = {
        f"{kind}, {policy}": 100 * (rows[policy]["in_time_accuracy"] - replayed[kind][policy]["in_time_accuracy"])
        for kind, rows in live.items()
        for policy in rows
        if policy not in REFERENCES
    }
    worst = max(apart, key=lambda name: abs(apart[name]))
    within = sum(abs(value) <= 2.0 for value in apart.values())
    return {
        "within_2_points": within, "of": len(apart), "worst": worst, "worst_points": round(apart[worst], 2),
        "points_apart": {name: round(value, 2) for name, value in apart.items()},
    }  # fmt: skip


def draw_steps(runs: BlockRuns) -> None:
    """A picture of the first step block of ours and of those that are shown beside it."""
    shown: dict[str, tuple[RunLog, RunLog]] = {}
    for block in sorted(runs, key=lambda b: (-b.fps, b.seed)):
        if block.load == "step" and block.policy in ("ours", *SHOWN_BESIDE):
            shown.setdefault(block.policy, (runs[block].run, runs[block].oracle))
    if "ours" in shown:
        plot_step([shown[p] for p in COLOURS if p in shown], "controller-live-step")


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
@click.option("--minutes", default=10.0, show_default=True, help="About how long everything takes.")
@click.option("--seeds", default=1, show_default=True)
@click.option("--rates", default="15,30", show_default=True, help="Frames a second.")
@click.option("--loads", default="stationary,step,bursts", show_default=True, help=f"Of {', '.join(LOADS)}.")
@click.option("--policies", default=",".join(BLIND), show_default=True)
@click.option("--repeat", default=0, show_default=True, help="Runs of each network per frame; 0: as the rate needs.")
@click.option("--dry", is_flag=True, help="Print only; leave recordings, result and pictures as they are.")
def main(
    bundle: Path | None, minutes: float, seeds: int, rates: str, loads: str, policies: str, repeat: int, dry: bool
) -> None:
    """Record, run, judge, and write the result."""
    opened = Bundle.load(bundle or default_bundle_path())
    speeds, names, chosen = [float(r) for r in rates.split(",")], loads.split(","), policies.split(",")
    blocks = [Block(p, load, fps, seed) for seed in range(seeds) for load in names for fps in speeds for p in chosen]
    length_s = 60.0 * minutes * (1.0 - RECORDING_SHARE) / len(blocks) - AROUND_S
    if length_s < SHORTEST_S:
        needed = len(blocks) * (SHORTEST_S + AROUND_S) / 60.0 / (1.0 - RECORDING_SHARE)
        raise click.BadParameter(f"{len(blocks)} blocks need at least --minutes {needed:.0f}; or name fewer of them")
    repeat = repeat or choose_repeat(opened)
    meter, points = open_meter(opened, repeat)
    recorded_s = 60.0 * minutes * RECORDING_SHARE / (len(names) * len(speeds)) - AROUND_S
    points, recordings = record_all(opened, meter, points, names, speeds, recorded_s, repeat, write=not dry)
    _run(opened, meter, points, recordings, blocks, length_s, {"repeat": repeat, "minutes": minutes}, dry)


def _run(
    bundle: Bundle, meter: Meter, points: tuple[OperatingPoint, ...], recordings: dict[str, Trace],
    blocks: list[Block], length_s: float, facts: dict[str, Any], dry: bool,
) -> None:  # fmt: skip
    chosen = list(dict.fromkeys(block.policy for block in blocks))
    setup = LiveSetup(bundle, meter, points, recordings, length_s)
    random.Random(0).shuffle(blocks)
    runs = run_blocks(blocks, setup)
    found, replays = live_scores(runs), replayed_scores(runs)
    live = {kind: {p: summary(found[kind][p]) for p in (*chosen, *REFERENCES)} for kind in recordings}
    replayed = {
        kind: {p: summary([s]) for p, s in replay(kind, trace, chosen).items()} for kind, trace in recordings.items()
    }
    same_minutes = {kind: {p: summary(replays[kind][p]) for p in chosen} for kind in recordings}
    agreed = {"same_minutes": agreement(live, same_minutes), "recording": agreement(live, replayed)}
    print(render(replayed, live))
    print(render_agreement(live, same_minutes, replayed))
    for what, found_there in agreed.items():
        print(f"{what}: within 2 points at {found_there['within_2_points']} of {found_there['of']}")
    if dry:
        return
    save("closed_loop", {
        "bundle": bundle.manifest.name, **facts, "block_s": round(length_s, 1),
        "deadline_ms": {kind: trace.budgets[0][1].deadline_ms for kind, trace in recordings.items()},
        "points": [[p.name, p.accuracy, round(p.quiet_ms, 3)] for p in next(iter(recordings.values())).points],
        "live": live, "same_minutes": same_minutes, "replayed": replayed, "agreement": agreed,
    })  # fmt: skip
    plot_live(live, same_minutes, replayed)
    draw_steps(runs)


if __name__ == "__main__":
    main()
