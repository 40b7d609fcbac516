"""Traces from a seed: step, sawtooth, bursts, frequency cap, memory squeeze, deadlines, battery, and standing still.

Latency noise is the noise that was recorded on this machine (benchmarks/noise_model.py says which parts it has): a
slowly drifting level of CPU time with a little jitter, and interruptions that take the core away for as long as they
were measured to, heavy tail included. Interruptions come at a regular distance in CPU time whose start is drawn for
each frame, as time slices do, so that a short point may slip through where a long one is hit; one frame's draw is the
same for all points. A load of level l mixes the idle and the loaded state of the machine in that proportion.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.contention import LOADS
from benchmarks.noise_model import Noise, load_noise
from benchmarks.traces import FOLDER, Array, Trace, TracePoint, load_trace
from edge_runtime.budget import Budget
from edge_runtime.readings import Readings

POINT_JITTER = 0.01
"""Deviation of the log of one point's CPU time from what the frame does to all of them."""
FULL_MHZ = 2400.0
RUN_SHARE, RUN_PARTS = 0.55, 8
"""The costliest point runs for this share of a period: benchmarks/closed_loop.py, TOP_SHARE_OF_PERIOD."""
SIMULATED_CORES = 2
PASSING_TASKS = (0.8, 0.19, 0.01)
"""Shares of frames that begin while none, one or two other tasks happen to run. The committed recording of the machine
at rest (benchmarks/traces/stationary-30.npz) has 82, 17 and 0.9 %."""
QUIET_FRAMES = 2000
"""So many frames of the quiet machine tell the deadline at which the most accurate point just fits."""


@dataclass(frozen=True)
class Script:
    """What happens in a generated trace; each function takes seconds since the start."""

    level: Callable[[float], float] = lambda at_s: 0.0
    """Share of the cores' time that others take, in the sense of the recorded loads, 0-1."""
    speed: Callable[[float], float] = lambda at_s: 1.0
    """Of the processor, 1 is full."""
    deadline_share: Callable[[float], float] = lambda at_s: 1.0
    """Of the deadline at which the most accurate point just fits."""
    resident_share: Callable[[float], float] = lambda at_s: 1.0
    """Of the points, cheapest first, how many are in memory."""
    readings: Callable[[float], dict[str, Any]] = lambda at_s: {}
    """Sensor values beside the load."""
    battery_floor_share: float | None = None
    marks: tuple[tuple[float, str], ...] = field(default=())


def _middle(at_s: float, length_s: float) -> bool:
    return length_s / 3.0 <= at_s < 2.0 * length_s / 3.0


def _thirds(length_s: float) -> tuple[tuple[float, str], ...]:
    return (length_s / 3.0, "load on"), (2.0 * length_s / 3.0, "load off")


def _loaded(name: str, length_s: float, seed: int) -> Script:
    """A script of benchmarks/contention.py."""
    level = LOADS[name].script(length_s, random.Random(seed))
    return Script(level=level, marks=_thirds(length_s) if name == "step" else ())


def _frequency_cap(length_s: float, seed: int) -> Script:
    """The processor is held at 60 % of its speed for a third of the time."""

    def speed(at_s: float) -> float:
        return 0.6 if _middle(at_s, length_s) else 1.0

    return Script(
        speed=speed, readings=lambda at_s: {"core_frequency_mhz": (FULL_MHZ * speed(at_s),)}, marks=_thirds(length_s)
    )


def _memory_squeeze(length_s: float, seed: int) -> Script:
    """Somebody else takes the memory: pressure is high, the costlier half of the points is put out, all are slower."""

    def readings(at_s: float) -> dict[str, Any]:
        tight = _middle(at_s, length_s)
        return {"memory_pressure": 0.25 if tight else 0.0, "memory_available_bytes": (60 if tight else 900) << 20}

    return Script(
        speed=lambda at_s: 0.8 if _middle(at_s, length_s) else 1.0,
        resident_share=lambda at_s: 0.5 if _middle(at_s, length_s) else 1.0,
        readings=readings, marks=_thirds(length_s),
    )  # fmt: skip


def _deadline_changes(length_s: float, seed: int) -> Script:
    """The application wants its answers faster or slower, every few seconds."""
    draw = random.Random(f"deadlines {seed}")
    shares = [1.0] + [draw.choice((0.3, 0.45, 0.6, 0.8, 1.0, 1.4)) for _ in range(9)]
    return Script(deadline_share=lambda at_s: shares[min(9, int(10 * at_s / length_s))])


