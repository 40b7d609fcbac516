"""The query table as the runtime holds it; apart from the code that finds it, which loading a bundle alone needs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class QueryTable:
    """Each point's cost on this device; a point that was not measured is not in the dicts."""

    source: str
    """For people: the file, its mode, date and verdict."""
    latency_ms: dict[str, float]
    """Point -> median."""
    p99_ms: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """Point -> what it adds to the process."""
    energy_j: dict[str, float] = field(default_factory=dict)
    """Point -> energy of one run."""
    threads: int | None = None
    """Of the engine, while it was measured; None where nobody said."""
