"""What a profile measures and for how long: the three modes, and a plan that keeps within its time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.errors import ResultError

FRAME_PERIOD_MS = 1000.0 / 30.0
MIN_ROUNDS = 3
MIN_BLOCK_RUNS = 4
BLOCK_OVERHEAD_S = 0.004
"""Sensors and the runs that bring a block's weights into the caches."""


@dataclass(frozen=True)
class ProfileSettings:
    """One profile. `mode_settings` has the defaults of each mode."""

    mode: str
    rounds: int
    """Blocks of each point."""
    block_runs: int
    measure_s: float
    """The blocks of all points together may take this long; rounds and runs shrink to fit."""
    probes: bool
    """A fresh process for each point: cold load and memory."""
    operators: bool
    """A second session for each point with the engine's profiler."""
    energy_s: float
    """For each point, where a sensor knows the power."""
    cool_s: float
    """Longest wait of the whole profile for the device to cool down."""
    threads: tuple[int, ...] = ()
    """Empty: as many as the runtime takes."""
    backends: tuple[str, ...] = ()
    """Empty: the one that the runtime takes."""
    precision: str | None = None
    points: tuple[str, ...] = ()
    """Empty: all."""
    period_ms: float = FRAME_PERIOD_MS
    """A run starts this long after the one before; 0 is back to back."""
    sustained_s: float = 0.0
    seed: int = 0
    blocks_end_s: float = math.inf
    """No further round begins later than this after the start, building and warming included."""


MODES: Mapping[str, ProfileSettings] = {
    "quick": ProfileSettings(
        "quick", 16, 4, 46.0, probes=False, operators=False, energy_s=0.3, cool_s=5.0, blocks_end_s=52.0
    ),
    "standard": ProfileSettings("standard", 12, 16, 600.0, probes=True, operators=True, energy_s=1.0, cool_s=120.0),
    "full": ProfileSettings("full", 25, 40, 7200.0, probes=True, operators=True, energy_s=5.0, cool_s=600.0),
}


@dataclass(frozen=True)
class Plan:
    """How often each point is measured."""

    rounds: int
    block_runs: int
    seconds: float
    """Expected for all blocks."""


def make_plan(settings: ProfileSettings, run_ms: Sequence[float]) -> Plan:
    """Fit rounds and runs into the time.

    Args:
        run_ms: what one run of each point takes, from its warm-up.
    Returns:
        the settings' own numbers where they fit; else fewer runs a block, then fewer rounds, never below
        MIN_BLOCK_RUNS and MIN_ROUNDS, though the time is then exceeded.
    """
    each_run_s = sum(max(settings.period_ms, ms) for ms in run_ms) / 1000.0
    overhead_s = sum(BLOCK_OVERHEAD_S + 2.0 * ms / 1000.0 for ms in run_ms)

    def seconds(rounds: int, runs: int) -> float:
        return rounds * (runs * each_run_s + overhead_s)

    rounds, runs = settings.rounds, settings.block_runs
    if seconds(rounds, runs) > settings.measure_s:
        fitting = (settings.measure_s / rounds - overhead_s) / each_run_s
        runs = max(min(runs, MIN_BLOCK_RUNS), math.floor(fitting))
    if seconds(rounds, runs) > settings.measure_s:
        rounds = max(min(rounds, MIN_ROUNDS), math.floor(settings.measure_s / seconds(1, runs)))
    return Plan(rounds, runs, seconds(rounds, runs))


def parse_threads(text: str | None, usable_cores: int) -> tuple[tuple[int, ...], str]:
    """Thread counts from "1,2,4" or "sweep".

    Args:
        text: None for the runtime's own number.
        usable_cores: more threads than these are left out.
    Returns:
        (counts, note): empty counts for the runtime's own; a sentence about what was left out, or "".
    Raises:
        ResultError: not such a text, or nothing is left of it.
    """
    if text is None:
        return (), ""
    if text.strip() == "sweep":
        return tuple(sorted({n for n in (1, 2, 4, 8, 16, 32) if n < usable_cores} | {usable_cores})), ""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() and 1 <= int(part[:9]) <= 1024 for part in parts):
        raise ResultError(f"--threads {text!r}: expected numbers from 1 to 1024 such as 1,2,4, or sweep")
    asked = tuple(sorted({int(part) for part in parts}))
    kept = tuple(count for count in asked if count <= usable_cores)
    left = ", ".join(str(count) for count in asked if count > usable_cores)
    if not kept:
        raise ResultError(f"--threads {text}: this process may use {usable_cores} cores; ask for fewer threads")
    return kept, f"{left} threads left out: this process may use {usable_cores} cores" if left else ""


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "10m" or "1h".

    Raises:
        ResultError: not such a text, or not between 1 second and 24 hours.
    """
    text = text.strip()
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        seconds = float(number) * {"s": 1.0, "m": 60.0, "h": 3600.0}[unit]
    except ValueError:
        seconds = math.nan
    if not 1.0 <= seconds <= 86400.0:
        raise ResultError(f"{text[:40]!r}: expected a time from 1s to 24h such as 90s, 10m or 1h")
    return seconds
