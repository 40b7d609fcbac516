"""Settings of the runtime's tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same cases in every run, and no complaint about a slow machine: a busy board runs these too.
settings.register_profile(
    "edge-runtime",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("edge-runtime")
