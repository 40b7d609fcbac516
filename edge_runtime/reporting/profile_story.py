"""What profiles of one bundle amount to, told as sentences, large figures and tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edge_runtime.profiling.result import ProfileResult
from edge_runtime.reporting.document import Column, Row, Table, Tile, Value, percent, significant
from edge_runtime.reporting.ladder import Device, Entry

QUERY_COLUMNS = (
    Column("device", "device"),
    Column("point", "point", "name"),
    Column("backend", "engine"),
    Column("precision", "precision"),
    Column("threads", "threads", "count"),
    Column("on_front", "on the front", "flag"),
    Column("accuracy", "accuracy", "share"),
    Column("p50_ms", "p50, ms", "number"),
    Column("p50_low_ms", "p50 low, ms", "number"),
    Column("p50_high_ms", "p50 high, ms", "number"),
    Column("p90_ms", "p90, ms", "number"),
    Column("p95_ms", "p95, ms", "number"),
    Column("p99_ms", "p99, ms", "number"),
    Column("mean_ms", "mean, ms", "number"),
    Column("std_ms", "std, ms", "number"),
    Column("throughput_fps", "runs/s", "number"),
    Column("added_bytes", "memory, MB", "megabytes"),
    Column("energy_mj", "energy, mJ", "number"),
    Column("energy_kind", "energy is"),
    Column("runs", "runs", "count"),
    Column("stable", "stable", "flag"),
)
"""Every figure of a point; what `--format csv` writes."""
PAGE_COLUMNS = ("point", "accuracy", "p50_ms", "p90_ms", "p99_ms", "throughput_fps", "added_bytes", "energy_mj")
LOAD_COLUMNS = (
    Column("device", "device"),
    Column("point", "point", "name"),
    Column("cold_ms", "cold load, ms", "number"),
    Column("warm_ms", "warm load, ms", "number"),
    Column("first_run_ms", "first run, ms", "number"),
    Column("baseline_bytes", "baseline, MB", "megabytes"),
    Column("loaded_bytes", "loaded, MB", "megabytes"),
    Column("peak_bytes", "peak, MB", "megabytes"),
    Column("kind", "memory counted as"),
)
UNITS = {
    "bytes": ("MB", 1e-6),
    "mhz": ("MHz", 1.0),
    "c": ("°C", 1.0),
    "ms": ("ms", 1.0),
    "s": ("s", 1.0),
    "w": ("W", 1.0),
}


def profile_summary(devices: Sequence[Device], split: str) -> tuple[str, ...]:
    """Sentences for somebody who reads nothing else."""
    told = []
    for device in devices:
        front, ladder = device.front, device.ladder
        fast, best = front[0], front[-1]
        told.append(
            f"{device.label}: from {significant(fast.p50_ms)} ms at {percent(fast.accuracy)} accuracy to "
            f"{significant(best.p50_ms)} ms at {percent(best.accuracy)} ({split}). {len(front)} of {len(ladder)} "
            f"operating points are worth having here: no other is both faster and as accurate."
        )
    if len(devices) > 1:
        told.append(_fastest_device(devices))
    return tuple(told)


def _fastest_device(devices: Sequence[Device]) -> str:
    """Who is faster on the points that all have."""
    times = [{e.point.name: e.p50_ms for e in device.ladder} for device in devices]
    common = set.intersection(*(set(t) for t in times))
    if not common:
        return "The devices have no operating point in common."
    totals = [sum(t[name] for name in common) for t in times]
    order = sorted(range(len(devices)), key=totals.__getitem__)
    factor = totals[order[-1]] / totals[order[0]]
    fast, slow = devices[order[0]].label, devices[order[-1]].label
    return f"Over the {len(common)} points that all have, {fast} is {significant(factor, 2)} times as fast as {slow}."


def profile_tiles(devices: Sequence[Device]) -> tuple[Tile, ...]:
    """The large figures: of the only device, or one for each."""
    if len(devices) > 1:
        return tuple(
            Tile(device.label, f"{significant(device.front[-1].p50_ms)} ms", f"p50 of the most accurate point, "
                 f"{percent(device.front[-1].accuracy)}", device.result.verdict.stable)
            for device in devices
        )  # fmt: skip
    device = devices[0]
    fast, best, verdict = device.front[0], device.front[-1], device.result.verdict
    tiles = [
        Tile("Fastest point", f"{significant(fast.p50_ms)} ms", f"{fast.label}: {percent(fast.accuracy)}"),
        Tile("Most accurate point", percent(best.accuracy), f"{best.label}: {significant(best.p50_ms)} ms"),
        Tile("Worth having", f"{len(device.front)} of {len(device.ladder)}", "operating points on the Pareto front"),
    ]
    added = [e.point.memory.added_bytes for e in device.ladder if e.point.memory.added_bytes is not None]
    if added and measured_alone(device):
        tiles.append(Tile("Memory of one point", f"{significant(max(added) / 1e6)} MB", "the largest, as measured"))
    elif added:
        tiles.append(Tile("Memory of all points", f"{significant(sum(added) / 1e6)} MB", "loaded in one process"))
    energies = [e.point.energy for e in device.front if e.point.energy.energy_mj is not None]
    if energies and energies[-1].energy_mj is not None:
        tiles.append(Tile("Energy, most accurate", f"{significant(energies[-1].energy_mj)} mJ", energies[-1].kind))
    words = "stable" if verdict.stable else "unstable"
    return (
        *tiles,
        Tile("Measurement", words, "" if verdict.stable else verdict.reason.removeprefix("unstable: "), verdict.stable),
    )


def profile_notes(devices: Sequence[Device]) -> tuple[str, ...]:
    """What to know before trusting the figures."""
    told = []
    for device in devices:
        result, start = device.result, f"{device.label}: " if len(devices) > 1 else ""
        if not result.complete:
            told.append(f"{start}The profile was interrupted; what is shown was measured in full.")
        if not result.verdict.stable:
            told.append(f"{start}The measurement is {result.verdict.reason.rstrip('.')}.")
        if result.environment.virtual_machine:
            told.append(f"{start}This is a virtual machine; its neighbours may take time from it unseen.")
        told += [f"{start}{note}" for note in result.notes]
    return tuple(told)


def query_table(devices: Sequence[Device]) -> Table:
    """Every figure of every point at every number of threads."""
    rows = tuple(_query_row(entry) for device in devices for entry in device.entries)
    return Table("Query table", QUERY_COLUMNS, rows)


def ladder_tables(device: Device, suffix: str) -> tuple[Table, ...]:
    """The points worth having, with their most telling columns; and all of them, closed at first.

    Args:
        device: whose ladder.
        suffix: ends the titles.
    """
    hidden = () if measured_alone(device) else ("added_bytes",)  # then it depends on the order of loading
    columns = [c for c in QUERY_COLUMNS if c.key in PAGE_COLUMNS and c.key not in hidden]
    if len({entry.point.backend for entry in device.ladder}) > 1:
        columns.insert(1, next(c for c in QUERY_COLUMNS if c.key == "backend"))
    front = tuple(_query_row(entry) for entry in device.front)
    note = "Latency and energy are those of one run of the engine; a frame costs a little more."
    tables = [Table(f"Points worth having{suffix}", tuple(columns), front, note=note)]
    if len(device.front) < len(device.ladder):
        rows = tuple(_query_row(entry) for entry in device.ladder)
        marked = tuple(i for i, entry in enumerate(device.ladder) if entry.on_front)
        title, note = f"All {len(rows)} points{suffix}", "Bold: worth having."
        tables.append(Table(title, tuple(columns), rows, note=note, marked=marked, folded=True))
    return tuple(tables)


def _query_row(entry: Entry) -> dict[str, Value]:
    point, latency = entry.point, entry.point.latency
    return {
        "device": entry.device, "point": point.name, "backend": point.backend, "precision": point.precision,
        "threads": point.threads, "on_front": entry.on_front, "accuracy": entry.accuracy,
        "p50_ms": latency.p50_ms.value, "p50_low_ms": latency.p50_ms.low, "p50_high_ms": latency.p50_ms.high,
        "p90_ms": latency.p90_ms.value, "p95_ms": latency.p95_ms.value, "p99_ms": latency.p99_ms.value,
        "mean_ms": latency.mean_ms.value, "std_ms": latency.std_ms, "throughput_fps": point.throughput_fps,
        "added_bytes": point.memory.added_bytes, "energy_mj": point.energy.energy_mj,
        "energy_kind": point.energy.kind if point.energy.energy_mj is not None else "", "runs": latency.count,
        "stable": point.verdict.stable,
    }  # fmt: skip


def load_table(devices: Sequence[Device]) -> Table:
    """Loading times and memory of the ladder's points."""
    rows: list[Row] = []
    for device in devices:
        for entry in device.ladder:
            load, memory = entry.point.load, entry.point.memory
            rows.append({
                "device": device.label if len(devices) > 1 else "", "point": entry.point.name, "cold_ms": load.cold_ms,
                "warm_ms": load.warm_ms, "first_run_ms": load.first_run_ms, "baseline_bytes": memory.baseline_bytes,
                "loaded_bytes": memory.loaded_bytes, "peak_bytes": memory.peak_bytes, "kind": memory.kind.upper(),
            })  # fmt: skip
    return Table("Loading and memory, every point", LOAD_COLUMNS, tuple(rows), folded=True)


