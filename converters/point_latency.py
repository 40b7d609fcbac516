"""Median latency of each point on this machine, measured in interleaved rounds."""

from __future__ import annotations

import time

import numpy as np

from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle

ROUNDS, WARM_UP = 30, 5


def measure_latency_ms(bundle: Bundle, threads: int, backend_name: str = "onnxruntime") -> dict[str, float]:
    """Point -> median milliseconds of one run.

    A first guess for the controller; the device measures again.
    """
    backend = open_backend(backend_name, bundle, BackendOptions(threads))
    runners = {p.name: backend.load(p) for p in bundle.points_for(backend_name)}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    try:
        for turn in range(WARM_UP + ROUNDS):
            for name, runner in runners.items():
                started = time.perf_counter()
                runner.run()
                if turn >= WARM_UP:
                    samples[name].append((time.perf_counter() - started) * 1000.0)
    finally:
        for runner in runners.values():
            runner.close()
    return {name: float(np.median(values)) for name, values in samples.items()}
