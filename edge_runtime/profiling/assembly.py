"""From entries with their blocks to the records of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import ResultError
from edge_runtime.profiling.blocks import Entry
from edge_runtime.profiling.result_records import Delegation, Energy, Operators, PointProfile
from edge_runtime.profiling.sample_statistics import summarise
from edge_runtime.profiling.stability import judge_all, judge_blocks

INTERRUPTED = "not measured: the profile was interrupted"
MAX_NAMED = 20


@dataclass
class Closer:
    """What the closer look found of one point."""

    operators: Operators
    delegation: Delegation
    energy: Energy | None = None


UNSEEN = Closer(Operators(INTERRUPTED), Delegation(INTERRUPTED))


def measured_values(
    entries: Sequence[Entry], closer: Mapping[tuple[str, str, int], Closer], seed: int
) -> dict[str, Any]:
    """The result's `points` and `verdict`, from the entries that have a block.

    Raises:
        ResultError: none has.
    """
    measured = [entry for entry in entries if entry.blocks]
    if not measured:
        raise ResultError("interrupted before anything was measured; nothing is kept")
    points = tuple(
        point_profile(entry, closer.get(entry.key, UNSEEN), seed + index) for index, entry in enumerate(measured)
    )
    blocks = sorted((block for entry in measured for block in entry.blocks), key=lambda block: block.started_s)
    return {"points": points, "verdict": judge_all([point.verdict for point in points], blocks)}


def point_profile(entry: Entry, closer: Closer, seed: int) -> PointProfile:
    """The record of one point."""
    point = entry.point
    latency = summarise(entry.blocks, seed)
    looks, look_shares = entry.looks or (None, ())
    return PointProfile(
        point.name, entry.backend, entry.precision, entry.threads, point.width, point.size_hw, point.madds,
        dict(point.accuracy), latency, round(1000.0 / latency.mean_ms.value, 3), entry.load, entry.memory,
        closer.energy or Energy("unknown", source=INTERRUPTED), closer.operators, closer.delegation,
        judge_blocks(entry.blocks, entry.throttled), looks, look_shares, point.frames,
    )  # fmt: skip


def interruption_notes(entries: Sequence[Entry]) -> list[str]:
    """What an interrupted profile lacks."""
    left = sorted({entry.point.name for entry in entries if not entry.blocks})
    if not left:
        return ["interrupted: every point has fewer blocks than wanted, or lacks the closer look"]
    more = f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
    return [f"interrupted before these were measured: {', '.join(left[:MAX_NAMED])}{more}"]
