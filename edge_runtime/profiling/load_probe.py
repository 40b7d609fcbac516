"""Build one operating point in a fresh process: cold and warm load, first run, memory.

    python -m edge_runtime.profiling.load_probe '{"bundle": "a.bundle", "point": "w1.00-r064", ...}'

A process of its own starts without the pages, pools and caches that other points left behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime.profiling.process_memory import memory_now, peak_since_reset, reset_peak
from edge_runtime.profiling.result_records import Load, Memory
from edge_runtime.records import RecordError, read_record

PROBE_TIMEOUT_S = 120.0
SETTLE_RUNS = 3


def probe_load(request: dict[str, Any]) -> tuple[Load, Memory]:
    """Start the process and read what it found; what went wrong becomes a note.

    Args:
        request: "bundle", "point", "backend", and "options" (of BackendOptions).
    """
    command = [sys.executable, "-m", "edge_runtime.profiling.load_probe", json.dumps(request)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _failed(f"a fresh process did not answer: {type(error).__name__}")
    if done.returncode != 0:
        return _failed(f"a fresh process failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:300]}")
    try:
        values = json.loads(done.stdout.strip().splitlines()[-1])
        return read_record(Load, values["load"], "load"), read_record(Memory, values["memory"], "memory")
    except (ValueError, LookupError, TypeError, RecordError) as error:
        return _failed(f"a fresh process gave no answer: {error}"[:300])


def _failed(note: str) -> tuple[Load, Memory]:
    return Load(note=note), Memory(note=note)


def measure_load(request: dict[str, Any]) -> dict[str, Any]:
    """In the fresh process."""
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.bundle import Bundle

    root = Path(request["bundle"])
    dropped = drop_cached_pages(root)
    bundle = Bundle.load(root, verify=False)  # each file is verified when the point reads it
    point = bundle.point(request["point"])
    backend = open_backend(request["backend"], bundle, BackendOptions(**request["options"]))
    kind, baseline = memory_now()
    reset = reset_peak()
    started = time.perf_counter()
    runner = backend.load(point)
    loaded = time.perf_counter()
    runner.run()
    ran = time.perf_counter()
    for _ in range(SETTLE_RUNS):
        runner.run()
    after, peak = memory_now()[1], peak_since_reset()
    again = time.perf_counter()
    backend.load(point).close()
    warm_ms = (time.perf_counter() - again) * 1000.0
    cold = "its files dropped from the page cache" if dropped else "its files may be in the page cache"
    load = Load((loaded - started) * 1000.0, warm_ms, (ran - loaded) * 1000.0, f"cold: a fresh process, {cold}")
    memory = Memory(
        kind, baseline, after, peak, None if after is None or baseline is None else max(0, after - baseline),
        "" if reset else "the peak includes the start of the process",
    )  # fmt: skip
    runner.close()
    backend.close()
    return {"load": asdict(load), "memory": asdict(memory)}


def drop_cached_pages(root: Path) -> bool:
    """Ask the system to forget the bundle's files; False where it has no such call or refuses."""
    if not hasattr(os, "posix_fadvise"):
        return False
    try:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
    except OSError:
        return False
    return True


def main() -> None:
    """One JSON line on standard output; one sentence on standard error when it fails."""
    from edge_runtime.errors import EdgeRuntimeError

    try:
        print(json.dumps(measure_load(json.loads(sys.argv[1]))))
    except EdgeRuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # the terminal's Ctrl-C reaches the child, too; the parent says it
        sys.exit(130)


if __name__ == "__main__":
    main()
