"""The metrics of a run sent to an OpenTelemetry collector, under the names of the Prometheus endpoint.

    with send_metrics("http://127.0.0.1:4318") as metrics:
        runtime.on_result(metrics.take)

Counters, histograms and gauges are those of edge_runtime.metrics; labels hold operating points and causes only. An
unknown reading is not sent at all. A collector that does not answer is said once, and the run goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.errors import SinkError, missing_package
from edge_runtime.late_cause import LATE_CAUSES
from edge_runtime.metrics import BUCKETS_S, READINGS
from edge_runtime.readings import Readings
from edge_runtime.result import Result

PERIOD_S = 10.0
"""Between two messages to the collector."""
TIMEOUT_S = 5.0
"""Longest wait for its answer, at the end of a run too."""
COLLECTOR_PATH = "/v1/metrics"
"""Where a collector takes metrics, if the address names no path."""
OF_FRAMES = (
    ("edge_runtime_dropped_frames", "Frames that the source lost since it was opened."),
    ("edge_runtime_deadline_seconds", "Allowed latency."),
    ("edge_runtime_slowdown_ratio", "Estimated observed / tabled latency."),
)
"""Name and help of the gauges that an answer sets."""


class OtlpMetrics:
    """The numbers of one run, and the reader that sends them.

    Args:
        reader: an OpenTelemetry metric reader; collects what `take` was given.
    """

    def __init__(self, reader: Any) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        resource = Resource.create({"service.name": "edge-runtime"})
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._now: dict[str, float] = {}
        meter = self._provider.get_meter("edge_runtime")
        self._frames = meter.create_counter("edge_runtime_frames", "", "Answered frames.")
        self._late = meter.create_counter("edge_runtime_late_frames", "", "Answers after the deadline, by cause.")
        self._infeasible = meter.create_counter("edge_runtime_infeasible_frames", "", "Budget was out of reach.")
        self._switches = meter.create_counter("edge_runtime_switches", "", "Changes of the operating point.")
        for cause in LATE_CAUSES:  # so that a rate can be taken before the first one
            self._late.add(0, {"cause": cause})
        bounds = {"explicit_bucket_boundaries_advisory": BUCKETS_S}
        self._latency = meter.create_histogram("edge_runtime_latency_seconds", "s", "Capture to answer.", **bounds)
        self._run = meter.create_histogram("edge_runtime_run_seconds", "s", "Inside the engine.", **bounds)
        for name, text in (*OF_FRAMES, *READINGS.values()):
            meter.create_observable_gauge(name, [partial(self._observe, name)], description=text)

    def take(self, result: Result, readings: Readings) -> None:
        """Count one answer."""
        decision = result.decision
        self._frames.add(1, {"point": decision.point})
        if result.late_because is not None:
            self._late.add(1, {"cause": result.late_because})
        self._infeasible.add(int(not decision.feasible))
        self._switches.add(int(decision.switched))
        self._latency.record(result.latency_ms / 1000.0)
        self._run.record(result.run_ms / 1000.0)
        frame = (result.dropped, result.deadline_ms / 1000.0, decision.slowdown)
        now = {name: value for (name, _), value in zip(OF_FRAMES, frame, strict=True)}
        now.update((name, getattr(readings, field)) for field, (name, _) in READINGS.items())
        self._now = {name: float(value) for name, value in now.items() if value is not None}

    def close(self) -> None:
        """Send what is left, for a few seconds at most, and stop."""
        self._provider.shutdown(timeout_millis=1000.0 * TIMEOUT_S)

    def _observe(self, name: str, options: Any) -> Iterable[Any]:
        """The value of a gauge, while it is known; called by the reader's thread."""
        from opentelemetry.metrics import Observation

        now = self._now  # `take` replaces it as a whole
        return [Observation(now[name])] if name in now else []


@contextmanager
def send_metrics(
    endpoint: str, warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
) -> Iterator[OtlpMetrics]:
    """Send the metrics of a run to a collector, by OTLP over HTTP, every 10 seconds and at the end.

    Args:
        endpoint: http(s)://HOST:PORT of the collector. What it asks for as proof of identity stands in the environment
            variable OTEL_EXPORTER_OTLP_HEADERS.
        warn: receives one sentence when the collector does not take them.
    Raises:
        BackendError: the packages of OpenTelemetry are not installed.
        SinkError: the address makes no sense.
    """
    address = _parse(endpoint)
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    except ImportError as error:
        raise missing_package("opentelemetry-exporter-otlp-proto-http", "otlp", "send metrics") from error
    library = logging.getLogger("opentelemetry")  # logs tracebacks for each failed message
    said, propagate = _SaidOnce(warn), library.propagate
    library.addHandler(said)
    library.propagate = False

    exporter = OTLPMetricExporter(endpoint=address, timeout=TIMEOUT_S)
    metrics = OtlpMetrics(PeriodicExportingMetricReader(exporter, 1000.0 * PERIOD_S, 1000.0 * TIMEOUT_S))
    try:
        yield metrics
    finally:
        metrics.close()
        library.removeHandler(said)
        library.propagate = propagate


class _SaidOnce(logging.Handler):
    """Turns the first warning of the library into a sentence of ours, which holds no address; drops the others."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn: Callable[[str], None] | None = warn

    def emit(self, record: logging.LogRecord) -> None:
        warn, self._warn = self._warn, None
        if warn is not None:
            warn("the collector does not take the metrics; the run goes on without: see whether --otlp names it")


def _parse(endpoint: str) -> str:
    """The whole address; the message of the error does not repeat it, since it may hold a secret."""
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in endpoint:
        raise SinkError(
            "address of the collector: expected http(s)://HOST:PORT without a user, such as http://[::1]:4318"
        )
    return endpoint if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{COLLECTOR_PATH}"
