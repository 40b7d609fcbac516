"""Does `edge-runtime compare` find a 10 % slowdown, and is it silent where nothing changed? Real runs, both.

    python -m benchmarks.compare_check

Profiles are made in processes of their own, in turn: plain, slowed, plain, slowed, ... A slowed runner waits, busily,
until a run has taken 10 % longer than the engine took. Each plain profile is compared with the next plain one (nothing
changed) and with the slowed one beside it (10 % slower).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.ladder import spread_points
from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "profiling.md"
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
POINTS = 6
SLOWDOWN = 0.10


class SlowedRunner:
    """A runner that takes longer than its engine."""

    def __init__(self, inner: Any, share: float) -> None:
        self._inner, self._share, self.input = inner, share, inner.input

    def run(self) -> Any:
        """Run, then wait busily."""
        started = time.perf_counter()
        output = self._inner.run()
        until = started + (time.perf_counter() - started) * (1.0 + self._share)
        while time.perf_counter() < until:
            pass
        return output

    def close(self) -> None:
        """Of the engine."""
        self._inner.close()


class SlowedBackend:
    """A backend of slowed runners."""

    def __init__(self, inner: Any, share: float) -> None:
        self._inner, self._share, self.name = inner, share, inner.name

    def load(self, point: Any) -> SlowedRunner:
        """A slowed runner."""
        return SlowedRunner(self._inner.load(point), self._share)

    def close(self) -> None:
        """Of the engine."""
        self._inner.close()


def make_profile(bundle: str, out: Path, slowdown: float) -> None:
    """In a child process: a quick profile of a few points, slowed by a share."""
    from dataclasses import replace

    from edge_runtime import Bundle
    from edge_runtime.device_profile import match_profile, read_machine_facts
    from edge_runtime.profiling import loading
    from edge_runtime.profiling.profiler import Profiler
    from edge_runtime.profiling.result import save_result
    from edge_runtime.profiling.settings import MODES
    from edge_runtime.sensors import DeviceSensors

    if slowdown > 0.0:
        plain = loading.open_backend
        loading.open_backend = lambda *arguments: SlowedBackend(plain(*arguments), slowdown)
    opened = Bundle.load(bundle)
    settings = replace(MODES["quick"], points=spread_points(opened, POINTS))
    profile = match_profile(read_machine_facts())[0]
    save_result(Profiler(opened, settings, profile, DeviceSensors()).run(), out)


def child(bundle: str, out: Path, slowdown: float) -> Any:
    """A profile made in a process of its own."""
    from edge_runtime.profiling.result import load_result

    command = [sys.executable, "-m", "benchmarks.compare_check", "--bundle", bundle, "--child", str(out)]
    subprocess.run([*command, "--slowdown", str(slowdown)], check=True)
    return load_result(out)


def measure(bundle: str, repeats: int, fail_over: float, keep: Path | None = None) -> dict[str, Any]:
    """Alarms where nothing changed, and detections where 10 % were planted."""
    from edge_runtime.profiling.compare import compare_results

    same, planted = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep
        folder.mkdir(parents=True, exist_ok=True)
        before = child(bundle, folder / "plain.json", 0.0)
        for number in range(repeats):
            slowed = compare_results(before, child(bundle, folder / f"slowed-{number}.json", SLOWDOWN), fail_over)
            after = child(bundle, folder / f"plain-{number}.json", 0.0)
            unchanged = compare_results(before, after, fail_over)
            before = after
            same.append(unchanged)
            planted.append(slowed)
            print(f"unchanged: {unchanged.sentences[-1]}\n10 % slower: {slowed.sentences[-1]}", flush=True)
    return {
        "bundle": Path(bundle).name, "points": len(same[0].points), "repeats": repeats, "fail_over": fail_over,
        "planted": SLOWDOWN, "alarms_where_nothing_changed": sum(c.regressed for c in same),
        "detected": sum(c.regressed for c in planted), "inconclusive": sum(c.inconclusive for c in (*same, *planted)),
        "overall_ratios_unchanged": [round(c.overall_ratio, 4) for c in same],
        "overall_ratios_planted": [round(c.overall_ratio, 4) for c in planted],
    }  # fmt: skip


def render(values: dict[str, Any]) -> str:
    """The sentence of docs/profiling.md."""
    return (
        f"In {values['repeats']} comparisons of the same thing with itself it failed "
        f"{values['alarms_where_nothing_changed']} times; in {values['repeats']} comparisons with a version slowed by "
        f"{100 * values['planted']:.0f} % it failed {values['detected']} times (limit {100 * values['fail_over']:.0f} "
        f"%, {values['points']} points of {values['bundle']}, `python -m benchmarks.compare_check`)."
    )


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--repeats", default=20, show_default=True)
@click.option("--fail-over", default=0.05, show_default=True)
@click.option("--record/--no-record", default=True, help="Write the JSON and the sentence of docs/profiling.md.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Folder that keeps the profiles.")
@click.option("--child", "out", hidden=True, type=click.Path(path_type=Path), default=None)
@click.option("--slowdown", hidden=True, default=0.0)
def main(
    bundle: Path | None,
    repeats: int,
    fail_over: float,
    record: bool,
    keep: Path | None,
    out: Path | None,
    slowdown: float,
) -> None:
    """Measure and write benchmarks/results/compare_check.json."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    if out is not None:
        make_profile(path, out, slowdown)
        return
    values = measure(path, repeats, fail_over, keep)
    print(render(values))
    if record:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{render(values)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
        save("compare_check", values)


if __name__ == "__main__":
    main()
