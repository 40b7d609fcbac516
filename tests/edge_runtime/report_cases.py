"""Profiles and telemetry for the tests of reports: made up, but shaped like what devices give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edge_runtime.profiling.result import (
    FORMAT,
    SCHEMA_VERSION,
    Block,
    BundleFacts,
    Delegation,
    Energy,
    Environment,
    Estimate,
    Latency,
    Load,
    Memory,
    Method,
    Operator,
    Operators,
    PointProfile,
    ProfileResult,
    Sustained,
    SustainedSample,
    Verdict,
    save_result,
)
from edge_runtime.reporting.report import report_text

STABLE = Verdict(True, "stable")
BUNDLE = BundleFacts("everyday", "classification", 20, 3_600_000, "a" * 64, {"test": "photos, 1000 pictures"})
WIDTHS = (0.25, 0.5, 1.0)
SIZES = (32, 48, 64)
KINDS = ("Conv", "Clip", "Add", "GlobalAveragePool", "Gemm")


def latency(middle_ms: float, rng: np.random.Generator, blocks: int = 3, runs: int = 40) -> Latency:
    """Times around a middle with a tail, in blocks."""
    made = []
    for number in range(blocks):
        samples = middle_ms * (1.0 + 0.04 * rng.standard_normal(runs) ** 2 + 2.0 * (rng.random(runs) > 0.97))
        made.append(Block(10.0 * number, tuple(float(s) for s in samples), foreign_load=0.05))
    whole = np.concatenate([block.samples_ms for block in made])

    def estimate(value: float) -> Estimate:
        return Estimate(float(value), 0.98 * float(value), 1.02 * float(value))

    p50, p90, p95, p99 = (estimate(v) for v in np.percentile(whole, (50, 90, 95, 99)))
    return Latency(
        len(whole), estimate(whole.mean()), p50, p90, p95, p99, float(whole.min()), float(whole.max()),
        float(whole.std()), tuple(made),
    )  # fmt: skip


def point(
    width: float, size: int, precision: str, threads: int, speed: float, rng: np.random.Generator
) -> PointProfile:
    """One operating point of the made-up ladder."""
    middle_ms = speed * (0.12 + 1.2 * width**1.6 * (size / 64) ** 2) * (0.6 if precision == "int8" else 1.0)
    middle_ms *= {1: 1.7, 2: 1.0, 4: 1.25}[threads]
    accuracy = 0.36 + 0.14 * width + 0.1 * (size - 32) / 32 - (0.006 if precision == "int8" else 0.0)
    accuracy -= 0.05 if width == 1.0 and size == 32 else 0.0
    measured = latency(middle_ms, rng)
    rows = tuple(
        Operator(f"/features/{i}/{KINDS[i % 5]}", KINDS[i % 5], middle_ms * share, "CPUExecutionProvider")
        for i, share in enumerate(rng.dirichlet(np.ones(24)).tolist())
    )
    return PointProfile(
        f"w{width:.2f}-r{size:03d}-{precision}", "onnxruntime", precision, threads, width, (size, size),
        int(3e7 * width**2 * (size / 64) ** 2), {"select": accuracy - 0.004, "test": accuracy}, measured,
        1000.0 / measured.mean_ms.value, Load(20.0, 9.0, 2.0 * middle_ms, "cold: the page cache was dropped"),
        Memory("pss", 60_000_000, 64_000_000, 67_000_000, int(1e6 * (1 + 5 * width)), ""),
        Energy("measured", 4.0 * middle_ms, 4.0, "RAPL package-0"), Operators("ONNX Runtime profiler, 20 runs", rows),
        Delegation("all 24 operators run on CPUExecutionProvider", 24, 24), STABLE,
    )  # fmt: skip


def profile(
    model: str = "Board 5",
    speed: float = 1.0,
    precisions: Sequence[str] = ("fp32", "int8"),
    threads: Sequence[int] = (1, 2, 4),
    **changes: Any,
) -> ProfileResult:
    """A full profile."""
    rng = np.random.default_rng(5)
    points = [point(w, s, p, 2, speed, rng) for p in precisions for w in WIDTHS for s in SIZES]
    points += [point(w, 64, precisions[0], t, speed, rng) for t in threads if t != 2 for w in WIDTHS]
    samples = tuple(
        SustainedSample(5.0 + 10.0 * i, 1000, speed * (1.3 + 0.5 * (i > 20)), speed * (1.9 + 0.8 * (i > 20)),
                        55.0 + min(30.0, 1.4 * i), 2400.0 - 700.0 * (i > 20), 0.04)
        for i in range(40)
    )  # fmt: skip
    sustained = Sustained("w1.00-r064-fp32", "onnxruntime", 2, 400.0, samples, Verdict(False, "unstable: throttled"))
    environment = Environment(
        "linux", "6.6", "aarch64", "generic-arm64", model, "Cortex-A76", 4, 4, 8 << 30, "schedutil", 2400.0, False,
        None, 48.0, 71.0, False, "3.11", {"edge-runtime": "0.1.0", "onnxruntime": "1.32.0"},
    )  # fmt: skip
    result = ProfileResult(
        SCHEMA_VERSION, FORMAT, "2026-11-24T12:00:00Z", 212.0, "full", True, "edge-runtime profile everyday",
        BUNDLE, environment, method(), STABLE, tuple(points), (sustained,), 1.9, (),
    )  # fmt: skip
    return replace(result, **changes)


def method() -> Method:
    """How it was measured; the values do not matter here."""
    known: dict[str, Any] = {"seed": 1, "rounds": 3, "thread_pool": "one for the process", "other_data_bytes": 1 << 20}
    missing = [f for f in fields(Method) if f.default is MISSING and f.name not in known]
    return Method(**known, **{f.name: 20 if f.type == "int" else 0.5 for f in missing})


def write_profile(path: Path, **changes: Any) -> Path:
    """A profile's file."""
    return save_result(profile(**changes), path)


