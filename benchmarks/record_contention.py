"""Record what real contention does to every operating point of a bundle: python -m benchmarks.record_contention

At 15 and 30 frames a second the points of the bundle are run in turn, one a frame, through the same pipeline as ever,
beside scripted child processes (benchmarks/contention.py). From each frame the other points' latencies are derived
(benchmarks/counterfactual.py). Writes one small trace per load and rate under benchmarks/traces, and the noise model
of the generated traces, benchmarks/results/contention_noise.json.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

from benchmarks.contention import LOADS, Contention, LoadKind
from benchmarks.counterfactual import estimated_over_measured, rebuild
from benchmarks.frame_loop import (
    CameraClock,
    FrameRow,
    Meter,
    drive,
    measure_quiet,
    open_meter,
    pareto_points,
    trace_points,
)
from benchmarks.noise_model import STATES, fit_noise
from benchmarks.record import environment, save
from benchmarks.traces import FOLDER, Array, Trace, TracePoint, save_trace
from edge_runtime import Budget, Bundle, Runtime, default_bundle_path
from edge_runtime.manifest import OperatingPoint
from edge_runtime.sensor_loop import NoSensors

LEAD_IN_S = 0.3


def phases(levels: list[tuple[float, float]], frame_count: int, fps: float) -> Array:
    """State of the machine in each frame: 0 idle, 1 loaded, 0.5 in between."""
    at_s = np.arange(frame_count) / fps
    changes, values = np.array([a for a, _ in levels]), np.array([v for _, v in levels])
    found = values[np.maximum(0, np.searchsorted(changes, at_s, side="right") - 1)]
    result: Array = np.where(found <= 0.0, 0.0, np.where(found >= 1.0, 1.0, 0.5)).astype(np.float32)
    return result


def marks(levels: list[tuple[float, float]]) -> tuple[tuple[float, str], ...]:
    """Moments at which the load was switched fully on or off."""
    found = []
    for (_, before), (at_s, level) in pairwise(levels):
        if {before, level} == {0.0, 1.0}:
            found.append((round(at_s, 3), "load on" if level else "load off"))
    return tuple(found)


def record(
    load: LoadKind, fps: float, length_s: float, bundle: Bundle, meter: Meter, points: tuple[OperatingPoint, ...],
    known: tuple[TracePoint, ...], seed: int,
) -> tuple[Trace, list[FrameRow], Array]:  # fmt: skip
    """One block: the trace, its rows and the phase of each frame."""
    frame_count = int(length_s * fps)
    order = np.random.default_rng(seed).permutation(len(points))
    with (
        Runtime(bundle, meter, points, budget=Budget(1000.0), sensors=NoSensors()) as runtime,
        Contention(load, length_s, seed) as contention,
    ):
        runtime.wait_ready()
        camera = CameraClock(fps, frame_count, time.monotonic() + LEAD_IN_S)
        contention.begin(camera.started_s)
        rows = drive(runtime, meter, camera, lambda count, at_s: runtime.pin(points[order[count % len(points)]].name))
        levels = contention.levels
    phase_of = phases(levels, frame_count, fps)
    trace = rebuild(
        f"recorded {load.name} {fps:g} fps", fps, frame_count, known, rows, slept_through=camera.slept_through,
        phase_of=phase_of, seed=seed, learn_effects=True,
    )  # fmt: skip
    fitting_ms = trace.fitting_deadline_ms(phase_of == 0.0)
    trace = trace.with_deadline(fitting_ms, lambda at_s: load.deadline_share(at_s, length_s))
    return _about(trace, levels, bundle, seed), rows, phase_of


def _about(trace: Trace, levels: list[tuple[float, float]], bundle: Bundle, seed: int) -> Trace:
    facts = {"bundle": bundle.manifest.name, "seed": seed, "environment": environment()}
    return replace(trace, marks=marks(levels), facts=facts)


def record_all(
    bundle: Bundle, meter: Meter, points: tuple[OperatingPoint, ...], loads: list[str], rates: list[float],
    length_s: float, repeat: int, *, seed: int = 0, write: bool = True, folder: Path = FOLDER,
) -> tuple[tuple[OperatingPoint, ...], dict[str, Trace]]:  # fmt: skip
    """Record every load at every rate.

    Args:
        points: all points of the bundle.
        write: save the traces and the noise model.
    Returns:
        the points that no other one beats when the machine is quiet, and the traces by name.
    """
    quiet_ms = measure_quiet(meter, points)
    points = pareto_points(points, quiet_ms)
    known = trace_points(points, quiet_ms)
    print("\n".join(f"{p.name}: accuracy {p.accuracy:.3f}, {p.quiet_ms:.2f} ms" for p in known))
    blocks, traces, checks = [], {}, {}
    for name in loads:
        for fps in rates:
            trace, rows, phase_of = record(LOADS[name], fps, length_s, bundle, meter, points, known, seed)
            traces[trace.name] = trace
            blocks.append((name, rows, phase_of))
            checks[trace.name] = estimated_over_measured(trace, rows)
            print(f"{trace.name}: {len(rows)} of {trace.frames} frames, deadline {trace.budgets[0][1].deadline_ms} ms")
            print(f"  estimated / measured latency: {checks[trace.name]}")
            if write:
                save_trace(folder / f"{name}-{fps:g}.npz", trace)
    noise = fit_noise(blocks, known)
    if write and set(noise) == set(STATES):  # with fewer loads the model that was recorded before stays
        save("contention_noise", {
            "bundle": bundle.manifest.name, "repeat": repeat, "seconds": length_s, "noise": noise,
            "estimated_over_measured": checks,
        })  # fmt: skip
    return points, traces


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
@click.option("--repeat", default=20, show_default=True, help="Runs of each network per frame; see frame_loop.py.")
@click.option("--seconds", default=30.0, show_default=True, help="Of each block.")
@click.option("--rates", default="15,30", show_default=True, help="Frames a second.")
@click.option("--loads", default=",".join(LOADS), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, show_default=False)
def main(bundle: Path | None, repeat: int, seconds: float, rates: str, loads: str, seed: int, out: Path) -> None:
    """Record all loads at all rates."""
    opened = Bundle.load(bundle or default_bundle_path())
    meter, points = open_meter(opened, repeat)
    speeds = [float(rate) for rate in rates.split(",")]
    record_all(opened, meter, points, loads.split(","), speeds, seconds, repeat, seed=seed, folder=out)


if __name__ == "__main__":
    main()
