"""Profile results for tests: made of numbers, with noise of the block where a test wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_runtime.profiling.result import (
    FORMAT,
    SCHEMA_VERSION,
    Block,
    BundleFacts,
    Delegation,
    Energy,
    Environment,
    Load,
    Memory,
    Method,
    Operators,
    PointProfile,
    ProfileResult,
    Verdict,
)
from edge_runtime.profiling.sample_statistics import summarise

ENVIRONMENT = Environment(
    "linux", "6.1", "x86_64", "laptop-x86", cpu_model="Test CPU", cores=4, versions={"onnxruntime": "1.30.0"}
)


def blocks_of(
    p50_ms: float,
    *,
    rounds: int = 8,
    runs: int = 6,
    shared: Sequence[float] | None = None,
    noise: float = 0.0,
    generator: np.random.Generator | None = None,
    foreign_load: float | None = 0.02,
) -> tuple[Block, ...]:
    """Blocks around a median.

    Args:
        p50_ms: without noise.
        shared: a factor for each round, shared by all points of a run.
        noise: standard deviation of a block's own factor; runs inside differ by a third of it.
    """
    generator = generator or np.random.default_rng(0)
    blocks = []
    for index in range(rounds):
        level = p50_ms * (1.0 if shared is None else shared[index]) * float(np.exp(noise * generator.normal()))
        samples = level * np.exp(noise / 3.0 * generator.normal(size=runs))
        blocks.append(Block(1.0 * index, tuple(float(s) for s in samples), foreign_load))
    return tuple(blocks)


def point_of(name: str, blocks: tuple[Block, ...], **changes: Any) -> PointProfile:
    """A point with these blocks."""
    latency = summarise(blocks, 0)
    point = PointProfile(
        name, "onnxruntime", "fp32", 2, 1.0, (32, 32), 1000, {"select": 0.6, "test": 0.6}, latency,
        1000.0 / latency.mean_ms.value, Load(), Memory(), Energy("unknown", source="no sensor"), Operators("none"),
        Delegation("none"), Verdict(True, "stable"),
    )  # fmt: skip
    return replace(point, **changes)


def result_of(points: Mapping[str, float] | Sequence[PointProfile], **changes: Any) -> ProfileResult:
    """A result; points by name with their medians, or complete."""
    if isinstance(points, Mapping):
        points = [point_of(name, blocks_of(p50)) for name, p50 in points.items()]
    result = ProfileResult(
        SCHEMA_VERSION, FORMAT, "2026-01-02T03:04:05Z", 10.0, "quick", True, "edge-runtime profile",
        BundleFacts("tiny", "classification", 3, 100, "ab" * 32), ENVIRONMENT,
        Method(0, 8, 6, 33.3, "one for the process", 4 << 20), Verdict(True, "stable"), tuple(points),
    )  # fmt: skip
    return replace(result, **changes)
