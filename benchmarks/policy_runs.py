"""All policies through one world, judged against its oracle: the unit of work of the tables and of the fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.noise_model import load_noise
from benchmarks.scores import Scores, score
from benchmarks.simulator import RunLog, World, ladder_of, simulate, simulate_oracle, steady_choice, switch_cost_ms
from benchmarks.thermal_board import Ambient, Board, ThermalWorld, best_capped_oracle
from benchmarks.traces import TraceWorld, recorded_traces
from benchmarks.traces_generated import KINDS, generate
from edge_runtime.controller import Controller
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.device_profile import load_profile
from edge_runtime.policies import POLICIES, LadderPoint, Policy, make_policy

THERMAL = "thermal ramp"
THERMAL_LENGTH_S = 240.0
REFERENCES = ("best of each second", "oracle")
UNCOUNTED = "uncounted"
"""Ours on a machine that does not count the tasks that want a core."""
BLIND = ("ours", UNCOUNTED, *(name for name in POLICIES if name not in ("ours", "oracle")))
"""Policies that do not see the truth; best-static is told by a sweep which single point would have been best."""
MACHINE_PROFILE, BOARD_PROFILE = "laptop-x86", "raspberry-pi-5"
"""Whose bands our controller gets: of the machine that was recorded, and of the board that is simulated."""


class UncountedController(Controller):
    """Ours, deaf to the count."""

    name = UNCOUNTED

    def take_crowding(self, crowding: float | None) -> None:
        """Forget it."""


@dataclass(frozen=True)
class Job:
    """One world and the policies to send through it; a plain value, so that it can go to another process."""

    kind: str
    """A kind of traces_generated.KINDS, THERMAL, or the name of a recorded trace."""
    seed: int
    policies: tuple[str, ...] = BLIND
    settings: tuple[tuple[str, float], ...] = ()
    """Changed constants of `ours`."""
    jitter: float = 1.0
    """Factor on the recorded scatter of CPU time, and on the tails of the quiet machine, in generated traces: to see
    what depends on how calm the machine was that was recorded."""


def run_job(job: Job) -> dict[str, Scores]:
    """Policy -> scores; the two references, the best point of each second and the oracle, come last."""
    make = world_maker(job.kind, job.seed, job.jitter)
    runs, oracle = run_policies(make, job.policies, job.seed, dict(job.settings))
    return {run.policy: score(run, oracle) for run in (*runs, steady_choice(oracle), oracle)}


def world_maker(kind: str, seed: int, jitter: float = 1.0) -> Callable[[], World]:
    """A function that makes the same fresh world each time."""
    noise = {state: n.scattered(jitter) for state, n in load_noise().items()}
    noise["quiet"] = noise["quiet"].tails_scaled(jitter)
    if kind == THERMAL:
        trace = generate("stationary", seed, length_s=THERMAL_LENGTH_S, noise=noise)
        return lambda: ThermalWorld(trace, Board(), Ambient())
    trace = generate(kind, seed, noise=noise) if kind in KINDS else next(t for t in recorded_traces() if t.name == kind)
    return lambda: TraceWorld(trace)


def run_policies(
    make: Callable[[], World], policies: Sequence[str], seed: int, settings: dict[str, Any] | None = None
) -> tuple[list[RunLog], RunLog]:
    """Every policy through a fresh world of its own, with one query table; and the oracle."""
    switch_ms = switch_cost_ms()
    world = make()
    ladder = ladder_of(world.points, seed)
    runs = []
    for name in policies:
        if name == "best-static":
            runs.append(best_static(make, seed, switch_ms))
            continue
        ours = name in ("ours", UNCOUNTED)
        policy = our_policy(ladder, world, settings, name) if ours else make_policy(name, ladder)
        runs.append(simulate(make(), policy, switch_ms))
    if isinstance(world, ThermalWorld):
        return runs, best_capped_oracle(make, switch_ms)
    return runs, simulate_oracle(make(), switch_ms)


def our_policy(
    ladder: Sequence[LadderPoint], world: World, settings: dict[str, Any] | None = None, name: str = "ours"
) -> Policy:
    """Our controller, or the uncounted one, with the bands of the device that the world stands for."""
    profile = BOARD_PROFILE if isinstance(world, ThermalWorld) else MACHINE_PROFILE
    constants = ControllerSettings(**settings) if settings else None
    kind = UncountedController if name == UNCOUNTED else Controller
    return kind(ladder, constants, DeviceLimits.from_profile(load_profile(profile)))


def best_static(make: Callable[[], World], seed: int, switch_ms: float) -> RunLog:
    """The single point with the highest in-time accuracy, known only in hindsight."""
    points = make().points
    ladder = ladder_of(points, seed)
    runs = [simulate(make(), make_policy("best-static", ladder, point=p.name), switch_ms) for p in points]
    return max(runs, key=lambda run: float(run.score.mean()))


def all_kinds() -> tuple[str, ...]:
    """Generated kinds, the thermal ramp, and the recordings at hand."""
    return (*KINDS, THERMAL, *(t.name for t in recorded_traces()))
