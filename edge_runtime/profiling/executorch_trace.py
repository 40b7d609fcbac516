"""Time per operator of ExecuTorch programs, from its event tracer; in a process of its own.

    python -m edge_runtime.profiling.executorch_trace '{"bundle": "a.bundle", "points": ["w1.00-r064"], "threads": 2}'

The reader of the tracer's files imports ExecuTorch's whole compiler, which takes seconds and prints to the terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from edge_runtime.profiling.operators import middle_mean
from edge_runtime.profiling.result_records import Delegation, Operator, Operators

TRACE_TIMEOUT_S = 300.0
TRACED_RUNS = 20
SUMS = ("DELEGATE_CALL", "OPERATOR_CALL", "Method::execute", "Method::init", "Program::load_method", "Profile")
"""Events that hold others."""


def trace_executorch(bundle: Path, points: list[str], threads: int) -> dict[str, tuple[Operators, Delegation]]:
    """Operators of each point and who ran them; what cannot be had is a reason."""
    request = json.dumps({"bundle": str(bundle), "points": points, "threads": threads})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    command = [sys.executable, "-W", "ignore", "-m", "edge_runtime.profiling.executorch_trace", request]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRACE_TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise ValueError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
        traced = json.loads(done.stdout.strip().splitlines()[-1])
        return {name: _records(traced[name]) for name in points}
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
        reason = f"ExecuTorch's event tracer gave no trace: {type(error).__name__}: {error}"[:500]
        return {name: (Operators(reason), Delegation(reason)) for name in points}


def _records(rows: list[list[Any]]) -> tuple[Operators, Delegation]:
    operators = tuple(Operator(str(name), str(kind), float(ms), str(provider)) for name, kind, ms, provider in rows)
    delegated = [row for row in operators if row.provider]
    left = tuple(row.name for row in operators if not row.provider)
    note = "operators inside a delegate, of all that were executed"
    return (
        Operators(f"ExecuTorch's event tracer, mean of the middle half of {TRACED_RUNS} runs", operators),
        Delegation(note, len(delegated), len(operators), left),
    )


def trace_points(request: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """In the process of its own: point -> rows of (name, kind, milliseconds, delegate)."""
    from edge_runtime.bundle import Bundle

    bundle = Bundle.load(request["bundle"], verify=False)
    torch = importlib.import_module("torch")
    engine: Any = importlib.import_module("executorch.extension.pybindings._C")
    engine._unsafe_reset_threadpool(request["threads"])
    inspector: Any = importlib.import_module("executorch.devtools").Inspector
    found = {}
    for name in request["points"]:
        point = bundle.point(name)
        content = bundle.read(bundle.program(point).file)
        module = engine._load_for_executorch_from_buffer(content, enable_etdump=True)
        inputs = (torch.zeros(point.input_shape),)
        for _ in range(1 + TRACED_RUNS):
            module.run_method(point.method or "forward", inputs)
        with tempfile.TemporaryDirectory(prefix="edge-runtime-") as folder:
            path = str(Path(folder) / "trace.etdump")
            module.write_etdump_result_to_file(path)
            found[name] = _rows(inspector(etdump_path=path))
    return found


def _rows(inspector: Any) -> list[list[Any]]:
    rows = []
    for block in inspector.event_blocks:
        for event in block.events:
            if event.perf_data is None or event.name in SUMS:
                continue
            samples = list(event.perf_data.raw)
            warm = samples[1:] or samples
            provider = (event.delegate_backend_name or "delegate") if event.is_delegated_op else ""
            kind = event.name.partition(" (")[0].partition(" #")[0]
            rows.append([event.name, kind, round(max(0.0, middle_mean(warm)), 6), provider])
    return rows


def main() -> None:
    """One JSON line on standard output; one sentence on standard error when it fails."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            found = trace_points(json.loads(sys.argv[1]))
        print(json.dumps(found))
    except Exception as error:  # whatever the compiler's packages raise, the parent shows one sentence
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(4)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
