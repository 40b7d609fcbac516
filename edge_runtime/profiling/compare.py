"""Is B slower or less accurate than A? A bootstrap over rounds, so that noise of the device is not taken for a change.

One round holds one block of every point, measured within seconds. What disturbs the device for a while disturbs the
blocks of a round alike, so rounds are drawn, the same ones for all points: the spread of the drawn medians then holds
the noise that the points share. What the device's own speed changed is taken out first (yardstick.py). Two runs differ
a little more than their rounds tell (memory layout); RUN_SIGMA is that part, from benchmarks/profile_repeat.py. A point
counts as slower when its median is beyond the limit and its interval leaves out "as fast as before", at a confidence
that is divided among all points, so that twenty points do not cry wolf twenty times as often as one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result_records import Block, PointProfile, ProfileResult
from edge_runtime.profiling.stability import mean_foreign_load
from edge_runtime.profiling.yardstick import Correction, take_out_device

REPETITIONS = 1000
FALSE_ALARM = 0.01
"""Chance of each of the two tests (all points together; any single one) to fail where nothing changed."""
RUN_SIGMA = 0.01
"""Standard deviation between the medians of two undisturbed runs, relative."""
MIN_ROUNDS = 3
FOREIGN_LOAD_DIFFERENCE = 0.20
"""Share of all cores: beyond it a slower B may only have had a busier device."""
DEVICE_WORTH_A_WORD = 0.005
"""Relative change of the device's speed from which on it is mentioned."""
SHARED_CORES = 0.25
"""Cores that others and our threads together may want beyond those that there are; above it, we wait for each other."""

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PointComparison:
    """One point in both results."""

    name: str
    backend: str
    threads: int
    a_p50_ms: float
    b_p50_ms: float
    ratio: float
    """B / A, without what the device's own speed changed where that is known (`Comparison.device_ratio`)."""
    ratio_low: float
    ratio_high: float
    """At a confidence that holds for all points together."""
    accuracy_change: float | None
    """The worst of the splits that both have, B - A, 0-1; None without one."""
    verdict: str
    """"same", "slower", "faster", "less accurate", "slower and less accurate"."""


