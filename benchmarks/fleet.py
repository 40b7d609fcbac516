"""Thousands of devices that differ: python -m benchmarks.fleet --devices 2000 --processes 2

Each device is a seed. Its speed, board, weather, load, noise, table error and sensors are drawn from FLEET, the same
for every policy; so a device that does badly can be looked at alone with `--device SEED`. The question is the tail:
what the worst 1 and 5 % of the devices get. Writes benchmarks/results/fleet.json, docs/pictures/fleet-tail.svg and the
table of docs/fleet.md, which says how the same would run for a million devices.
"""

from __future__ import annotations

import bisect
import math
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import numpy as np

from benchmarks.controller_plots import plot_fleet
from benchmarks.noise_model import Noise, load_noise
from benchmarks.parallel import run_all
from benchmarks.policy_runs import BOARD_PROFILE
from benchmarks.record import RESULTS, save
from benchmarks.scores import Scores, score
from benchmarks.simulator import FrameTruth, World, ladder_of, simulate, switch_cost_ms
from benchmarks.thermal_board import Ambient, Board, ThermalWorld, best_capped_oracle
from benchmarks.traces_generated import Script, from_script, recorded_points, slower
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.device_profile import load_profile
from edge_runtime.policies import make_policy

PAGE = RESULTS.parent.parent / "docs" / "fleet.md"
BEGIN, END = "<!-- fleet:begin -->", "<!-- fleet:end -->"
POLICIES = ("ours", "alert", "threshold", "static")
WORST_IS_HIGH = {"attainment": False, "regret": True}
TAILS = (0.0, 0.01, 0.05, 0.5)
DEVICES_PER_JOB = 10
ORACLE_CAPS_EVERY = 3
FLEET: dict[str, Any] = {
    "slower_deviation": 0.35,  # of the log of a device's time over the reference's
    "table_error": (0.02, 0.12),
    "load_share": (0.02, 0.6),  # of the time in which others work
    "load_spell_s": (0.5, 6.0),  # mean length of such a spell
    "noise_deviation": 0.4,  # of the log of how much longer its interruptions are
    "resistance_k_per_w": (6.0, 12.0),
    "time_constant_s": (30.0, 180.0),
    "idle_w": (1.5, 3.5),
    "busy_w": (4.0, 9.0),
    "soft_limit_c": (70.0, 85.0),
    "ambient_c": (0.0, 40.0),
    "without_thermometer": 0.3,  # share of the devices
    "rates": (15.0, 30.0),
}
"""Ranges that the devices are drawn from. Assumptions: no fleet was measured."""


@dataclass(frozen=True)
class Device:
    """One device of the fleet, by its seed."""

    seed: int
    fps: float
    slower: float
    table_error: float
    load_share: float
    load_spell_s: float
    noise: float
    board: Board
    ambient: Ambient
    start_c: float
    thermometer: bool


@dataclass(frozen=True)
class FleetJob:
    """Some devices, for one process."""

    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    length_s: float


def draw_device(seed: int) -> Device:
    """The device of a seed."""
    draw = random.Random(f"device {seed}")

    def between(name: str) -> float:
        low, high = FLEET[name]
        return draw.uniform(low, high)

    limit_c = between("soft_limit_c")
    board = Board(
        between("resistance_k_per_w"), between("time_constant_s"), between("idle_w"), between("busy_w"),
        soft_limit_c=limit_c, release_c=limit_c - 3.0,
    )  # fmt: skip
    ambient_c = between("ambient_c")
    idle_c = min(ambient_c + board.resistance_k_per_w * board.idle_w, limit_c - 5.0)
    return Device(
        seed, draw.choice(FLEET["rates"]),
        math.exp(draw.gauss(0.0, FLEET["slower_deviation"])),
        between("table_error"), between("load_share"), between("load_spell_s"),
        math.exp(draw.gauss(0.0, FLEET["noise_deviation"])),
        board, Ambient(ambient_c, ambient_c), draw.uniform(idle_c, limit_c),
        draw.random() >= FLEET["without_thermometer"],
    )  # fmt: skip


class BlindWorld:
    """A thermal world whose temperature nobody can read."""

    def __init__(self, inner: ThermalWorld) -> None:
        self._inner = inner
        self.name, self.fps, self.frames = inner.name, inner.fps, inner.frames
        self.points, self.marks = inner.points, inner.marks

    def frame(self, index: int, now_s: float) -> FrameTruth:
        """The truth, without temperature and throttling."""
        truth = self._inner.frame(index, now_s)
        return replace(truth, readings=replace(truth.readings, temperature_c=None, throttled=None))

    def spend(self, start_s: float, finish_s: float, busy_ms: float) -> None:
        """Heat up all the same."""
        self._inner.spend(start_s, finish_s, busy_ms)


def load_script(device: Device, length_s: float) -> Script:
    """Spells of load at levels of their own, between calms."""
    draw = random.Random(f"load {device.seed}")
    calm_s = device.load_spell_s * (1.0 - device.load_share) / device.load_share
    edges_s, levels = [0.0], [0.0]
    while edges_s[-1] < length_s:
        calm = levels[-1] == 0.0
        edges_s.append(edges_s[-1] + draw.expovariate(1.0 / (calm_s if calm else device.load_spell_s)))
        levels.append(draw.uniform(0.3, 1.0) if calm else 0.0)
    return Script(level=lambda at_s: levels[bisect.bisect_right(edges_s, at_s) - 1])


