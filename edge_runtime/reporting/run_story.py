"""What one recorded run amounts to: counted once, told as sentences, large figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge_runtime.reporting.document import Column, Row, Table, Tile, percent, significant
from edge_runtime.reporting.run_log import Numbers, RunLog
from edge_runtime.reporting.static_comparison import Comparison, compare_with_static

GOOD_ATTAINMENT = 0.95
"""Share of the feasible frames on time from which the page colours the figure green."""
SHOWN_ELSEWHERE = ("event", "bundle", "backend", "started", "points")
SCORE_COLUMNS = (
    Column("way", "way to choose", "name"),
    Column("basis", "basis"),
    Column("on_time_share", "on time", "share"),
    Column("late_frames", "late frames", "count"),
    Column("mean_accuracy", "accuracy of the answers", "share"),
    Column("useful_accuracy", "right and on time", "share"),
    Column("point", "point", "name"),
)
LATENCY_COLUMNS = (
    Column("point", "point", "name"),
    Column("frames", "frames", "count"),
    Column("accuracy", "accuracy", "share"),
    Column("p50_ms", "p50, ms", "number"),
    Column("p90_ms", "p90, ms", "number"),
    Column("p99_ms", "p99, ms", "number"),
    Column("max_ms", "max, ms", "number"),
)


class RunStory:
    """One run, compared and counted.

    Args:
        run: the recording.
        profiled_ms: point -> median latency of a profile of the same bundle, for the comparison.
    """

    def __init__(self, run: RunLog, profiled_ms: Mapping[str, float] | None = None) -> None:
        self.run = run
        self.comparison: Comparison | None = compare_with_static(run, profiled_ms)
        self.switches = int(np.count_nonzero(np.diff(run.point)))
        self.points_used = len(set(run.point.tolist()))
        self.feasible = int(run.feasible.sum())
        self.attainment = float(run.on_time[run.feasible].mean()) if self.feasible else None
        ranks = np.percentile(run.columns["latency_ms"], (50, 99))
        self.p50_ms, self.p99_ms = (float(value) for value in ranks)

    def summary(self) -> tuple[str, ...]:
        """Sentences for somebody who reads nothing else."""
        run, on_time = self.run, percent(float(self.run.on_time.mean()))
        told = (
            f"{run.frames:,} frames in {run.duration_s:,.1f} seconds: {on_time} were answered on time, while the "
            f"controller moved {self.switches:,} times among {self.points_used} operating points."
        )
        return (told, *(() if self.comparison is None else comparison_sentences(self.comparison)))

    def tiles(self) -> tuple[Tile, ...]:
        """The large figures."""
        run, good = self.run, None if self.attainment is None else self.attainment >= GOOD_ATTAINMENT
        attained = "–" if self.attainment is None else percent(self.attainment)
        rate = f"{(run.frames - 1) / run.duration_s:.1f} a second" if run.duration_s else ""
        tiles = [
            Tile("On time", attained, f"of {self.feasible:,} feasible frames", good),
            Tile("Latency p50", f"{significant(self.p50_ms)} ms", f"p99 {significant(self.p99_ms)} ms"),
            Tile("Frames", f"{run.frames:,}", rate),
            Tile("Switches", f"{self.switches:,}", f"{self.points_used} points used"),
        ]
        if self.comparison is not None:
            useful, best = self.comparison.adaptive.useful_accuracy, self.comparison.static[0].useful_accuracy
            tiles.append(Tile("Right and on time", percent(useful), f"best single point {percent(best)} (computed)"))
        return tuple(tiles)

    def scores_table(self) -> Table:
        """Adaptive and static side by side; what `--format csv` writes for a run."""
        scores = () if self.comparison is None else self.comparison.scores
        rows: tuple[Row, ...] = tuple(
            {
                "way": score.title, "point": score.point, "basis": score.basis, "late_frames": score.late,
                "on_time_share": score.on_time_share, "mean_accuracy": score.mean_accuracy,
                "useful_accuracy": score.useful_accuracy,
            }
            for score in scores
        )  # fmt: skip
        return Table("Adaptive and static, on the same frames", SCORE_COLUMNS, rows, marked=(0,), folded=True)

    def reasons_table(self) -> Table:
        """How often the controller gave each reason."""
        counted = Counter(reason or "unknown" for reason in self.run.reasons).most_common(30)
        rows: tuple[Row, ...] = tuple({"reason": r, "frames": n, "share": n / self.run.frames} for r, n in counted)
        columns = (
            Column("reason", "the controller's reason"),
            Column("frames", "frames", "count"),
            Column("share", "share", "share"),
        )
        return Table("Why the controller chose so", columns, rows)

    def late_table(self) -> Table:
        """What took most of the late frames' time."""
        counted = Counter(cause for cause in self.run.late_because if cause).most_common(10)
        rows: tuple[Row, ...] = tuple({"cause": cause, "frames": count} for cause, count in counted)
        return Table("Why frames were late", (Column("cause", "cause"), Column("frames", "late frames", "count")), rows)

    def latency_table(self) -> Table:
        """Engine time of each operating point that was used."""
        rows: list[Row] = []
        for index, taken in self.engine_times():
            point = self.run.points[index]
            p50, p90, p99 = (float(value) for value in np.percentile(taken, (50, 90, 99)))
            rows.append({
                "point": point.name, "frames": len(taken), "accuracy": point.accuracy, "p50_ms": p50, "p90_ms": p90,
                "p99_ms": p99, "max_ms": float(taken.max()),
            })  # fmt: skip
        return Table("Engine time by operating point", LATENCY_COLUMNS, tuple(rows))

    def engine_times(self) -> list[tuple[int, Numbers]]:
        """Index of each point and the known times of its frames, milliseconds; the most used point first."""
        run_ms = self.run.columns["run_ms" if self.run.known("run_ms") else "latency_ms"]
        known = np.isfinite(run_ms) & (run_ms > 0.0)
        found = [(int(i), run_ms[known & (self.run.point == i)]) for i in np.unique(self.run.point)]
        return sorted([pair for pair in found if len(pair[1])], key=lambda pair: -len(pair[1]))

    def facts_table(self) -> Table:
        """Where the recording comes from."""
        run, dropped = self.run, self.run.columns["dropped"]
        lost = dropped[np.isfinite(dropped)]
        facts = {
            "recording": run.path, "bundle": run.bundle, "engine": run.backend, "started": run.started,
            "frames": f"{run.frames:,}", "dropped by the source": f"{lost.max():,.0f}" if len(lost) else "",
            **_plain_facts(run.facts),
        }  # fmt: skip
        rows = tuple({"key": key, "value": text} for key, text in facts.items() if text)
        return Table("The recording", (Column("key", "what"), Column("value", "value")), rows)