POINTS = (("small", 0.25, 32, 0.4, 0.1), ("middle", 0.5, 48, 0.5, 0.3), ("large", 1.0, 64, 0.6, 1.0))
"""(name, width, size, accuracy, tabled latency in ms) of the points in telemetry."""


def start_line(**changes: Any) -> dict[str, Any]:
    """The first line of telemetry, schema 1."""
    points = [
        {"name": n, "width": w, "size_hw": [s, s], "accuracy": a, "madds": int(1e6 * w)} for n, w, s, a, _ in POINTS
    ]
    line = {"event": "start", "schema_version": 1, "bundle": "everyday", "backend": "onnxruntime",
            "started": "2026-11-24T12:00:00Z", "points": points}  # fmt: skip
    return {**line, **changes}


def frame_line(index: int, point: str = "middle", slowdown: float = 1.0, **changes: Any) -> dict[str, Any]:
    """One frame; its engine time is the tabled one times the slowdown, and it costs 0.5 ms beside the engine."""
    tabled_ms = {name: ms for name, _, _, _, ms in POINTS}[point]
    run_ms = tabled_ms * slowdown
    line = {
        "event": "frame", "index": index, "captured_s": 100.0 + index / 30, "point": point,
        "reason": "best within the deadline", "switched": False, "feasible": True, "on_time": True, "deadline_ms": 2.0,
        "latency_ms": run_ms + 0.5, "preprocess_ms": 0.4, "run_ms": run_ms, "predicted_ms": run_ms,
        "slowdown": slowdown, "dropped": 0, "label": "cup", "confidence": 0.8, "own_load": 0.3, "foreign_load": 0.1,
        "temperature_c": None, "battery_share": None, "memory_available_bytes": 1_000_000_000, "throttled": None,
    }  # fmt: skip
    return {**line, **changes}


def run_lines(frames: int = 90, **start: Any) -> list[dict[str, Any]]:
    """A run with a slow middle: large, then middle while the device is three times slower, then small, then large."""
    lines = [start_line(**start)]
    for index in range(frames):
        part = 4 * index // frames
        name, slowdown = (("large", 1.0), ("middle", 3.0), ("small", 3.0), ("large", 1.1))[part]
        lines.append(frame_line(index, name, slowdown, temperature_c=60.0 + part if part else None))
    return [*lines, {"event": "end", "frames": frames, "switches": 3}]


def write_run(path: Path, lines: Sequence[dict[str, Any]] | None = None, tail: str = "") -> Path:
    """A telemetry file; `tail` is written after the last line as it is."""
    text = "".join(json.dumps(line) + "\n" for line in (run_lines() if lines is None else lines))
    path.write_text(text + tail, encoding="utf-8")
    return path


@lru_cache(maxsize=1)
def pages() -> dict[str, str]:
    """One page of every kind, drawn once for all tests: a profile, two devices, a run."""
    with TemporaryDirectory() as folder:
        at = Path(folder)
        one, other = write_profile(at / "one.json"), write_profile(at / "b.json", model="Phone 9", speed=0.6)
        lines = run_lines()
        for line in lines[40:]:
            line["steps"] = 1 + line.get("index", 0) % 3  # a glance-and-focus model
        lines.insert(1, {"event": "budget", "deadline_ms": 2.0, "min_accuracy": 0.45})
        run = write_run(at / "run.jsonl", lines)
        return {
            "profile": report_text([one], "html"),
            "devices": report_text([one, other], "html"),
            "run": report_text([run], "html"),
        }
