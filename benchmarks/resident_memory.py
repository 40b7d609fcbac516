"""Memory with every point selectable against the largest alone: growth of PSS in a process that has the engine loaded.

    python -m benchmarks.resident_memory --bundle NAME.bundle

"Selectable" is the resident set's default policy: every point can be used in turn, each after it was wanted; the set
walks up and down the whole ladder, and PSS is read when nothing is being built (settled) and every few milliseconds in
between (highest). Each kind has processes of its own; the least of three counts, since other programs can only add.
The engine's code counts by the pages that were touched, shared with whoever else runs it: measure on a quiet machine;
"anonymous" leaves it out.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.record import save

if TYPE_CHECKING:
    from edge_runtime.residency import ResidentSet

KINDS = ("largest alone", "every point selectable", "every point resident")
ROUNDS = 3
SAMPLE_PERIOD_S = 0.005


def pss_bytes(field: str = "Pss") -> int:
    """Proportional set size of this process, or its part that is no file ("Pss_Anon")."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not state the {field} of a process")


@contextlib.contextmanager
def highest_pss() -> Iterator[list[int]]:
    """A list whose one entry is the highest PSS seen while the context is open."""
    seen, stop = [pss_bytes()], threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_PERIOD_S):
            seen[0] = max(seen[0], pss_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@dataclass
class Seen:
    """What was read of the process, each time that nothing was being built."""

    before: int = field(default_factory=pss_bytes)
    """PSS at the start, bytes; what follows is growth over the start."""
    anonymous_before: int = field(default_factory=lambda: pss_bytes("Pss_Anon"))
    settled: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Points that were resident."""

    def take(self, resident: ResidentSet) -> None:
        """Wait until nothing is being built, then read.

        Raises:
            RuntimeError: something is still being built after a minute.
        """
        from edge_runtime.freed_memory import give_back

        if not resident.wait(60):
            raise RuntimeError("the points are not resident after a minute")
        gc.collect()
        give_back()
        self.settled.append(pss_bytes() - self.before)
        self.anonymous.append(pss_bytes("Pss_Anon") - self.anonymous_before)
        self.counts.append(len(resident.names))


def measure(path: str, kind: str, precision: str) -> dict[str, Any]:
    """In a child process: growth in MB from the engine loaded to the points resident and run."""
    import onnxruntime  # noqa: F401 (its own memory is not the bundle's)

    from edge_runtime import Bundle
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.residency import ResidentSet

    bundle = Bundle.load(path, verify=False)
    points = sorted(bundle.points_for("onnxruntime", precision), key=lambda p: p.madds)
    gc.collect()
    seen = Seen()
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1, global_thread_pool=True))
    chosen = points[-1:] if kind == "largest alone" else points
    walk = [*chosen, *reversed(chosen)] if kind == "every point selectable" else []
    with highest_pss() as highest:
        resident = ResidentSet(backend, chosen, limit_bytes="default" if walk else "all")
        seen.take(resident)
        for point in walk:
            use(resident, point.name, seen)
    resident.close()
    return {
        "points": len(chosen),
        "settled_mb": round(max(seen.settled) / 1e6, 2),
        "anonymous_mb": round(max(seen.anonymous) / 1e6, 2),
        "highest_mb": round((highest[0] - seen.before) / 1e6, 2),
        "fewest_resident": min(seen.counts[1:] or seen.counts),
        "most_resident": max(seen.counts),
    }


def use(resident: ResidentSet, point: str, seen: Seen) -> None:
    """Want a point, run it once it is resident, and read before and after."""
    resident.prefer(point)
    seen.take(resident)
    resident.begin_frame()
    resident.runner(point).run()
    resident.end_frame(point, point)
    seen.take(resident)


def compare(path: str, precision: str) -> dict[str, Any]:
    """All kinds, in turn, each in processes of its own."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.resident_memory", "--bundle", path]
            command += ["--child", json.dumps([kind, precision])]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[kind].append(json.loads(output.splitlines()[-1]))
    found = {kind: min(rows, key=lambda row: row["settled_mb"]) for kind, rows in runs.items()}
    alone_mb = found[KINDS[0]]["settled_mb"]
    return {kind: {**row, "ratio": round(row["settled_mb"] / alone_mb, 2)} for kind, row in found.items()}


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--record/--no-record", default=True, help="Write benchmarks/results/resident_memory.json.")
@click.option("--child", hidden=True, default=None)
def main(bundle: Path | None, record: bool, child: str | None) -> None:
    """Measure, print and record."""
    from edge_runtime import Bundle, default_bundle_path

    path = str(bundle or default_bundle_path())
    if child is not None:
        print(json.dumps(measure(path, *json.loads(child))))
        return
    programs = [p for p in Bundle.load(path).manifest.programs if p.backend == "onnxruntime"]
    results = {precision: compare(path, precision) for precision in dict.fromkeys(p.precision for p in programs)}
    print(json.dumps(results, indent=1))
    if record:
        save("resident_memory", {"bundle": Path(path).name, "threads": 1, "pss_growth": results})


if __name__ == "__main__":
    main()
