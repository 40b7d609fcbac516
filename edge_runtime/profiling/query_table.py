"""Find the profile result that fits this bundle, device and engine, and take the query table from it.

The runtime calls `find_query_table` when it loads a bundle. A result made for another bundle, processor, engine
version, backend or number of threads is refused, with the reason: its milliseconds would mislead the controller.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ResultError
from edge_runtime.machine_facts import SYSTEM_ROOT, MachineFacts, read_machine_facts
from edge_runtime.profiling.fingerprint import engine_version, manifest_sha256
from edge_runtime.profiling.result import load_result
from edge_runtime.profiling.result_records import ProfileResult
from edge_runtime.profiling.store import candidates
from edge_runtime.profiling.table_record import QueryTable

AUTO, NONE = "auto", "none"
FUTURE_S = 86400.0
"""A result of tomorrow may come from another time zone's mistake; a later one from a clock that was wrong."""


@dataclass(frozen=True)
class Wanted:
    """What a result must have been made for."""

    manifest_sha256: str
    backend: str
    engine_version: str
    threads: int
    points: frozenset[str]
    machine: MachineFacts
    now_utc: str
    """ISO 8601."""


@dataclass(frozen=True)
class Search:
    """What was found."""

    table: QueryTable | None
    sentence: str = ""
    """What to tell the user: what is used, or why an existing result is not; empty when there is nothing to say."""


def find_query_table(
    bundle: Bundle, backend: str, threads: int, points: Collection[str], choice: str | Path = AUTO
) -> Search:
    """The table for a run.

    Args:
        bundle: in use.
        backend, threads: in use.
        points: names of the points that the run may take.
        choice: "auto" takes the newest that fits, a stable one before an unstable one; "none" takes nothing; else
            a file.
    Raises:
        ResultError: the file cannot be read or does not fit; the message says why.
    """
    if choice == NONE:
        return Search(None)
    wanted = Wanted(
        manifest_sha256(bundle), backend, engine_version(backend), threads, frozenset(points),
        read_machine_facts(SYSTEM_ROOT), _now_utc(),
    )  # fmt: skip
    if choice != AUTO:
        result = load_result(choice)
        if (reason := misfit(result, wanted)) is not None:
            raise ResultError(
                f"{choice}: does not fit this run: {reason}; profile the bundle again with these settings"
            )
        return _used(result, Path(choice), wanted)
    return _newest(candidates(bundle.root, bundle.manifest.name, wanted.manifest_sha256), wanted)


def misfit(result: ProfileResult, wanted: Wanted) -> str | None:
    """Why a result does not fit a run, or None."""
    environment, machine = result.environment, wanted.machine
    if result.bundle.manifest_sha256 != wanted.manifest_sha256:
        return f"it was made for another bundle or another state of this one ({result.bundle.name})"
    if environment.cpu_model != machine.cpu_model or environment.architecture != machine.architecture:
        return f"it was made on {environment.cpu_model or 'an unknown processor'}, this is {machine.cpu_model}"
    if environment.cores != machine.cores:
        return f"it was made with {environment.cores} cores, here are {machine.cores}"
    fitting = [point for point in result.points if point.backend == wanted.backend]
    if not fitting:
        return f"it has no points of {wanted.backend}"
    made_with = environment.versions.get(wanted.backend, "")
    if made_with != wanted.engine_version:
        here = wanted.engine_version or "unknown"
        return f"it was made with {wanted.backend} {made_with or 'unknown'}, this is {here}"
    fitting = [point for point in fitting if point.threads == wanted.threads]
    if not fitting:
        counts = ", ".join(str(n) for n in sorted({p.threads for p in result.points if p.backend == wanted.backend}))
        return f"it was made with {counts} threads, this run has {wanted.threads}"
    if not any(point.name in wanted.points for point in fitting):
        return "it has none of the points of this run (another precision?)"
    if result.created[:10] > wanted.now_utc[:10]:
        return f"it was made on {result.created[:10]}, which is yet to come: a clock is wrong"
    return None


def table_of(result: ProfileResult, source: str, wanted: Wanted) -> QueryTable:
    """The table of the points that fit."""
    points = [
        p
        for p in result.points
        if (p.backend, p.threads) == (wanted.backend, wanted.threads) and p.name in wanted.points
    ]
    return QueryTable(
        source,
        {p.name: p.latency.p50_ms.value for p in points},
        {p.name: p.latency.p99_ms.value for p in points},
        {p.name: p.memory.added_bytes for p in points if p.memory.added_bytes is not None},
        {p.name: p.energy.energy_mj / 1000.0 for p in points if p.energy.energy_mj is not None},
        wanted.threads,
    )


def _newest(paths: list[Path], wanted: Wanted) -> Search:
    """The newest result that fits, a stable one first."""
    fitting: list[tuple[bool, str, Path, ProfileResult]] = []
    refused = ""
    for path in paths:
        try:
            result = load_result(path)
        except ResultError as error:
            refused = refused or f"query table not used: {error}"
            continue
        reason = misfit(result, wanted)
        if reason is None:
            fitting.append((result.verdict.stable, result.created, path, result))
        else:
            refused = refused or f"query table {path} not used: {reason}; run edge-runtime profile again"
    if not fitting:
        return Search(None, refused)
    _, _, path, result = max(fitting, key=lambda found: found[:2])
    return _used(result, path, wanted)


def _used(result: ProfileResult, path: Path, wanted: Wanted) -> Search:
    source = f"{path} ({result.mode}, {result.created}, {result.verdict.reason})"
    table = table_of(result, source, wanted)
    missing = len(wanted.points) - len(table.latency_ms)
    rest = f"; {missing} points are not in it and are scaled" if missing else ""
    return Search(table, f"query table: {source}{rest}")


def _now_utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + FUTURE_S))
