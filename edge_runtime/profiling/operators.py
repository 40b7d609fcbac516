"""Time per operator from ONNX Runtime's own profiler: a second session per point, since tracing slows the run."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.backends import BackendOptions
from edge_runtime.backends.ort import OrtBackend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.profiling.result_records import Delegation, Operator, Operators

TRACED_RUNS = 20
CPU_PROVIDER = "CPUExecutionProvider"
NODE_SUFFIX = "_kernel_time"


class TracingOrtBackend(OrtBackend):
    """Builds sessions that write a trace.

    Args:
        bundle, options: as for OrtBackend.
        folder: for the traces.
    """

    def __init__(self, bundle: Bundle, options: BackendOptions, folder: Path) -> None:
        super().__init__(bundle, options)
        self._folder = folder

    def _session_options(self, point: OperatingPoint, tensors: dict[str, Any]) -> Any:
        options = super()._session_options(point, tensors)
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "trace")
        return options

    def trace(self, point: OperatingPoint, runs: int) -> list[dict[str, Any]]:
        """The node events of `runs` runs after the first, in order of time."""
        runner = self.load(point)
        try:
            for _ in range(1 + runs):
                runner.run()
            path = Path(runner._session.end_profiling())
            events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
        finally:
            runner.close()
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(NODE_SUFFIX)]
        return nodes[len(nodes) // (1 + runs) :]


def trace_onnxruntime(
    bundle: Bundle, point: OperatingPoint, options: BackendOptions, runs: int = TRACED_RUNS
) -> tuple[Operators, Delegation]:
    """Operators of one point and who ran them; never raises for a trace that cannot be had."""
    try:
        with tempfile.TemporaryDirectory(prefix="edge-runtime-") as folder:
            events = TracingOrtBackend(bundle, options, Path(folder)).trace(point, runs)
    except (EdgeRuntimeError, OSError, ValueError, LookupError, RuntimeError, AttributeError) as error:
        reason = f"ONNX Runtime's profiler gave no trace: {type(error).__name__}: {error}"[:500]
        return Operators(reason), Delegation(reason)
    rows = operators_of(events, runs)
    return Operators(f"ONNX Runtime's profiler, mean of the middle half of {runs} runs", rows), providers_of(rows)


def operators_of(events: list[dict[str, Any]], runs: int) -> tuple[Operator, ...]:
    """Time of each node, in order of first execution; the profiler counts whole microseconds.

    A node may run several times in one run (a loop): its times are added up before runs are compared.
    """
    times_us: dict[str, list[float]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for event in events:
        name, arguments = event["name"].removesuffix(NODE_SUFFIX), event.get("args", {})
        times_us.setdefault(name, []).append(float(event["dur"]))
        facts.setdefault(name, (str(arguments.get("op_name", "")), str(arguments.get("provider", ""))))
    return tuple(
        Operator(name, facts[name][0], round(middle_mean(_per_run(found, runs)) / 1000.0, 6), facts[name][1])
        for name, found in times_us.items()
    )


def middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: what interrupts a run adds milliseconds to an operator of microseconds."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def _per_run(times: Sequence[float], runs: int) -> list[float]:
    each = max(1, len(times) // runs)
    return [sum(times[start : start + each]) for start in range(0, len(times), each)]


def providers_of(rows: tuple[Operator, ...]) -> Delegation:
    """Which operators the preferred provider runs. With the CPU provider alone nothing can fall back."""
    providers = list(dict.fromkeys(row.provider for row in rows))
    preferred = next((p for p in providers if p != CPU_PROVIDER), CPU_PROVIDER)
    left = tuple(row.name for row in rows if row.provider != preferred)
    if providers in ([], [CPU_PROVIDER]):
        return Delegation("all operators on the CPU provider, as asked", len(rows), len(rows))
    return Delegation(f"{preferred} takes {len(rows) - len(left)} operators", len(rows) - len(left), len(rows), left)
