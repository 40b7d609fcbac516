"""What the controller costs a frame, with the count of tasks: 20 and 40 points, calm and noisy machine, all policies.

Run with `python -m benchmarks.controller_cost`. Wall time holds the waits for a core that other processes cause;
processor time does not. The readings change once a second, as the sensors do; benchmarks/sensor_cost.py has what one
reading costs.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.record import percentiles, save
from edge_runtime.budget import Budget
from edge_runtime.controller import DeviceLimits
from edge_runtime.device_profile import load_profile
from edge_runtime.policies import POLICIES, LadderPoint, Policy, make_policy
from edge_runtime.readings import Readings
from edge_runtime.sensing.run_queue import RunQueue
from edge_runtime.sensors import SYSTEM_ROOT

FPS = 30.0
WARM_UP = 200


def main() -> None:
    """Measure, print and write benchmarks/results/controller_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000, help="frames of each case")
    options = parser.parse_args()
    cases: dict[str, Any] = {}
    for name in (n for n in POLICIES if n != "oracle"):
        for count in (20, 40) if name == "ours" else (20,):
            for noisy in (False, True) if name == "ours" else (True,):
                title = f"{name}, {count} points, {'noisy' if noisy else 'calm'}"
                cases[title] = measure(name, ladder_of(count), noisy, options.frames)
                print(f"{title}: wall {cases[title]['wall_us']} processor {cases[title]['processor_us']}")
    share = cases["ours, 40 points, noisy"]["mean_processor_us"] * FPS / 1e6
    print(f"ours, 40 points, noisy: {100 * share:.3f} % of one core at {FPS:g} frames a second")
    save("controller_cost", {"fps": FPS, "core_share": round(share, 6), "cases": cases})


def ladder_of(count: int) -> list[LadderPoint]:
    """A ladder from 1 to 12 ms; every third point is dominated."""
    return [
        LadderPoint(f"p{i:02d}", 0.4 + 0.4 * (i - (3 if i % 3 == 2 else 0)) / count, 1.0 + 11.0 * i / count)
        for i in range(count)
    ]


def measure(name: str, ladder: Sequence[LadderPoint], noisy: bool, frames: int) -> dict[str, Any]:
    """Microseconds of all that a frame asks of the policy."""
    options = {"limits": DeviceLimits.from_profile(load_profile("raspberry-pi-5"))} if name == "ours" else {}
    policy: Policy = make_policy(name, ladder, None, **options)
    table, draw = {p.name: p.latency_ms for p in ladder}, random.Random(0)
    resident, budgets = frozenset(table), [Budget(12.0), Budget(9.0)]
    wall_us, processor_us = [], []
    readings, load = Readings(), 0.3
    take_crowding, run_queue = getattr(policy, "take_crowding", None), RunQueue(SYSTEM_ROOT)
    for frame in range(frames + WARM_UP):
        now_s = frame / FPS
        if frame % round(FPS) == 0:
            load = min(max(load + 0.1 * (draw.random() - 0.5), 0.0), 1.0)
            readings = Readings(taken_s=now_s, temperature_c=60.0 + draw.random(), foreign_load=load)
        slowdown = 1.0 + 0.02 * draw.random()
        if noisy:
            slowdown = 1.0 + 0.3 * draw.random() + (3.0 if draw.random() < 0.05 else 0.0)
        budget, crowding = budgets[frame // 300 % 2], 2.0 if noisy and draw.random() < 0.05 else 0.5
        started_ns, started_processor_ns = time.perf_counter_ns(), time.thread_time_ns()
        if take_crowding is not None:
            run_queue.crowding(1)  # what it costs; what it says would differ each time
            take_crowding(crowding)
        decision = policy.choose(now_s, budget, readings, resident, 0.5)
        policy.observe(decision.point, table[decision.point] * slowdown)
        processor_ns = time.thread_time_ns() - started_processor_ns
        wall_ns = time.perf_counter_ns() - started_ns
        if frame >= WARM_UP:
            wall_us.append(wall_ns / 1000.0)
            processor_us.append(processor_ns / 1000.0)
    return {
        "wall_us": percentiles(wall_us),
        "processor_us": percentiles(processor_us),
        "mean_processor_us": round(sum(processor_us) / len(processor_us), 3),
    }


if __name__ == "__main__":
    main()