@dataclass(frozen=True)
class Comparison:
    """Two results side by side."""

    points: tuple[PointComparison, ...]
    overall_ratio: float
    """Geometric mean over the points, B / A."""
    overall_low: float
    overall_high: float
    regressed: bool
    inconclusive: bool
    """Something looks slower, but the device was too busy to tell."""
    device_ratio: float | None
    """What B took longer because the device was slower, which the other ratios leave out; None: not known."""
    sentences: tuple[str, ...]
    """Differences of bundle and device, what is missing, and last the verdict."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare_results(
    a: ProfileResult,
    b: ProfileResult,
    fail_over: float = 0.05,
    fail_accuracy: float = 0.01,
    seed: int = 0,
    *,
    as_measured: bool = False,
) -> Comparison:
    """Compare two results.

    Args:
        a, b: the one to hold against, and the new one.
        fail_over: slower than by this share is a regression.
        fail_accuracy: a loss of more than this on any split is one, 0-1.
        seed: of the bootstrap.
        as_measured: do not take out what the yardsticks say of the device's speed.
    Raises:
        ResultError: they have no point in common, or too few rounds.
    """
    pairs = _pairs(a, b)
    blocks_a, blocks_b = (tuple(pair[side].latency.blocks for pair in pairs) for side in (0, 1))
    found = None if as_measured else take_out_device(blocks_a, blocks_b, (a.environment, b.environment))
    if found is not None:
        blocks_a, blocks_b = found.a, found.b
    draws_a, draws_b = draw_log_medians(blocks_a, seed), draw_log_medians(blocks_b, seed + 1)
    freedom = min(len(pairs[0][0].latency.blocks) + len(pairs[0][1].latency.blocks) - 2, 10_000)
    all_points = student_quantile(1.0 - FALSE_ALARM, freedom)
    any_point = student_quantile(1.0 - FALSE_ALARM / len(pairs), freedom)
    change = draws_b - draws_a
    spread = half_width(change)
    spread = np.maximum(spread, spread.mean())  # of one point, from a dozen rounds: too small as often as too large
    points = tuple(
        _compare_point(pair, _ratio(*blocks), any_point * math.hypot(float(sigma), RUN_SIGMA), fail_over, fail_accuracy)
        for pair, blocks, sigma in zip(pairs, zip(blocks_a, blocks_b, strict=True), spread, strict=True)
    )
    middle = float(np.mean([math.log(p.ratio) for p in points]))
    half = all_points * math.hypot(float(half_width(change.mean(axis=1))), RUN_SIGMA)
    low, ratio, high = (math.exp(middle + step) for step in (-half, 0.0, half))
    slower = (low > 1.0 and ratio > 1.0 + fail_over) or any("slower" in p.verdict for p in points)
    lost = any("less accurate" in p.verdict for p in points)
    busy = slower and _too_busy(pairs, b.environment.cores)
    verdict = _verdict(points, ratio, (low, high), slower, lost, busy, fail_over)
    return Comparison(
        points, ratio, low, high, lost or (slower and not busy), busy and not lost,
        None if found is None else found.device_ratio, (*_differences(a, b), *_device_sentence(found), verdict),
    )  # fmt: skip


def draw_log_medians(points: Sequence[Sequence[Block]], seed: int, repetitions: int = REPETITIONS) -> Draws:
    """Logarithm of each point's median in each repetition, over rounds drawn for all points at once.

    Args:
        points: the blocks of each point, in order of time.
        seed: equal seeds draw equally.
    Returns:
        (repetitions, points), widened by sqrt(n / (n - 1)): n drawn rounds spread less than n fresh ones.
    Raises:
        ResultError: a point has fewer than MIN_ROUNDS blocks.
    """
    fewest = min(len(blocks) for blocks in points)
    if fewest < MIN_ROUNDS:
        raise ResultError(f"a point has {fewest} blocks, expected at least {MIN_ROUNDS}; let the profile finish")
    generator = np.random.default_rng(seed)
    shares = generator.random((repetitions, fewest))
    draws = np.empty((repetitions, len(points)))
    for column, blocks in enumerate(points):
        length = min(len(block.samples_ms) for block in blocks)
        table = np.asarray([block.samples_ms[:length] for block in blocks])
        drawn = table[(shares * len(blocks)).astype(int)]
        draws[:, column] = np.log(np.median(drawn.reshape(repetitions, -1), axis=1))
    centred = draws - draws.mean(axis=0)
    return np.asarray(draws.mean(axis=0) + centred * math.sqrt(fewest / (fewest - 1)))


def half_width(draws: Draws) -> Draws:
    """Half of the middle 68 % of the draws: their standard deviation, which a disturbed round drawn often would double.

    Args:
        draws: repetitions along the first axis.
    """
    low, high = np.percentile(draws, (15.87, 84.13), axis=0)
    return np.asarray((high - low) / 2.0)


def student_quantile(probability: float, freedom: int) -> float:
    """Of Student's t, by its expansion around the normal distribution (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _pairs(a: ProfileResult, b: ProfileResult) -> list[tuple[PointProfile, PointProfile]]:
    other = {point.key: point for point in b.points}
    pairs = [(point, other[point.key]) for point in a.points if point.key in other]
    if not pairs:
        raise ResultError(
            f"{a.bundle.name} and {b.bundle.name} have no point with the same name, backend and threads; "
            "profile both with the same settings"
        )
    return pairs


def _ratio(a: Sequence[Block], b: Sequence[Block]) -> float:
    """B / A of the medians of all samples."""
    before, after = (statistics.median(ms for block in blocks for ms in block.samples_ms) for blocks in (a, b))
    return after / before


def _device_sentence(found: Correction | None) -> tuple[str, ...]:
    if found is None or abs(found.device_ratio - 1.0) < DEVICE_WORTH_A_WORD:
        return ()
    change = 100.0 * (found.device_ratio - 1.0)
    return (f"the device itself was {abs(change):.1f} % {'slower' if change > 0 else 'faster'} during B: taken out",)


