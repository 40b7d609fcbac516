"""Metrics by OpenTelemetry: the Prometheus endpoint's names, nothing secret, a collector that may be absent."""

from __future__ import annotations

import builtins
import http.server
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_values, write_bundle
from fake_engine import FakeEngine, tiny_bundle

from edge_runtime import Budget, Runtime
from edge_runtime.errors import BackendError, SinkError
from edge_runtime.frame import Frame
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Classification, Decision, Result
from edge_runtime.sensor_loop import NoSensors

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from edge_runtime import otlp_metrics
from edge_runtime.cli_run import run
from edge_runtime.otlp_metrics import OtlpMetrics, send_metrics


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def metrics(reader: InMemoryMetricReader) -> Iterator[OtlpMetrics]:
    made = OtlpMetrics(reader)
    yield made
    made.close()


def result(point: str = "p1", cause: str | None = None, **decision: Any) -> Result:
    """An answer of 12 ms."""
    return Result(
        Frame(np.zeros((2, 2, 3), np.uint8)), Classification("cup", 0.9), (),
        Decision(point, "best", 4.0, 1.25, **decision), 1.0, 5.0, 12.0, 33.0, 3, cause is None, cause,
    )  # fmt: skip


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, str], Any]:
    """(name, label) -> data point."""
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    return {
        (metric.name, "".join(map(str, point.attributes.values()))): point
        for metric in resource.scope_metrics[0].metrics
        for point in metric.data.data_points
    }


def test_frames_causes_and_readings_are_collected(metrics: OtlpMetrics, reader: InMemoryMetricReader) -> None:
    metrics.take(result(switched=True), Readings(temperature_c=61.0, foreign_load=0.25, throttled=True))
    metrics.take(result("p2", "compute", feasible=False), Readings(temperature_c=62.0))
    found = collected(reader)
    assert found["edge_runtime_frames", "p1"].value == 1
    assert found["edge_runtime_late_frames", "compute"].value == 1
    assert found["edge_runtime_late_frames", "decode"].value == 0
    assert found["edge_runtime_switches", ""].value == 1
    assert found["edge_runtime_infeasible_frames", ""].value == 1
    assert found["edge_runtime_dropped_frames", ""].value == 3
    assert found["edge_runtime_deadline_seconds", ""].value == pytest.approx(0.033)
    assert found["edge_runtime_slowdown_ratio", ""].value == 1.25
    latency = found["edge_runtime_latency_seconds", ""]
    assert latency.bucket_counts[latency.explicit_bounds.index(0.016)] == 2
    assert latency.sum == pytest.approx(0.024)
    assert found["edge_runtime_temperature_celsius", ""].value == 62.0


def test_what_became_unknown_is_no_longer_sent(metrics: OtlpMetrics, reader: InMemoryMetricReader) -> None:
    metrics.take(result(), Readings(temperature_c=61.0))
    assert ("edge_runtime_temperature_celsius", "") in collected(reader)
    metrics.take(result(), UNKNOWN)
    found = collected(reader)
    assert ("edge_runtime_temperature_celsius", "") not in found
    assert not any(math.isnan(point.value) for point in found.values() if hasattr(point, "value"))


def test_the_names_are_those_of_the_prometheus_endpoint(metrics: OtlpMetrics, reader: InMemoryMetricReader) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    from edge_runtime.metrics import Metrics

    known = Readings(**dict.fromkeys(otlp_metrics.READINGS, 0.5))
    metrics.take(result(), known)
    endpoint = Metrics(prometheus_client)
    assert {name for name, _ in collected(reader)} == {family.name for family in endpoint.registry.collect()}


def test_labels_hold_points_and_causes_only(metrics: OtlpMetrics, reader: InMemoryMetricReader) -> None:
    metrics.take(result(cause="sink"), UNKNOWN)
    assert {key for point in collected(reader).values() for key in point.attributes} == {"point", "cause"}


def test_a_runtime_reports_each_answer(tmp_path: Path, metrics: OtlpMetrics, reader: InMemoryMetricReader) -> None:
    bundle, engine = tiny_bundle(tmp_path), FakeEngine()
    with Runtime(
        bundle, engine, bundle.manifest.points, budget=Budget(100.0), sensors=NoSensors(), clock=engine.clock
    ) as runtime:
        runtime.on_result(metrics.take)
        for _ in range(3):
            runtime.infer(np.zeros((8, 8, 3), np.uint8))
    assert sum(p.value for (name, _), p in collected(reader).items() if name == "edge_runtime_frames") == 3


class Collector(http.server.BaseHTTPRequestHandler):
    """Answers `status` and keeps what it is sent."""

    status, taken = 200, []  # type: ignore[var-annotated]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).taken.append((self.path, ExportMetricsServiceRequest.FromString(body)))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[tuple[type[Collector], str]]:
    kind = type("OneCollector", (Collector,), {"taken": []})
    with http.server.HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_collector_gets_the_numbers_at_the_end_of_a_run(collector: tuple[type[Collector], str]) -> None:
    kind, address = collector
    said: list[str] = []
    with send_metrics(address, said.append) as metrics:
        metrics.take(result(), Readings(temperature_c=61.0))
    (path, request) = kind.taken[-1]
    assert path == "/v1/metrics"
    names = {metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics}
    assert {"edge_runtime_frames", "edge_runtime_temperature_celsius"} <= names
    assert address not in str(request)
    assert said == []


def test_the_command_sends_what_it_answered(
    collector: tuple[type[Collector], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, address = collector
    bundle = write_bundle(tmp_path / "a.bundle", manifest_values())
    arguments = ["--bundle", str(bundle), "-i", "pattern", "--max-frames", "2", "--otlp", address]
    run.main(arguments, standalone_mode=False)
    assert len(capsys.readouterr().out.splitlines()) == 2
    sent = kind.taken[-1][1].resource_metrics[0].scope_metrics[0].metrics
    frames = next(metric for metric in sent if metric.name == "edge_runtime_frames")
    assert sum(point.as_int for point in frames.sum.data_points) == 2


def test_a_collector_that_refuses_is_said_once_and_no_traceback_is_shown(
    collector: tuple[type[Collector], str], capfd: pytest.CaptureFixture[str]
) -> None:
    kind, address = collector
    kind.status = 400
    said: list[str] = []
    with send_metrics(f"{address}/?key=geheim", said.append) as metrics:
        metrics.take(result(), UNKNOWN)
        metrics._provider.force_flush()
    assert len(kind.taken) == 2
    assert said == ["the collector does not take the metrics; the run goes on without: see whether --otlp names it"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "address", ["", "4318", "localhost:4318", "ftp://a", "http://", "http://a:99999", "http://me:geheim@a:1"]
)
def test_an_address_without_sense_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(SinkError, match="expected http") as refused, send_metrics(address):
        pass
    assert "geheim" not in str(refused.value)


def test_an_absent_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    sentence = r"otlp-proto-http is not installed; .*pip install 'edge-runtime\[otlp\]'"
    with pytest.raises(BackendError, match=sentence), send_metrics("http://127.0.0.1:4318"):
        pass
