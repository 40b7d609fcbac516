"""Ways to hold all points of a bundle in onnxruntime: memory and latency of each, as docs/bundle.md tells them.

    python -m benchmarks.residency_trials --bundle NAME.bundle --precision int8

Memory is the growth of anonymous PSS from the engine loaded to all points run and freed memory given back; latency is
the median of the costliest point. One thread, a process for each way. "A session per width" gives all resolutions of a
width the statistics of its largest, so its answers differ: it is here for memory and latency (shared_statistics.py has
the accuracy).
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import save
from benchmarks.resident_memory import pss_bytes

WAYS: dict[str, dict[str, Any]] = {
    "as the runtime does": {},
    "our arrays kept": {"keep": True},
    "an arena for each session": {"arena": "own"},
    "no arena": {"arena": "none"},
    "weights in the shared arena": {"entries": {"session.use_device_allocator_for_initializers": "0"}},
    "memory patterns off": {"pattern": False},
    "prepacking off": {"entries": {"session.disable_prepacking": "1"}},
    "a session per width": {"per_width": True},
}
WARM_UP, RUNS = 20, 200


def session_of(ort: Any, bundle: Any, point: Any, way: dict[str, Any]) -> tuple[Any, Any]:
    """A session and what must live as long."""
    from edge_runtime.tensor_recipe import build_tensors, read_recipe

    program = bundle.program(point)
    recipe = read_recipe(bundle.content(program.tensors), program.tensors)
    tensors = build_tensors(recipe, bundle.weights, bundle.tables, point.table)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.use_per_session_threads = False
    options.enable_mem_pattern = way.get("pattern", True)
    options.enable_cpu_mem_arena = way.get("arena") != "none"
    if way.get("arena") is None:
        options.add_session_config_entry("session.use_env_allocators", "1")
    entries = {"session.use_device_allocator_for_initializers": "1", **way.get("entries", {})}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if not way.get("per_width"):
        options.add_free_dimension_override_by_name("height", point.size_hw[0])
        options.add_free_dimension_override_by_name("width", point.size_hw[1])
    options.add_external_initializers(list(tensors), [ort.OrtValue.ortvalue_from_numpy(a) for a in tensors.values()])
    session = ort.InferenceSession(bundle.content(program.file), options, providers=["CPUExecutionProvider"])
    return session, tensors if way.get("keep") else None


def measure(path: str, precision: str, way: dict[str, Any]) -> dict[str, float]:
    """In a child process."""
    import onnxruntime as ort

    from edge_runtime import Bundle
    from edge_runtime.freed_memory import give_back, own_pages

    bundle = Bundle.load(path, verify=False)
    points = sorted(bundle.points_for("onnxruntime", precision), key=lambda p: -p.madds)
    ort.set_global_thread_pool_sizes(1, 1)
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(0, -1, -1, -1))
    gc.collect()
    before = pss_bytes("Pss_Anon")
    sessions: dict[Any, tuple[Any, Any]] = {}
    for point in points:
        key = point.width if way.get("per_width") else point.name
        with own_pages():
            if key not in sessions:
                sessions[key] = session_of(ort, bundle, point, way)
            sessions[key][0].run(None, {"image": np.zeros((1, 3, *point.size_hw), np.float32)})
    with own_pages():
        bundle.release()
        gc.collect()
    give_back()
    growth = pss_bytes("Pss_Anon") - before
    session = next(iter(sessions.values()))[0]
    picture = {"image": np.zeros((1, 3, *points[0].size_hw), np.float32)}
    samples = []
    for turn in range(WARM_UP + RUNS):
        started = time.perf_counter()
        session.run(None, picture)
        if turn >= WARM_UP:
            samples.append((time.perf_counter() - started) * 1000.0)
    return {
        "sessions": len(sessions), "growth_mb": round(growth / 1e6, 1),
        "costliest_point_ms": round(statistics.median(samples), 3),
    }  # fmt: skip


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--record/--no-record", default=True, help="Write benchmarks/results/residency_trials_PRECISION.json.")
@click.option("--child", hidden=True, default=None)
def main(bundle: Path | None, precision: str, record: bool, child: str | None) -> None:
    """Measure, print and record."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    if child is not None:
        print(json.dumps(measure(path, precision, WAYS[child])))
        return
    results = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.residency_trials", "--bundle", path, "--precision", precision]
        output = subprocess.run([*command, "--child", way], capture_output=True, text=True, check=True).stdout
        results[way] = json.loads(output.splitlines()[-1])
        print(f"{way}: {results[way]}", flush=True)
    if record:
        save(f"residency_trials_{precision}", {"bundle": Path(path).name, "threads": 1, "ways": results})


if __name__ == "__main__":
    main()