def _compare_point(
    pair: tuple[PointProfile, PointProfile], ratio: float, half_width: float, fail_over: float, fail_accuracy: float
) -> PointComparison:
    a, b = pair
    before, after = a.latency.p50_ms.value, b.latency.p50_ms.value
    low, high = ratio * math.exp(-half_width), ratio * math.exp(half_width)
    changes = [b.accuracy[split] - a.accuracy[split] for split in a.accuracy if split in b.accuracy]
    change = min(changes, default=None)
    slower, faster = low > 1.0 and ratio > 1.0 + fail_over, high < 1.0 and ratio < 1.0 - fail_over
    words = ["slower"] if slower else ["faster"] if faster else []
    words += ["less accurate"] if change is not None and change < -fail_accuracy - 1e-9 else []
    return PointComparison(
        a.name, a.backend, a.threads, before, after, ratio, low, high, change, " and ".join(words) or "same"
    )


def _too_busy(pairs: Sequence[tuple[PointProfile, PointProfile]], cores: int | None) -> bool:
    """Whether others may be why B is slower: much more foreign load than A had, or no core left for each thread."""
    loads = [mean_foreign_load([block for pair in pairs for block in pair[side].latency.blocks]) for side in (0, 1)]
    if loads[1] is None:
        return False
    threads = max(pair[1].threads for pair in pairs)
    crowded = cores is not None and loads[1] * cores + threads > cores + SHARED_CORES
    return crowded or (loads[0] is not None and loads[1] - loads[0] > FOREIGN_LOAD_DIFFERENCE)


def _differences(a: ProfileResult, b: ProfileResult) -> list[str]:
    """Sentences about what else is not equal."""
    found = []
    if a.bundle.manifest_sha256 != b.bundle.manifest_sha256:
        names = f"{a.bundle.name} and {b.bundle.name}" if a.bundle.name != b.bundle.name else a.bundle.name
        found.append(f"different bundles: {names} with hashes {_short(a)} and {_short(b)}")
    ours, theirs = a.environment, b.environment
    for what, one, two in (
        ("processors", ours.cpu_model, theirs.cpu_model),
        ("boards", ours.model, theirs.model),
        ("numbers of cores", ours.cores, theirs.cores),
        ("governors", ours.governor, theirs.governor),
        ("power", ours.on_battery, theirs.on_battery),
        *((f"versions of {name}", ours.versions.get(name), theirs.versions.get(name))
          for name in dict.fromkeys((*ours.versions, *theirs.versions))),
        ("periods", a.method.period_ms, b.method.period_ms),
    ):  # fmt: skip
        if one != two:
            found.append(f"different {what}: {_shown(one)} and {_shown(two)}")
    for letter, result in (("A", a), ("B", b)):
        if not result.verdict.stable:
            found.append(f"{letter} is {result.verdict.reason}")
        if not result.complete:
            found.append(f"{letter} was interrupted")
    missing = sorted({p.key for p in a.points} ^ {p.key for p in b.points})
    if missing:
        found.append(f"{len(missing)} points are in one result only, first: {missing[0][0]} ({missing[0][2]} threads)")
    return found


def _verdict(
    points: Sequence[PointComparison],
    ratio: float,
    interval: tuple[float, float],
    slower: bool,
    lost: bool,
    busy: bool,
    fail_over: float,
) -> str:
    change = (
        f"{100.0 * (ratio - 1.0):+.1f} % ({100.0 * (interval[0] - 1.0):+.1f} to {100.0 * (interval[1] - 1.0):+.1f})"
    )
    words = f"median latency over {len(points)} points {change}, limit {100.0 * fail_over:+.1f} %"
    named = [f"{p.name} {100.0 * (p.ratio - 1.0):+.1f} %" for p in points if "slower" in p.verdict]
    if slower and busy:
        return f"inconclusive: {words}; the device was too busy during B to tell: profile again when it is quiet"
    if slower:
        worst = f"; slower: {', '.join(named[:5])}{' ...' if len(named) > 5 else ''}" if named else ""
        return f"regressed: {words}{worst}{'; accuracy fell, too' if lost else ''}"
    if lost:
        fallen = [p for p in points if "less accurate" in p.verdict and p.accuracy_change is not None]
        worst_point = min(fallen, key=lambda p: p.accuracy_change or 0.0)
        return f"regressed: {worst_point.name} lost {-100.0 * (worst_point.accuracy_change or 0.0):.1f} points; {words}"
    return f"no regression: {words}"


def _short(result: ProfileResult) -> str:
    return result.bundle.manifest_sha256[:8]


def _shown(value: object) -> str:
    return "unknown" if value is None or value == "" else str(value)
