"""The closer look: operators from the engines' profilers, a fresh process for load and memory, /proc as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_engine import tiny_bundle

from edge_runtime import Bundle, default_bundle_path
from edge_runtime.backends import BackendOptions
from edge_runtime.profiling import executorch_trace
from edge_runtime.profiling.load_probe import drop_cached_pages, measure_load, probe_load
from edge_runtime.profiling.operators import operators_of, providers_of, trace_onnxruntime
from edge_runtime.profiling.process_memory import memory_now, peak_since_reset, reset_peak

POINT = "w0.35-r064-int8"
NULL = {"threads": 1}


def event(name: str, microseconds: int, kind: str = "Conv", provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    """A node event of a trace."""
    arguments = {"op_name": kind, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": arguments}


def test_operator_times_are_means_over_the_runs_in_order_of_execution() -> None:
    rows = operators_of([event("b", 30), event("a", 10, "Gemm"), event("b", 50), event("a", 20, "Gemm")], 2)
    assert [(row.name, row.kind, row.mean_ms) for row in rows] == [("b", "Conv", 0.04), ("a", "Gemm", 0.015)]


def test_an_operator_that_was_interrupted_in_one_run_keeps_its_time() -> None:
    events = [event("a", microseconds) for microseconds in (10, 12, 9000, 11, 12, 10, 13, 12)]
    assert operators_of(events, 8)[0].mean_ms == pytest.approx(0.01175)


def test_an_operator_that_runs_twice_in_each_run_counts_twice() -> None:
    events = [event("a", microseconds) for microseconds in (10, 30, 10, 30, 10, 30, 10, 30)]
    assert operators_of(events, 4)[0].mean_ms == pytest.approx(0.04)


def test_operators_that_another_provider_left_to_the_cpu_are_fallbacks() -> None:
    rows = operators_of([event("a", 1, provider="XnnpackExecutionProvider"), event("b", 1)], 1)
    found = providers_of(rows)
    assert (found.delegated, found.total, found.fallbacks) == (1, 2, ("b",))
    alone = providers_of(operators_of([event("a", 1), event("b", 1)], 1))
    assert (alone.delegated, alone.total, alone.fallbacks) == (2, 2, ())


def test_onnxruntime_tells_the_time_of_each_operator_of_the_shipped_bundle() -> None:
    bundle = Bundle.load(default_bundle_path(), verify=False)
    operators, delegation = trace_onnxruntime(bundle, bundle.point(POINT), BackendOptions(1), runs=3)
    assert operators.source == "ONNX Runtime's profiler, mean of the middle half of 3 runs"
    kinds = {row.kind for row in operators.rows}
    assert {"QLinearConv", "Gemm"} <= kinds
    assert len({row.name for row in operators.rows}) == len(operators.rows) == delegation.total
    assert sum(row.mean_ms for row in operators.rows) > 0.0


def test_a_trace_that_cannot_be_had_is_a_reason_and_no_error(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    operators, delegation = trace_onnxruntime(bundle, bundle.manifest.points[0], BackendOptions(1), runs=1)
    assert operators.rows == ()
    assert operators.source.startswith("ONNX Runtime's profiler gave no trace: BackendError: ")
    assert delegation.delegated is None


def test_a_fresh_process_tells_cold_and_warm_load_and_its_memory() -> None:
    load, memory = probe_load({
        "bundle": str(default_bundle_path()), "point": POINT, "backend": "onnxruntime", "options": NULL,
    })  # fmt: skip
    assert load.cold_ms is not None
    assert load.warm_ms is not None
    assert load.first_run_ms is not None
    assert load.cold_ms > load.first_run_ms > 0.0
    assert load.note.startswith("cold: a fresh process")
    assert memory.loaded_bytes is not None
    assert memory.baseline_bytes is not None
    assert memory.added_bytes == memory.loaded_bytes - memory.baseline_bytes > 100_000
    assert memory.peak_bytes is not None
    assert memory.peak_bytes > memory.added_bytes


def test_a_fresh_process_that_fails_is_a_note(tmp_path: Path) -> None:
    load, memory = probe_load({
        "bundle": str(tmp_path / "none.bundle"), "point": POINT, "backend": "null", "options": NULL,
    })  # fmt: skip
    assert (load.cold_ms, memory.loaded_bytes) == (None, None)
    assert load.note.startswith("a fresh process failed: ")
    assert "not a bundle folder" in load.note
    assert memory.note == load.note


def test_the_probe_measures_what_the_engine_does(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    request = {"bundle": str(bundle.root), "point": "w1.00-r032", "backend": "null", "options": NULL}
    found = measure_load(request)
    assert found["load"]["first_run_ms"] >= 3.2  # the null backend sleeps so long


def test_dropping_pages_leaves_the_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    assert drop_cached_pages(tmp_path) is hasattr(os, "posix_fadvise")
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000


def proc(folder: Path, rollup: str | None, status: str | None) -> Path:
    """A /proc/self."""
    for name, text in (("smaps_rollup", rollup), ("status", status)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_pss_is_taken_where_the_kernel_tells_it_and_rss_otherwise(tmp_path: Path) -> None:
    status = "VmHWM:\t 9000 kB\nVmRSS:\t    5000 kB\n"
    assert memory_now(proc(tmp_path, "Rss: 5000 kB\nPss:   3000 kB\n", status)) == ("pss", 3000 * 1024)
    (tmp_path / "smaps_rollup").unlink()
    assert memory_now(tmp_path) == ("rss", 5000 * 1024)
    assert peak_since_reset(tmp_path) == 9000 * 1024


@pytest.mark.parametrize("text", ["", "Pss:", "Pss: x kB", "Pss: -5 kB", "Pss"])
def test_memory_that_cannot_be_read_is_unknown_and_not_zero(tmp_path: Path, text: str) -> None:
    assert memory_now(proc(tmp_path, text, None)) == ("", None)
    assert peak_since_reset(tmp_path) is None


def test_the_peak_is_forgotten_where_the_kernel_lets_us(tmp_path: Path) -> None:
    assert reset_peak(tmp_path)
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert not reset_peak(tmp_path / "none")


def test_this_process_knows_its_memory() -> None:
    kind, size_bytes = memory_now()
    assert kind in ("pss", "rss")
    assert size_bytes is not None
    assert size_bytes > 1 << 20


class Event:
    """Of ExecuTorch's inspector."""

    def __init__(self, name: str, raw: list[float], delegate: str | None = None, delegated: bool = False) -> None:
        self.name, self.delegate_backend_name, self.is_delegated_op = name, delegate, delegated
        self.perf_data = type("Perf", (), {"raw": raw})() if raw else None


