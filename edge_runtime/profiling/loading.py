"""Open engines and build the points of one stage of a profile; a point that cannot be built is left out and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_runtime.backends import Backend, BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, EdgeRuntimeError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.profile_schema import DeviceProfile
from edge_runtime.profiling.blocks import Clock, Entry
from edge_runtime.profiling.process_memory import memory_now
from edge_runtime.profiling.result_records import Load, Memory
from edge_runtime.profiling.settings import ProfileSettings
from edge_runtime.sensor_loop import Sensors

MIN_FREE_SHARE = 0.05
MIN_FREE_BYTES = 48 << 20
QUICK_LOAD = "one build in this process, files cached; use --full for cold loads"
QUICK_MEMORY = "added beside the points before it; use --full for a process of its own"

Group = tuple[str, int]
"""Backend and number of threads."""


def stages_of(groups: list[Group]) -> list[list[Group]]:
    """Groups that can be measured in turn in one process: ExecuTorch has one pool for all, so a stage for each."""
    together = [group for group in groups if group[0] != "executorch"]
    return ([together] if together else []) + [[group] for group in groups if group[0] == "executorch"]


def options_of(
    profile: DeviceProfile, threads: int, precision: str | None, one_pool: bool
) -> BackendOptions:  # the runtime's own choices
    """How the runtime would open the engine."""
    return BackendOptions(threads, precision, one_pool, profile.arena, profile.spinning)


@dataclass
class Stage:
    """Opened engines and their points. `close` releases both."""

    entries: list[Entry] = field(default_factory=list)
    backends: list[Backend] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Release runners, then engines."""
        for entry in self.entries:
            entry.runner.close()
        for backend in self.backends:
            backend.close()
        self.backends = []


class StageLoader:
    """Builds stages.

    Args:
        bundle: whose points.
        settings: which points.
        profile: the device's choices.
        one_pool: onnxruntime's pool for the whole process.
        sensors: whose free memory is watched.
        clock: seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: ProfileSettings,
        profile: DeviceProfile,
        one_pool: bool,
        sensors: Sensors,
        clock: Clock,
    ) -> None:
        self._bundle, self._settings, self._profile = bundle, settings, profile
        self._one_pool, self._sensors, self._clock = one_pool, sensors, clock

    def points_of(self, backend: str) -> list[OperatingPoint]:
        """The points that are to be measured, cheapest first.

        Raises:
            BundleError: the bundle has no program for the backend, or no point of that name.
        """
        wanted = {self._bundle.point(name).name for name in self._settings.points}
        points = self._bundle.points_for(backend, self._settings.precision)
        return sorted((p for p in points if not wanted or p.name in wanted), key=lambda p: p.madds)

    def load(self, stage: Stage, groups: list[Group], progress: Callable[[str], None]) -> None:
        """Fill a stage, so that who interrupts can still close it.

        Raises:
            BackendError: an engine is not installed, or refuses every point.
        """
        failure: EdgeRuntimeError | None = None
        for name, threads in groups:
            options = options_of(self._profile, threads, self._settings.precision, self._one_pool)
            backend = open_backend(name, self._bundle, options)
            stage.backends.append(backend)
            before = memory_now()[1]
            for point in self.points_of(name):
                progress(point.name)
                if stage.entries and self._memory_is_short():
                    stage.notes.append(f"{point.name} and larger points left out: too little memory is free")
                    break
                try:
                    entry, before = self._build(backend, point, name, threads, before)
                except EdgeRuntimeError as error:
                    failure = failure or error
                    stage.notes.append(f"{point.name} left out: {error}"[:1000])
                    continue
                stage.entries.append(entry)
        if not stage.entries:
            raise failure or BackendError(f"{self._bundle.root}: no point to profile; check --point and --precision")

    def _build(
        self, backend: Backend, point: OperatingPoint, name: str, threads: int, before: int | None
    ) -> tuple[Entry, int | None]:
        started_s = self._clock()
        runner = backend.load(point)
        loaded_s = self._clock()
        try:
            runner.run()
            ran_s = self._clock()
        except BaseException:
            runner.close()
            raise
        kind, after = memory_now()
        added = None if after is None or before is None else max(0, after - before)
        load = Load(None, (loaded_s - started_s) * 1000.0, (ran_s - loaded_s) * 1000.0, QUICK_LOAD)
        memory = Memory(kind, before, after, None, added, QUICK_MEMORY)
        precision = "fp32" if name == "null" else self._bundle.program(point).precision
        entry = Entry(point, name, precision, threads, runner, load, memory)
        if point.exit is not None and self._bundle.manifest.exits is not None:
            setting = next(s for s in self._bundle.manifest.exits.settings if s.name == point.exit)
            entry.looks = (setting.expected_looks, setting.shares)
        return entry, after

    def _memory_is_short(self) -> bool:
        readings = self._sensors.read(self._clock())
        free, limit = readings.memory_available_bytes, readings.memory_limit_bytes
        return free is not None and free < max(MIN_FREE_BYTES, MIN_FREE_SHARE * (limit or 0))
