"""A Prometheus endpoint for a running device: frames, causes of late ones, the controller's state, the sensors.

    metrics = serve_metrics("9464")             # 127.0.0.1:9464 unless a host is given
    runtime.on_result(metrics.take)

Names begin with `edge_runtime_` and end with their unit. Labels hold operating points and causes, never an address of
a source, a path or anything else that could be a secret. Unknown readings are NaN.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from edge_runtime.errors import SinkError, missing_package
from edge_runtime.late_cause import LATE_CAUSES
from edge_runtime.readings import Readings
from edge_runtime.result import Result

LOCAL_HOST = "127.0.0.1"
BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.533, 1.066)
"""Upper ends of the latency histograms."""
READINGS = {
    "own_load": ("edge_runtime_own_load_ratio", "Share of all cores that this process uses."),
    "foreign_load": ("edge_runtime_foreign_load_ratio", "Share of all cores that everybody else uses."),
    "temperature_c": ("edge_runtime_temperature_celsius", "Hottest zone that limits the processor."),
    "throttled": ("edge_runtime_throttled", "1 while the device limits its speed."),
    "battery_share": ("edge_runtime_battery_ratio", "Charge left."),
    "power_w": ("edge_runtime_power_watts", "Power drawn, where a sensor knows it."),
    "memory_available_bytes": ("edge_runtime_memory_available_bytes", "What this process may still use."),
    "memory_pressure": (
        "edge_runtime_memory_pressure_ratio",
        "Share of the last 10 s in which a task waited for memory.",
    ),
}
"""Field of Readings -> name and help of its gauge."""


class Metrics:
    """The numbers of one run, and the server that shows them."""

    def __init__(self, client: Any) -> None:
        """Make the metrics; nothing is served yet.

        Args:
            client: the module prometheus_client.
        """
        self.registry = client.CollectorRegistry()
        counter, gauge = _maker(client.Counter, self.registry), _maker(client.Gauge, self.registry)
        self._frames = counter("edge_runtime_frames", "Answered frames.", ["point"])
        self._late = counter("edge_runtime_late_frames", "Answers after the deadline, by cause.", ["cause"])
        self._infeasible = counter("edge_runtime_infeasible_frames", "Frames whose budget was out of reach.")
        self._switches = counter("edge_runtime_switches", "Changes of the operating point.")
        self._dropped = gauge("edge_runtime_dropped_frames", "Frames that the source lost since it was opened.")
        self._deadline = gauge("edge_runtime_deadline_seconds", "Allowed latency.")
        self._slowdown = gauge("edge_runtime_slowdown_ratio", "Estimated observed / tabled latency.")
        histogram = _maker(client.Histogram, self.registry)
        self._latency = histogram("edge_runtime_latency_seconds", "From capture to answer.", buckets=BUCKETS_S)
        self._run = histogram("edge_runtime_run_seconds", "Inside the engine.", buckets=BUCKETS_S)
        self._readings = {field: gauge(name, text) for field, (name, text) in READINGS.items()}
        for cause in LATE_CAUSES:  # so that a rate can be taken before the first one
            self._late.labels(cause)
        self._server: Any = None
        self._thread: Any = None

    def take(self, result: Result, readings: Readings) -> None:
        """Count one answer."""
        decision = result.decision
        self._frames.labels(decision.point).inc()
        if result.late_because is not None:
            self._late.labels(result.late_because).inc()
        if not decision.feasible:
            self._infeasible.inc()
        if decision.switched:
            self._switches.inc()
        self._dropped.set(result.dropped)
        self._deadline.set(result.deadline_ms / 1000.0)
        self._slowdown.set(decision.slowdown)
        self._latency.observe(result.latency_ms / 1000.0)
        self._run.observe(result.run_ms / 1000.0)
        for field, gauge in self._readings.items():
            value = getattr(readings, field)
            gauge.set(float("nan") if value is None else value)

    def serve(self, client: Any, host: str, port: int) -> None:
        """Start the server in a thread of its own.

        Raises:
            SinkError: the address cannot be used.
        """
        try:
            self._server, self._thread = client.start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SinkError(f"metrics cannot be served at {host}:{port}: {reason}; choose another port") from error

    @property
    def port(self) -> int:
        """Of the running server; differs from what was asked for when that was 0."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve_metrics(address: str) -> Metrics:
    """Serve the metrics of a run.

    Args:
        address: "PORT" or "HOST:PORT"; without a host only this machine can read them.
    Raises:
        BackendError: prometheus-client is not installed.
        SinkError: the address makes no sense or cannot be used.
    """
    host, port = _parse(address)
    try:
        import prometheus_client
    except ImportError as error:
        raise missing_package("prometheus-client", "metrics", "serve metrics") from error
    metrics = Metrics(prometheus_client)
    metrics.serve(prometheus_client, host, port)
    return metrics


def _parse(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]") if colon else LOCAL_HOST
    if not host or not (port.isascii() and port.isdecimal()) or not 0 <= int(port) <= 65535:
        raise SinkError(f"metrics address is {address!r}, expected PORT or HOST:PORT, such as 9464")
    return host, int(port)


def _maker(kind: Any, registry: Any) -> Any:
    """Makes metrics of one kind in a registry."""

    def make(name: str, text: str, labels: list[str] | None = None, **options: Any) -> Any:
        return kind(name, text, labels or (), registry=registry, **options)

    return make