def measured_alone(device: Device) -> bool:
    """Whether each point was loaded in a process of its own, so that its memory says something about it."""
    return all(entry.point.memory.peak_bytes is not None for entry in device.ladder)


def memory_together(device: Device) -> int | None:
    """What all points add to one process, where each was measured beside the ones before it; bytes."""
    added = [entry.point.memory.added_bytes for entry in device.ladder]
    return None if None in added else sum(value for value in added if value is not None)


def unstable_table(devices: Sequence[Device]) -> Table:
    """Points whose measurement cannot be trusted, and why."""
    rows: tuple[Row, ...] = tuple(
        {
            "device": device.label if len(devices) > 1 else "",
            "point": e.point.name,
            "threads": e.point.threads,
            "reason": e.point.verdict.reason,
        }
        for device in devices
        for e in device.entries
        if not e.point.verdict.stable
    )
    columns = (
        Column("device", "device"), Column("point", "point", "name"), Column("threads", "threads", "count"),
        Column("reason", "why"),
    )  # fmt: skip
    return Table("Points that were not stable", columns, rows, folded=len(rows) > 8)


def environment_table(devices: Sequence[Device]) -> Table:
    """Facts about the devices and how they were measured, side by side."""
    facts = [_facts(device.result) for device in devices]
    keys = list(dict.fromkeys(key for device in facts for key in device))
    rows: tuple[Row, ...] = tuple(
        {"key": key, **{f"device_{i + 1}": found.get(key) for i, found in enumerate(facts)}} for key in keys
    )
    columns = [Column("key", "what")]
    columns += [Column(f"device_{i + 1}", device.label) for i, device in enumerate(devices)]
    return Table("Environment", tuple(columns), rows)


