"""The Prometheus endpoint: what it serves, to whom, and what it says when it cannot."""

from __future__ import annotations

import builtins
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine, tiny_bundle

from edge_runtime import Budget, Runtime
from edge_runtime.errors import BackendError, SinkError
from edge_runtime.frame import Frame
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Classification, Decision, Result
from edge_runtime.sensor_loop import NoSensors

pytest.importorskip("prometheus_client")
from edge_runtime.metrics import LOCAL_HOST, Metrics, serve_metrics


@pytest.fixture
def served() -> Iterator[Metrics]:
    with serve_metrics("0") as metrics:
        yield metrics


def result(point: str = "p1", cause: str | None = None, **decision: Any) -> Result:
    """An answer of 12 ms."""
    return Result(
        Frame(np.zeros((2, 2, 3), np.uint8)), Classification("cup", 0.9), (),
        Decision(point, "best", 4.0, 1.25, **decision), 1.0, 5.0, 12.0, 33.0, 3, cause is None, cause,
    )  # fmt: skip


def scrape(metrics: Metrics) -> dict[str, float]:
    """Name with labels -> value."""
    with urllib.request.urlopen(f"http://{LOCAL_HOST}:{metrics.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_frames_causes_and_readings_are_served(served: Metrics) -> None:
    served.take(result(switched=True), Readings(temperature_c=61.0, foreign_load=0.25, throttled=True))
    served.take(result("p2", "compute", feasible=False), Readings(temperature_c=62.0))
    found = scrape(served)
    assert found['edge_runtime_frames_total{point="p1"}'] == 1.0
    assert found['edge_runtime_late_frames_total{cause="compute"}'] == 1.0
    assert found['edge_runtime_late_frames_total{cause="decode"}'] == 0.0
    assert found["edge_runtime_switches_total"] == 1.0
    assert found["edge_runtime_infeasible_frames_total"] == 1.0
    assert found["edge_runtime_dropped_frames"] == 3.0
    assert found["edge_runtime_deadline_seconds"] == pytest.approx(0.033)
    assert found["edge_runtime_slowdown_ratio"] == 1.25
    assert found['edge_runtime_latency_seconds_bucket{le="0.016"}'] == 2.0
    assert found["edge_runtime_latency_seconds_sum"] == pytest.approx(0.024)
    assert found["edge_runtime_temperature_celsius"] == 62.0
    assert np.isnan(found["edge_runtime_foreign_load_ratio"])  # unknown now, and never 0


def test_every_name_begins_with_ours(served: Metrics) -> None:
    served.take(result(), UNKNOWN)
    assert [name for name in scrape(served) if not name.startswith("edge_runtime_")] == []


def test_without_a_host_only_this_machine_is_served(served: Metrics) -> None:
    assert served._server.server_address[0] == "127.0.0.1"


def test_a_runtime_reports_each_answer(tmp_path: Path, served: Metrics) -> None:
    bundle, engine = tiny_bundle(tmp_path), FakeEngine()
    with Runtime(
        bundle, engine, bundle.manifest.points, budget=Budget(100.0), sensors=NoSensors(), clock=engine.clock
    ) as runtime:
        runtime.on_result(served.take)
        for _ in range(3):
            runtime.infer(np.zeros((8, 8, 3), np.uint8))
    found = scrape(served)
    assert sum(value for name, value in found.items() if name.startswith("edge_runtime_frames_total")) == 3.0


def test_a_port_in_use_is_told_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind((LOCAL_HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SinkError, match=rf"metrics cannot be served at 127.0.0.1:{port}: .*; choose another port"):
            serve_metrics(str(port))


@pytest.mark.parametrize("address", ["", "x", ":", "host:", ":9464", "9464x", "70000", "-1", "a:b:c"])
def test_an_address_without_sense_is_refused(address: str) -> None:
    with pytest.raises(SinkError, match="expected PORT or HOST:PORT"):
        serve_metrics(address)


def test_an_absent_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "prometheus_client":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        BackendError, match=r"prometheus-client is not installed; .*pip install 'edge-runtime\[metrics\]'"
    ):
        serve_metrics("0")