def test_rows_of_executorch_leave_out_the_sums_and_the_first_run() -> None:
    events = [
        Event("Method::execute", [9.0]), Event("DELEGATE_CALL", [8.0]), Event("no time", []),
        Event("Convolution (NHWC, F32) IGEMM #1", [90.0, 2.0, 4.0], "XnnpackBackend", True),
        Event("native_call_view_copy.out", [5.0, 1.0]),
    ]  # fmt: skip
    inspector = type("Inspector", (), {"event_blocks": [type("Block", (), {"events": events})()]})()
    rows = executorch_trace._rows(inspector)
    assert rows == [
        ["Convolution (NHWC, F32) IGEMM #1", "Convolution", 3.0, "XnnpackBackend"],
        ["native_call_view_copy.out", "native_call_view_copy.out", 1.0, ""],
    ]
    operators, delegation = executorch_trace._records(rows)
    assert len(operators.rows) == 2
    assert (delegation.delegated, delegation.total, delegation.fallbacks) == (1, 2, ("native_call_view_copy.out",))


def test_a_missing_event_tracer_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executorch_trace.sys, "executable", str(tmp_path / "no-python"))
    found = executorch_trace.trace_executorch(tmp_path, ["a"], 1)
    assert found["a"][0].source.startswith("ExecuTorch's event tracer gave no trace: FileNotFoundError")
    assert json.dumps(found["a"][0].rows) == "[]"