def _facts(result: ProfileResult) -> dict[str, str]:
    """All plain facts of a result, unknown ones left out."""
    values: dict[str, object] = {
        "bundle": f"{result.bundle.name}, {result.bundle.size_bytes / 1e6:.2f} MB",
        "bundle hash": result.bundle.manifest_sha256[:16], "finished": result.created,
        "took": f"{result.duration_s:,.0f} s", "mode": result.mode,
    }  # fmt: skip
    environment = dataclasses.asdict(result.environment)
    versions = environment.pop("versions")
    for group in (environment, versions, dataclasses.asdict(result.method)):
        values.update({_title(key): _fact(key, value) for key, value in group.items()})
    return {key: str(value) for key, value in values.items() if value not in (None, "")}


def _title(key: str) -> str:
    """A record's key for people: its unit goes to the value."""
    words = key.split("_")
    return " ".join(words[:-1] if len(words) > 1 and words[-1] in UNITS else words)


def _fact(key: str, value: object) -> object:
    """A value with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    unit = key.rsplit("_", 1)[-1]
    if isinstance(value, (int, float)) and "_" in key and unit in UNITS:
        sign, factor = UNITS[unit]
        return f"{significant(value * factor, 4)} {sign}"
    if isinstance(value, float):
        return percent(value) if key.endswith("_share") else significant(value)
    return value
