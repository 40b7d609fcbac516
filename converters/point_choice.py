"""Which measured points a bundle keeps: none that another one dominates, and no more than the device wants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edge_runtime.manifest import OperatingPoint

LATENCY_NOISE_SHARE = 0.05
"""A point dominates only when it is faster by this share: medians of two equal points differ by less."""


def choose_points(
    points: Sequence[OperatingPoint], engine_of: Mapping[str, str], without_dominated: bool, max_points: int | None
) -> tuple[list[OperatingPoint], list[str]]:
    """What a bundle keeps of each engine's points.

    Args:
        points: each with `latency_ms`.
        engine_of: name of a program -> its engine.
        without_dominated: leave out points that another one beats.
        max_points: of each engine; None keeps all.
    Returns:
        the points that stay, those of an engine together, and a note for what leaves.
    Raises:
        ValueError: `max_points` is too small, or a point has no latency.
    """
    kept: list[OperatingPoint] = []
    notes: list[str] = []
    for engine in dict.fromkeys(engine_of.values()):
        rest, found = [p for p in points if engine_of[p.program] == engine], []
        if without_dominated:
            rest, found = drop_dominated(rest)
        if max_points is not None:
            rest, more = thin_out(rest, max_points)
            found = [*found, *more]
        kept += rest
        notes += found
    return kept, notes


def drop_dominated(points: Sequence[OperatingPoint], split: str = "select") -> tuple[list[OperatingPoint], list[str]]:
    """Leave out every point that another one beats in latency, clearly, without being less accurate.

    Args:
        points: each with `latency_ms`, measured side by side on the device that the bundle is for.
        split: whose accuracy counts.
    Returns:
        the points that stay, in their order, and a note for each of the others.
    Raises:
        ValueError: a point has no latency.
    """
    latency_ms = {p.name: _latency_ms(p) for p in points}
    kept, notes = [], []
    for point in points:
        limit_ms = latency_ms[point.name] * (1.0 - LATENCY_NOISE_SHARE)
        better = [p for p in points if p.accuracy[split] >= point.accuracy[split] and latency_ms[p.name] <= limit_ms]
        if not better:
            kept.append(point)
            continue
        best = max(better, key=lambda p: (p.accuracy[split], -latency_ms[p.name]))
        notes.append(
            f"{point.name} is left out: {best.name} takes {latency_ms[best.name]:.2f} ms in place of "
            f"{latency_ms[point.name]:.2f} ms and {_worth_text(best, point, split)}"
        )
    return kept, notes


def thin_out(
    points: Sequence[OperatingPoint], max_points: int, split: str = "select"
) -> tuple[list[OperatingPoint], list[str]]:
    """Keep at most `max_points`: the cheapest, the most accurate, and those between that are worth most.

    A point is worth the accuracy that it adds to the next cheaper one, times the range of deadlines (as a logarithm)
    in which it is the best; the least worth goes first.

    Args:
        points: each with `latency_ms`.
        max_points: at least 2.
    Returns:
        the points that stay, in their order, and a note that names the others.
    Raises:
        ValueError: `max_points` is too small, or a point has no latency.
    """
    if max_points < 2:
        raise ValueError(f"max_points is {max_points}, expected at least 2: the cheapest and the most accurate")
    ordered = sorted(points, key=lambda p: (_latency_ms(p), -p.accuracy[split]))
    best = max(points, key=lambda p: (p.accuracy[split], -_latency_ms(p)))
    dropped: list[str] = []
    while len(ordered) > max_points:
        inner = [i for i in range(1, len(ordered)) if ordered[i] is not best]
        dropped.append(ordered.pop(min(inner, key=lambda i: _worth(ordered, i, split))).name)
    left = {p.name for p in ordered}
    note = f"the device wants at most {max_points} points; left out, worth least first: {', '.join(dropped)}"
    return [p for p in points if p.name in left], [note] if dropped else []


def _worth_text(best: OperatingPoint, point: OperatingPoint, split: str) -> str:
    found, other = best.accuracy[split], point.accuracy[split]
    if best.anchors is not None:
        return f"has AP50 {found:.3f} in place of {other:.3f} on {split}"
    return f"is right on {found:.1%} in place of {other:.1%} of {split}"


def _worth(ordered: Sequence[OperatingPoint], index: int, split: str) -> float:
    """Accuracy gained times the logarithm of the range of deadlines that would fall back; ordered by latency."""
    point, cheaper = ordered[index], max(p.accuracy[split] for p in ordered[:index])
    until_ms = _latency_ms(ordered[index + 1]) if index + 1 < len(ordered) else math.inf
    gain = point.accuracy[split] - cheaper
    if gain <= 0.0:
        return gain
    return gain * min(math.log(until_ms / _latency_ms(point)), 1.0)


def _latency_ms(point: OperatingPoint) -> float:
    if not point.latency_ms:
        raise ValueError(f"{point.name} has no measured latency; measure the points first")
    return point.latency_ms
