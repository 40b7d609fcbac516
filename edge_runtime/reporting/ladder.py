"""Profiles of one bundle, prepared for a report: named devices, labelled points, and who is on the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result import PointProfile, ProfileResult
from edge_runtime.reporting.run_points import distinct_labels, point_label

SPLITS = ("test", "select")
"""Split whose accuracy a report shows: the first that every point has."""
MAX_LABEL = 44


@dataclass(frozen=True)
class Entry:
    """One operating point on one device, at one number of threads."""

    device: str
    label: str
    """Short, unique among the points of all devices."""
    variant: str
    """Engine and precision, as far as they differ in this report."""
    point: PointProfile
    accuracy: float
    """On the report's split, 0-1."""
    on_front: bool = False
    """No other point of this device is faster and at least as accurate."""

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return self.point.latency.p50_ms.value

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency."""
        return self.point.latency.p99_ms.value

    @property
    def samples_ms(self) -> npt.NDArray[np.float64]:
        """Every run."""
        return np.concatenate([np.array(block.samples_ms) for block in self.point.latency.blocks])


@dataclass(frozen=True)
class Device:
    """One profile."""

    label: str
    """Unique in the report."""
    path: str
    result: ProfileResult
    threads: int
    """What the ladder is shown with."""
    entries: tuple[Entry, ...]
    """Every point at every number of threads; the front is that of `threads`."""

    @property
    def ladder(self) -> tuple[Entry, ...]:
        """The points at `threads`, the fastest first; points that were not measured so, with what they have."""
        best: dict[tuple[str, str], Entry] = {}
        for entry in self.entries:
            key = entry.point.name, entry.point.backend
            if key not in best or entry.point.threads == self.threads:
                best[key] = entry
        return tuple(sorted(best.values(), key=lambda entry: entry.p50_ms))

    @property
    def front(self) -> tuple[Entry, ...]:
        """The points worth having, the fastest first."""
        return tuple(entry for entry in self.ladder if entry.on_front)


def prepare_devices(results: Sequence[tuple[str, ProfileResult]]) -> tuple[tuple[Device, ...], str]:
    """Name the devices and their points, and find each Pareto front.

    Args:
        results: (path, result), at least one.
    Returns:
        the devices, and the split whose accuracy is shown.
    Raises:
        ResultError: the results are of different bundles, or their points share no split.
    """
    _require_one_bundle(results)
    split = _common_split(results)
    labels = _device_labels([result for _, result in results])
    names = _labels_of([point for _, result in results for point in result.points])
    return tuple(
        _device(label, path, result, split, names, _differences(results))
        for label, (path, result) in zip(labels, results, strict=True)
    ), split  # fmt: skip


def pareto_front(points: Iterable[tuple[float, float]]) -> list[int]:
    """Indices of (cost, worth) pairs that no other pair beats in both, by rising cost."""
    listed = list(points)
    front: list[int] = []
    for index in sorted(range(len(listed)), key=lambda i: (listed[i][0], -listed[i][1])):
        if not front or listed[index][1] > listed[front[-1]][1]:
            front.append(index)
    return front


def main_threads(points: Sequence[PointProfile]) -> int:
    """The number of threads that most points were measured with; among equals, the one with the least total time."""
    times: dict[int, list[float]] = {}
    for point in points:
        times.setdefault(point.threads, []).append(point.latency.p50_ms.value)
    return min(times, key=lambda threads: (-len(times[threads]), sum(times[threads]), threads))


def _require_one_bundle(results: Sequence[tuple[str, ProfileResult]]) -> None:
    first_path, first = results[0]
    for path, result in results[1:]:
        if result.bundle.manifest_sha256 != first.bundle.manifest_sha256:
            raise ResultError(
                f"{path}: is of the bundle {_bundle_words(result)}, but {first_path} is of {_bundle_words(first)}; a "
                "report is about one bundle on several devices, so make one for each"
            )


def _bundle_words(result: ProfileResult) -> str:
    return f"{result.bundle.name} ({result.bundle.manifest_sha256[:12]})"


def _common_split(results: Sequence[tuple[str, ProfileResult]]) -> str:
    known = [set(point.accuracy) for _, result in results for point in result.points]
    common = set.intersection(*known)
    if not common:
        raise ResultError(f"{results[0][0]}: its points share no split with an accuracy; profile the bundle again")
    return next((split for split in SPLITS if split in common), sorted(common)[0])


def _device_labels(results: Sequence[ProfileResult]) -> list[str]:
    """A name for each device; equal ones get the date, then a number."""
    labels = []
    for result in results:
        facts = result.environment
        label = (facts.model or facts.cpu_model or facts.device_profile or facts.system).strip()
        labels.append(label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…")
    dates = [result.created[:16].replace("T", " ") for result in results]
    numbers = [f"#{number}" for number in range(1, len(results) + 1)]
    for additions in (dates, numbers):
        twice = {label for label in labels if labels.count(label) > 1}
        labels = [
            f"{label}, {more}" if label in twice else label for label, more in zip(labels, additions, strict=True)
        ]
    return labels


def _labels_of(points: Sequence[PointProfile]) -> dict[str, str]:
    """Point name -> short label."""
    named = {point.name: point for point in points}
    several = len({point.precision for point in points}) > 1
    labels = [point_label(p.width, p.size_hw, p.precision if several else "", p.frames) for p in named.values()]
    return dict(zip(named, distinct_labels(list(named), labels), strict=True))


def _differences(results: Sequence[tuple[str, ProfileResult]]) -> tuple[bool, bool]:
    """Whether engines and precisions differ in this report."""
    points = [point for _, result in results for point in result.points]
    return len({p.backend for p in points}) > 1, len({p.precision for p in points}) > 1


def _device(
    label: str, path: str, result: ProfileResult, split: str, names: dict[str, str], differ: tuple[bool, bool]
) -> Device:
    entries = []
    for point in result.points:
        told = [text for text, shown in zip((point.backend, point.precision), differ, strict=True) if shown]
        entries.append(
            Entry(label, names[point.name], ", ".join(told) or point.precision, point, point.accuracy[split])
        )
    device = Device(label, path, result, main_threads(result.points), tuple(entries))
    ladder = device.ladder
    front = {ladder[i].point.key for i in pareto_front((entry.p50_ms, entry.accuracy) for entry in ladder)}
    return replace(device, entries=tuple(replace(e, on_front=e.point.key in front) for e in entries))
