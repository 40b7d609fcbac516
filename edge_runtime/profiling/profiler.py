"""Profile a bundle on this device: load, warm up, measure in random blocks, then what needs a closer look."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edge_runtime.bundle import Bundle
from edge_runtime.profile_schema import DeviceProfile
from edge_runtime.profiling.assembly import Closer, interruption_notes, measured_values
from edge_runtime.profiling.blocks import BlockMeter, Clock, Entry, Sleep, random_order
from edge_runtime.profiling.energy import EnergyMeter
from edge_runtime.profiling.executorch_trace import trace_executorch
from edge_runtime.profiling.fingerprint import bundle_facts, read_environment, usable_cores
from edge_runtime.profiling.load_probe import probe_load
from edge_runtime.profiling.loading import Group, Stage, StageLoader, options_of, stages_of
from edge_runtime.profiling.operators import trace_onnxruntime
from edge_runtime.profiling.result_records import (
    FORMAT,
    SCHEMA_VERSION,
    Delegation,
    Method,
    Operators,
    ProfileResult,
)
from edge_runtime.profiling.settings import MIN_ROUNDS, Plan, ProfileSettings, make_plan
from edge_runtime.profiling.sustained import SustainedRun
from edge_runtime.residency import OTHER_DATA_BYTES
from edge_runtime.sensor_loop import Sensors

PROBE_S, TRACE_S = 1.0, 0.3
"""Expected time of a fresh process and of a trace, for the progress bar alone."""
NOT_IN_THIS_MODE = "not measured in this mode; use --full"

Progress = Callable[[str, float, float], None]
"""Gets what is done now, the seconds done, and the seconds expected for everything."""


class Profiler:
    """One profile. Make it, `run` it once.

    Args:
        bundle: loaded and verified.
        settings: what to measure.
        profile: the device's choices, as the runtime takes them.
        sensors: what this device can tell, already limited to what the profile trusts.
        command: for the record.
        progress: follows the work.
        clock, sleep: seconds; tests bring their own.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: ProfileSettings,
        profile: DeviceProfile,
        sensors: Sensors,
        *,
        command: str = "",
        progress: Progress = lambda text, done_s, total_s: None,
        clock: Clock = time.perf_counter,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._bundle, self._settings, self._profile, self._sensors = bundle, settings, profile, sensors
        self._command, self._progress, self._clock, self._sleep = command, progress, clock, sleep
        threads = settings.threads or (min(profile.threads, usable_cores()),)
        backends = settings.backends or (bundle.manifest.programs[0].backend,)
        self._groups: list[Group] = [(backend, count) for backend in backends for count in threads]
        self._one_pool = len(threads) == 1
        self._loader = StageLoader(bundle, settings, profile, self._one_pool, sensors, clock)
        self._entries: list[Entry] = []
        self._closer: dict[tuple[str, str, int], Closer] = {}
        self._sustained: list[SustainedRun] = []
        self._notes: list[str] = []
        self._rounds_done = 0
        self._plan = Plan(settings.rounds, settings.block_runs, 0.0)
        self._idle_power_w: float | None = None
        self.interrupted = False

    def run(self) -> ProfileResult:
        """Do it all; Ctrl-C ends it early and keeps what is done.

        Raises:
            BackendError, BundleError: no point can run.
            ResultError: interrupted before every point had a block, or the clock went backwards.
        """
        facts = bundle_facts(self._bundle)
        readings = self._sensors.read(self._clock())
        environment = read_environment(self._profile.name, dict.fromkeys(b for b, _ in self._groups), readings)
        self._meter = BlockMeter(
            self._bundle.spec, self._sensors, self._settings.period_ms, self._clock, self._sleep
        )  # fmt: skip
        for backend, _ in self._groups:
            self._loader.points_of(backend)  # complain before the work
        try:
            stages = stages_of(self._groups)
            for groups in stages:
                self._run_stage(groups, len(stages))
        except KeyboardInterrupt:
            self.interrupted = True
        if self.interrupted:
            self._notes += interruption_notes(self._entries)
        seconds, after = self._meter.elapsed_s, self._sensors.read(self._clock())
        settings, plan = self._settings, self._plan
        method = Method(
            settings.seed, self._rounds_done, plan.block_runs, settings.period_ms,
            "one for the process" if self._one_pool else "one per point", OTHER_DATA_BYTES,
            self._meter.waited_to_cool_s,
        )  # fmt: skip
        return ProfileResult(
            schema_version=SCHEMA_VERSION,
            format=FORMAT,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            duration_s=round(seconds, 3),
            mode=settings.mode,
            complete=not self.interrupted,
            command=self._command,
            bundle=facts,
            environment=replace(environment, temperature_end_c=after.temperature_c),
            method=method,
            **measured_values(self._entries, self._closer, settings.seed),
            sustained=tuple(found for found in (run.record() for run in self._sustained) if found is not None),
            idle_power_w=self._idle_power_w,
            notes=tuple(dict.fromkeys(self._notes)),
        )

    def _run_stage(self, groups: list[Group], stages: int) -> None:
        settings, stage = self._settings, Stage()
        try:
            self._loader.load(stage, groups, lambda name: self._progress(f"building {name}", 0.0, 0.0))
            self._entries += stage.entries
            self._notes += stage.notes
            for entry in stage.entries:
                self._progress(f"warming {entry.point.name}", 0.0, 0.0)
                self._meter.warm_up(entry)
            share = replace(settings, measure_s=settings.measure_s / stages)
            self._plan = make_plan(share, [entry.warm_ms for entry in stage.entries])
            self._measure_blocks(stage.entries)
            self._look_closer(stage.entries)
            self._sustain(stage.entries)
        finally:
            self._notes = list(dict.fromkeys(self._notes + stage.notes))
            stage.close()

    def _measure_blocks(self, entries: list[Entry]) -> None:
        plan, settings = self._plan, self._settings
        bands = self._profile.thermal_bands
        cool_c = bands[0].leave_below if bands else None
        order, began_s = random_order(entries, plan.rounds, settings.seed), self._meter.elapsed_s
        for index, entry in enumerate(order):
            done_rounds, of_round = divmod(index, len(entries))
            now_s = self._meter.elapsed_s
            late = now_s - began_s > max(plan.seconds, settings.measure_s) or now_s > settings.blocks_end_s
            if late and of_round == 0 and done_rounds >= MIN_ROUNDS:
                self._notes.append(f"{done_rounds} of {plan.rounds} rounds: the device was slower than in its warm-up")
                break
            self._tell_progress(f"measuring {entry.point.name}", plan.seconds * index / len(order), entries)
            self._meter.cool_down(cool_c, settings.cool_s)
            self._meter.measure(entry, plan.block_runs)
            self._rounds_done = max(self._rounds_done, len(entry.blocks))
        if self._meter.waited_to_cool_s >= settings.cool_s:
            self._notes.append(f"the device stayed hot: {settings.cool_s:.0f} s of waiting did not cool it")

    def _look_closer(self, entries: list[Entry]) -> None:
        """Operators, fresh processes and energy, point by point."""
        settings = self._settings
        done_s = self._plan.seconds
        meter = EnergyMeter(self._sensors, self._profile, settings.energy_s, self._clock, self._sleep)
        self._idle_power_w = self._idle_power_w or meter.idle_power_w
        self._trace(entries, done_s)
        for index, entry in enumerate(entries):
            self._tell_progress(f"closer look at {entry.point.name}", done_s + index * self._closer_s, entries)
            mean_ms = sum(sum(b.samples_ms) for b in entry.blocks) / sum(len(b.samples_ms) for b in entry.blocks)
            self._closer[entry.key].energy = meter.measure(self._meter, entry, mean_ms)
            if settings.probes:
                options = options_of(self._profile, entry.threads, settings.precision, self._one_pool)
                entry.load, entry.memory = probe_load({
                    "bundle": str(self._bundle.root), "point": entry.point.name, "backend": entry.backend,
                    "options": options.__dict__,
                })  # fmt: skip

    def _trace(self, entries: list[Entry], done_s: float) -> None:
        self._tell_progress("operators", done_s, entries)
        executorch = [entry for entry in entries if entry.backend == "executorch"]
        traced: dict[str, tuple[Operators, Delegation]] = {}
        if executorch and self._settings.operators:
            names = [entry.point.name for entry in executorch]
            traced = trace_executorch(self._bundle.root, names, executorch[0].threads)
        for entry in entries:
            found = (Operators(NOT_IN_THIS_MODE), Delegation(NOT_IN_THIS_MODE))
            if self._settings.operators and entry.backend == "onnxruntime":
                options = options_of(self._profile, entry.threads, self._settings.precision, self._one_pool)
                found = trace_onnxruntime(self._bundle, entry.point, options)
            elif entry.backend == "null":
                found = (Operators("the null backend has no operators"), Delegation("the null backend has none"))
            self._closer[entry.key] = Closer(*traced.get(entry.point.name, found))

    def _sustain(self, entries: list[Entry]) -> None:
        """The most accurate point of the stage; with several backends or thread counts, of its first group."""
        wanted_s = self._settings.sustained_s
        if wanted_s <= 0.0:
            return
        group = [e for e in entries if (e.backend, e.threads) == (entries[0].backend, entries[0].threads)]
        entry = max(group, key=lambda e: (e.point.accuracy["select"], e.point.madds))
        run = SustainedRun(entry, wanted_s, self._sensors, self._clock)
        self._sustained.append(run)
        done_s = self._plan.seconds + self._closer_s * len(entries)
        run.run(self._meter, lambda s: self._tell_progress(f"sustained {entry.point.name}", done_s + s, entries))

    @property
    def _closer_s(self) -> float:
        """Expected time of the closer look at one point."""
        settings = self._settings
        energy_s = settings.energy_s if self._idle_power_w is not None else 0.0
        return PROBE_S * settings.probes + TRACE_S * settings.operators + energy_s

    def _tell_progress(self, text: str, done_s: float, entries: list[Entry]) -> None:
        total_s = self._plan.seconds + self._closer_s * len(entries) + self._settings.sustained_s
        self._progress(text, done_s, total_s)
