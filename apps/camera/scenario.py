"""A scripted run: at given times the deadline, readings and the real CPU load change.

A scenario is a TOML file; apps/demo/scenario.toml is one. Each phase stands alone: what it does not name is as the
command line and the device have it.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.budget import Budget
from edge_runtime.errors import BudgetError, EdgeRuntimeError
from edge_runtime.readings import Readings
from edge_runtime.records import RecordError, read_record
from edge_runtime.sensor_loop import crowding_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BUSY = 256
OVERRIDES = ("battery_share", "on_battery", "temperature_c")
"""Fields of `Readings` that a phase may set."""


class ScenarioError(EdgeRuntimeError):
    """A scenario file that cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class Phase:
    """What holds from `start_s` until the next phase."""

    name: str
    start_s: float
    """On the run's clock: media time for files, seconds since the start for live sources."""
    deadline_ms: float | None = None
    target_fps: float | None = None
    """One frame period as the deadline; not together with `deadline_ms`."""
    min_accuracy: float | None = None
    """0-1."""
    battery_floor_share: float | None = None
    """0-1: below this charge only the cheapest admissible point is used."""
    battery_share: float | None = None
    """0-1: what the battery reading is made to say."""
    on_battery: bool | None = None
    temperature_c: float | None = None
    cpu_load: int = 0
    """Busy processes that are really started."""

    def budget(self, base: Budget) -> Budget:
        """The budget of this phase, over that of the command line."""
        wanted: dict[str, Any] = {
            "deadline_ms": self.deadline_ms,
            "min_accuracy": self.min_accuracy,
            "battery_floor_share": self.battery_floor_share,
        }
        if self.target_fps is not None:
            wanted["deadline_ms"] = Budget.from_fps(self.target_fps).deadline_ms
        return replace(base, **{name: value for name, value in wanted.items() if value is not None})

    def overrides(self) -> dict[str, Any]:
        """Readings that this phase replaces."""
        values = {name: getattr(self, name) for name in OVERRIDES}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Scenario:
    """Phases in order of time; the first starts at 0."""

    phases: tuple[Phase, ...]
    title: str = ""
    stand_in_profile: str | None = None
    """Device profile to take where this device's own lacks the bands that the phases play with (stand_in.py)."""

    def phase_at(self, at_s: float) -> Phase:
        """The phase that holds at a time; the first one for times before 0."""
        current = self.phases[0]
        for phase in self.phases:
            if phase.start_s <= at_s:
                current = phase
        return current


def load_scenario(path: str | Path) -> Scenario:
    """Read and check a scenario file.

    Raises:
        ScenarioError: it cannot be read, is not TOML, or holds a key or value without sense; the message names it.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(set(data) - {"title", "stand_in_profile", "phase"})
    if unknown:
        raise ScenarioError(
            f"{path}: unknown key {unknown[0]!r}; expected title, stand_in_profile and [[phase]] tables"
        )
    stand_in = data.get("stand_in_profile")
    if not isinstance(stand_in, str | None):
        raise ScenarioError(f"{path}: stand_in_profile is {stand_in!r}, expected the name of a device profile")
    tables = data.get("phase")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ScenarioError(f"{path}: no phases; expected at least one [[phase]] table")
    phases = tuple(_phase(table, f"{path}: phase {index + 1}") for index, table in enumerate(tables))
    starts = [phase.start_s for phase in phases]
    if starts[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(starts)):
        raise ScenarioError(f"{path}: phases start at {starts} s; expected 0 first and then rising times")
    return Scenario(phases, str(data.get("title", "")), stand_in)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _phase(table: dict[str, Any], where: str) -> Phase:
    """Check one [[phase]] table."""
    values = dict(table)
    if values.get("cpu_load") == "all":
        values["cpu_load"] = usable_cores()
    try:
        phase = read_record(Phase, values, where)
        phase.budget(Budget())
    except RecordError as error:
        raise ScenarioError(str(error)) from error
    except BudgetError as error:
        raise ScenarioError(f"{where}: {error}") from error
    if not 0 <= phase.cpu_load <= MOST_BUSY:
        raise ScenarioError(
            f'{where}: cpu_load is {phase.cpu_load}, expected 0 to {MOST_BUSY}, or "all" for one a core'
        )
    if not 0 <= (phase.battery_share or 0) <= 1:
        raise ScenarioError(f"{where}: battery_share is {phase.battery_share}, expected 0 to 1 (0.15 means 15 %)")
    if phase.deadline_ms is not None and phase.target_fps is not None:
        raise ScenarioError(f"{where}: deadline_ms and target_fps say the same thing; give one of them")
    return phase


class Sensors(Protocol):
    """Anything that reads the device."""

    def read(self, now_s: float) -> Readings: ...


class OverriddenSensors:
    """Real sensors, with some of their answers replaced."""

    def __init__(self, inner: Sensors) -> None:
        self._inner = inner
        self.overrides: dict[str, Any] = {}

    def read(self, now_s: float) -> Readings:
        """One set of readings; `sources` says "scenario" for those that are made up."""
        readings = self._inner.read(now_s)
        if not self.overrides:
            return readings
        sources = {**readings.sources, **dict.fromkeys(self.overrides, "scenario")}
        return replace(readings, **self.overrides, sources=sources)

    def crowding(self, threads: int) -> float | None:
        """How many tasks want a core is the device's own answer."""
        return crowding_of(self._inner)(threads)


class BusyProcesses(Protocol):
    """What puts load on the machine."""

    def set_count(self, count: int) -> None: ...


class ScenarioPlayer:
    """Applies each phase when its time comes."""

    def __init__(
        self,
        scenario: Scenario,
        base: Budget,
        set_budget: Callable[[Budget], None],
        sensors: OverriddenSensors,
        busy: BusyProcesses,
    ) -> None:
        self._scenario, self._base, self._set_budget = scenario, base, set_budget
        self._sensors, self._busy = sensors, busy
        self.phase: Phase | None = None

    def advance(self, at_s: float) -> None:
        """Apply the phase of this time, if it is a new one."""
        phase = self._scenario.phase_at(at_s)
        if phase == self.phase:
            return
        self.phase = phase
        self._set_budget(phase.budget(self._base))
        self._sensors.overrides = phase.overrides()
        self._busy.set_count(phase.cpu_load)