def comparison_sentences(comparison: Comparison) -> tuple[str, ...]:
    """Adaptive against the best static point, without favour."""
    everywhere = np.ones(len(comparison.frames), dtype=bool)
    told = ["Counting late answers as wrong, " + _against_best(comparison, everywhere, "the frames")]
    held = int(comparison.held.sum())
    if 0 < held < len(comparison.frames):
        told.append(
            f"On {held:,} frames heat, battery or memory held the adaptive run back, which a static point ignores. On "
            "the others " + _against_best(comparison, ~comparison.held, "them")
        )
    return tuple(told)


def _against_best(comparison: Comparison, chosen: npt.NDArray[np.bool_], frames: str) -> str:
    """Half a sentence about some of the frames."""
    run = comparison.adaptive.useful_on(chosen)
    best = max(comparison.static, key=lambda score: score.useful_on(chosen))
    reached, late = best.useful_on(chosen), int((~best.on_time[chosen]).sum())
    gap = 100.0 * (run - reached)
    times = {0: "never late", 1: "late once"}.get(late, f"late {late:,} times")
    distance = "as much as" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'more' if gap > 0 else 'less'} than"
    return (
        f"the adaptive run is expected to be right on {percent(run)} of {frames}: {distance} the best single point "
        f"({best.title}), which would have reached {percent(reached)} and been {times} (computed)."
    )


def _plain_facts(facts: Mapping[str, object]) -> dict[str, str]:
    """Other keys of the first line that are plain values."""
    return {
        key.replace("_", " ")[:60]: str(value)[:200]
        for key, value in facts.items()
        if key not in SHOWN_ELSEWHERE and isinstance(value, (str, int, float)) and value != ""
    }