def _battery(length_s: float, seed: int) -> Script:
    """The charge falls from 50 % to nothing; the application asks to save below 20 %."""
    return Script(
        readings=lambda at_s: {"battery_share": max(0.0, 0.5 - 0.5 * at_s / length_s), "on_battery": True},
        battery_floor_share=0.2,
    )


KINDS: dict[str, Callable[[float, int], Script]] = {
    "stationary": lambda length_s, seed: _loaded("stationary", length_s, seed),
    "step": lambda length_s, seed: _loaded("step", length_s, seed),
    "sawtooth": lambda length_s, seed: _loaded("sawtooth", length_s, seed),
    "bursts": lambda length_s, seed: _loaded("bursts", length_s, seed),
    "frequency cap": _frequency_cap,
    "memory squeeze": _memory_squeeze,
    "deadline changes": _deadline_changes,
    "battery": _battery,
}
"""Name -> (length in seconds, seed) -> script. The thermal ramp is a model: benchmarks/thermal_board.py."""


def recorded_points() -> tuple[TracePoint, ...]:
    """The points of the committed recordings, cheapest first."""
    return load_trace(FOLDER / "stationary-30.npz").points


def generate(
    kind: str,
    seed: int,
    *,
    fps: float = 30.0,
    length_s: float = 60.0,
    points: tuple[TracePoint, ...] | None = None,
    noise: dict[str, Noise] | None = None,
) -> Trace:
    """A trace of a kind of KINDS.

    Args:
        points: cheapest first; None takes the recorded ones.
        noise: states "quiet" and "loaded"; None takes the recorded ones.
    """
    return from_script(kind, KINDS[kind](length_s, seed), seed, fps, length_s, points, noise)


def from_script(
    name: str, script: Script, seed: int, fps: float, length_s: float,
    points: tuple[TracePoint, ...] | None = None, noise: dict[str, Noise] | None = None,
) -> Trace:  # fmt: skip
    """A trace of any script; see `generate`."""
    points, noise = points or recorded_points(), noise or load_noise()
    draw = np.random.default_rng([seed, *name.encode()])
    at_s = np.arange(round(length_s * fps)) / fps
    level, begins = _levels(script, at_s, fps)
    speed = np.array([script.speed(float(t)) for t in at_s])
    trace = _frames(name, fps, points, level, speed, noise, draw)
    crowding = _crowding(begins, np.random.default_rng([seed, 1, *name.encode()]))
    calm = np.zeros(QUIET_FRAMES)
    quiet = _frames(name, fps, points, calm, calm + 1.0, noise, np.random.default_rng([seed, 0]))
    return replace(
        trace, budgets=_budgets(script, quiet.fitting_deadline_ms(), length_s), readings=_readings(script, length_s),
        resident=_residents(script, points, length_s), crowding=crowding, marks=script.marks, facts={"seed": seed},
    )  # fmt: skip


def _levels(script: Script, at_s: Array, fps: float) -> tuple[Array, Array]:
    """The level over each frame's run and at its beginning: a load may come or go while the engine works."""
    within = np.linspace(0.0, RUN_SHARE / fps, RUN_PARTS, endpoint=False)
    levels = np.array([[script.level(float(t + d)) for d in within] for t in at_s])
    return levels.mean(axis=1), levels[:, 0]


def _crowding(level: Array, draw: np.random.Generator) -> Array:
    """Tasks for each of two cores as a frame begins: our own, one of others for each core while they work, and those
    that only pass by."""
    others = (draw.uniform(size=len(level)) < level) * SIMULATED_CORES
    passing = draw.choice(len(PASSING_TASKS), size=len(level), p=PASSING_TASKS)
    return ((1.0 + others + passing) / SIMULATED_CORES).astype(np.float32)


def _frames(
    name: str, fps: float, points: tuple[TracePoint, ...], level: Array, speed: Array, noise: dict[str, Noise],
    draw: np.random.Generator,
) -> Trace:  # fmt: skip
    """Latencies of all frames, under a deadline of one frame period."""
    loaded = draw.uniform(size=len(level)) < level
    latency_ms = _latencies(points, level, speed, noise, draw)
    uniform = draw.uniform(size=(2, len(level)))
    wake_ms = np.where(loaded, noise["loaded"].wake(uniform[0]), noise["quiet"].wake(uniform[0]))
    beside_ms = np.where(loaded, noise["loaded"].beside(uniform[1]), noise["quiet"].beside(uniform[1])) / speed
    return Trace(
        name, fps, points, latency_ms.astype(np.float32), beside_ms.astype(np.float32), wake_ms.astype(np.float32),
        ((0.0, Budget(1000.0 / fps)),),
    )  # fmt: skip


