"""Memory with every point resident against the largest alone: growth of PSS in a process that has the engine loaded."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.record import save

KINDS = ("largest alone", "all points")
ROUNDS = 3


def pss_bytes() -> int:
    """Proportional set size of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not state the PSS of a process")


def measure(path: str, kind: str, arena: bool) -> dict[str, float]:
    """In a child process: growth in MB from the engine loaded to the points resident and run."""
    import ctypes

    import onnxruntime  # noqa: F401 (its own memory is not the bundle's)

    from edge_runtime import Bundle
    from edge_runtime.backends import BackendOptions, open_backend

    bundle = Bundle.load(path, verify=False)
    gc.collect()
    before = pss_bytes()
    options = BackendOptions(threads=1, global_thread_pool=True, memory_arena=arena)
    backend = open_backend(bundle.manifest.programs[0].backend, bundle, options)
    points = sorted(bundle.points_for(backend.name), key=lambda p: -p.madds)
    runners = [backend.load(p) for p in (points if kind == "all points" else points[:1])]
    for runner in runners:
        runner.run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return {"points": len(runners), "growth_mb": (pss_bytes() - before) / 1e6}


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--child", hidden=True, default=None)
def main(bundle: Path | None, child: str | None) -> None:
    """Measure and write benchmarks/results/resident_memory.json."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    if child is not None:
        print(json.dumps(measure(path, *json.loads(child))))
        return
    results = {}
    for arena in (True, False):
        growth = {}
        for kind in KINDS:
            found = []
            for _ in range(ROUNDS):
                command = [sys.executable, "-m", "benchmarks.resident_memory", "--bundle", path]
                command += ["--child", json.dumps([kind, arena])]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.append(json.loads(output.splitlines()[-1]))
            growth[kind] = min(f["growth_mb"] for f in found)
        ratio = growth["all points"] / growth["largest alone"]
        results["arena on" if arena else "arena off"] = {
            "largest_alone_mb": round(growth["largest alone"], 2),
            "all_points_mb": round(growth["all points"], 2),
            "points": found[0]["points"],
            "ratio": round(ratio, 2),
        }
    print(json.dumps(results, indent=1))
    save("resident_memory", {"bundle": Path(path).name, "threads": 1, "pss_growth": results})


if __name__ == "__main__":
    main()