def run_device(device: Device, policies: Sequence[str], length_s: float) -> dict[str, Scores]:
    """Policy -> scores of one device."""
    noise = {state: _longer(n, device.noise) for state, n in load_noise().items()}
    points = slower(recorded_points(), device.slower)
    trace = from_script("fleet", load_script(device, length_s), device.seed, device.fps, length_s, points, noise)
    trace = trace.with_deadline(1000.0 / 30.0)

    def make() -> World:
        world = ThermalWorld(trace, device.board, device.ambient, device.start_c)
        return world if device.thermometer else BlindWorld(world)

    switch_ms = switch_cost_ms() * device.slower
    ladder = ladder_of(points, device.seed, device.table_error)
    oracle = best_capped_oracle(make, switch_ms, ORACLE_CAPS_EVERY)
    limits = DeviceLimits.from_profile(load_profile(BOARD_PROFILE))
    found = {}
    for name in policies:
        policy = make_policy(name, ladder, **({"limits": limits} if name == "ours" else {}))
        found[name] = score(simulate(make(), policy, switch_ms), oracle)
    return found


def run_fleet_job(job: FleetJob) -> dict[int, dict[str, Scores]]:
    """Seed -> policy -> scores."""
    return {seed: run_device(draw_device(seed), job.policies, job.length_s) for seed in job.seeds}


def tails(values: Sequence[float], worst_is_high: bool) -> dict[str, float]:
    """The worst device, the 1st and 5th percentile from the bad end, and the median."""
    array = np.asarray(values, np.float64)
    return {
        ("worst" if t == 0.0 else f"p{100 * t:g}"): round(float(np.quantile(array, 1.0 - t if worst_is_high else t)), 5)
        for t in TAILS
    }


def _longer(noise: Noise, factor: float) -> Noise:
    return replace(
        noise,
        off_core_ms=tuple(v * factor for v in noise.off_core_ms),
        wake_ms=tuple(v * factor for v in noise.wake_ms),
    )


def render(summary: dict[str, Any]) -> str:
    """The table of docs/fleet.md."""
    lines = [
        "| policy | attainment %: median device | worst 5 % | worst 1 % | regret %: median | worst 5 % | worst 1 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for policy, of in summary.items():
        cells = [f"{100 * of[name][tail]:.1f}" for name in ("attainment", "regret") for tail in ("p50", "p5", "p1")]
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def simulate_fleet(
    first: int, devices: int, policies: tuple[str, ...], seconds: float, processes: int
) -> dict[str, dict[int, Scores]]:
    """Policy -> seed -> scores."""
    end = first + devices
    starts = range(first, end, DEVICES_PER_JOB)
    jobs = [FleetJob(tuple(range(s, min(s + DEVICES_PER_JOB, end))), policies, seconds) for s in starts]
    found: dict[str, dict[int, Scores]] = defaultdict(dict)
    for _, answer in run_all(run_fleet_job, jobs, processes, f"{devices} devices"):
        for seed, by_policy in answer.items():
            for policy, scores in by_policy.items():
                found[policy][seed] = scores
    return found


@click.command()
@click.option("--devices", default=1000, show_default=True)
@click.option("--first-device", default=0, show_default=True, help="Seed of the first one.")
@click.option("--seconds", default=30.0, show_default=True, help="Simulated time of each device.")
@click.option("--policies", default=",".join(POLICIES), show_default=True)
@click.option("--processes", default=1, show_default=True)
@click.option("--device", type=int, default=None, help="Show one device and stop.")
@click.option("--dry", is_flag=True, help="Print only.")
def main(
    devices: int, first_device: int, seconds: float, policies: str, processes: int, device: int | None, dry: bool
) -> None:
    """Simulate a fleet."""
    chosen = tuple(policies.split(","))
    if device is not None:
        print(draw_device(device))
        for policy, scores in run_device(draw_device(device), chosen, seconds).items():
            print(policy, scores.as_json())
        return
    started_s = time.perf_counter()
    found = simulate_fleet(first_device, devices, chosen, seconds, processes)
    seconds_per_device = round(processes * (time.perf_counter() - started_s) / devices, 3)
    # a device on which no frame was feasible for anybody says nothing of a policy
    usable = [seed for seed in sorted(found[chosen[0]]) if all(found[p][seed].feasible for p in chosen)]
    values = {p: {name: [getattr(found[p][s], name) for s in usable] for name in WORST_IS_HIGH} for p in chosen}
    summary = {p: {name: tails(v, WORST_IS_HIGH[name]) for name, v in of.items()} for p, of in values.items()}
    worst = sorted(usable, key=lambda seed: found[chosen[0]][seed].attainment or 0.0)[:5]
    print(render(summary))
    print(f"{len(usable)} of {devices} devices could answer at all; worst of {chosen[0]}: --device {worst}")
    if dry:
        return
    plot_fleet(values)
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{render(summary)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    save("fleet", {
        "devices": devices, "first_device": first_device,
        "seconds_per_device": seconds_per_device, "usable": len(usable), "seconds": seconds, "drawn_from": FLEET,
        "policies": summary,
        "worst_of_first": [asdict(draw_device(seed)) for seed in worst],
    })  # fmt: skip


if __name__ == "__main__":
    main()