def _latencies(
    points: tuple[TracePoint, ...], level: Array, speed: Array, noise: dict[str, Noise], draw: np.random.Generator
) -> Array:
    """(frames, points) engine milliseconds."""
    quiet, loaded = noise["quiet"], noise["loaded"]
    frames = len(level)

    def mixed(name: str) -> Array:
        mix: Array = (1.0 - level) * getattr(quiet, name) + level * getattr(loaded, name)
        return mix

    drift = np.zeros(frames)
    steps = draw.normal(size=frames)
    memory, deviation = mixed("cpu_drift_memory"), mixed("cpu_drift")
    for i in range(frames):
        before = drift[i - 1] if i else 0.0
        drift[i] = memory[i] * before + math.sqrt(1.0 - memory[i] ** 2) * deviation[i] * steps[i]
    log_level = drift + mixed("cpu_jitter") * draw.normal(size=frames)
    own = POINT_JITTER * draw.normal(size=(frames, len(points)))
    # the table was taken quiet: what the quiet machine costs is in it
    ratio = mixed("cpu_ratio") / quiet.cpu_ratio / speed
    cpu_ms = np.array([p.quiet_ms for p in points]) * (ratio * np.exp(log_level))[:, None] * np.exp(own)
    return cpu_ms + _off_core(cpu_ms, mixed("interruptions_per_ms"), level, noise, draw)


def _off_core(cpu_ms: Array, per_ms: Array, level: Array, noise: dict[str, Noise], draw: np.random.Generator) -> Array:
    """Milliseconds that interruptions add: the k-th comes at (start + k) / per_ms of CPU time."""
    frames = len(per_ms)
    start = draw.uniform(size=frames)
    hits = np.ceil(np.maximum(0.0, cpu_ms * per_ms[:, None] - start[:, None])).astype(int)
    most = int(hits.max(initial=0))
    # which state an interruption comes from: as often as each state causes them
    loaded_rate = level * noise["loaded"].interruptions_per_ms
    from_load = draw.uniform(size=(frames, most)) < (loaded_rate / np.maximum(per_ms, 1e-12))[:, None]
    uniform = draw.uniform(size=(frames, most))
    lengths = np.where(from_load, noise["loaded"].off_core(uniform), noise["quiet"].off_core(uniform))
    total = np.concatenate([np.zeros((frames, 1)), np.cumsum(lengths, axis=1)], axis=1)
    return np.take_along_axis(total, hits, axis=1)


def _budgets(script: Script, fitting_ms: float, length_s: float) -> tuple[tuple[float, Budget], ...]:
    found: list[tuple[float, Budget]] = []
    for at_s in np.arange(0.0, length_s, 0.1).tolist():
        deadline_ms = round(fitting_ms * script.deadline_share(at_s), 2)
        if not found or found[-1][1].deadline_ms != deadline_ms:
            found.append((at_s, Budget(deadline_ms, battery_floor_share=script.battery_floor_share)))
    return tuple(found)


def _readings(script: Script, length_s: float) -> tuple[tuple[float, Readings], ...]:
    """Once a second; the load is the mean of the second before, as a sensor counts it."""
    found = []
    for at_s in np.arange(0.0, length_s, 1.0).tolist():
        before = [script.level(max(0.0, at_s - 0.05 * i)) for i in range(1, 21)]
        load = sum(before) / len(before) if at_s else 0.0
        found.append((at_s, Readings(taken_s=at_s, foreign_load=load, **script.readings(at_s))))
    return tuple(found)


def _residents(
    script: Script, points: Sequence[TracePoint], length_s: float
) -> tuple[tuple[float, frozenset[str]], ...]:
    found: list[tuple[float, frozenset[str]]] = []
    for at_s in np.arange(0.0, length_s, 0.1).tolist():
        count = max(1, round(script.resident_share(at_s) * len(points)))
        names = frozenset(p.name for p in points[:count])
        if not found or found[-1][1] != names:
            found.append((at_s, names))
    return tuple(found)


def slower(points: tuple[TracePoint, ...], factor: float) -> tuple[TracePoint, ...]:
    """The same points on a device that takes `factor` times as long."""
    return tuple(replace(p, quiet_ms=p.quiet_ms * factor) for p in points)
