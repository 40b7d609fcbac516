"""Do two quick profiles agree, and does the runtime then predict what a frame costs? Run it on a quiet machine.

    python -m benchmarks.profile_repeat

Two processes profile the bundle, one after the other. A third loads the runtime with the first result and plays
frames at 30 fps, pinned to each point in turn, four times a dozen of them: the median engine time is held against the
query table. A fourth profiles beside a busy process, whose share the verdict must name.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "profiling.md"
BEGIN, END = "<!-- repeat:begin -->", "<!-- repeat:end -->"
VISITS, FRAMES, WARM_FRAMES, PERIOD_S = 4, 12, 3, 1.0 / 30.0
BUSY = "while True: pass"


def profile(bundle: str, out: Path, *arguments: str) -> float:
    """Run the command in its own data folder; returns the seconds it took."""
    command = [sys.executable, "-m", "edge_runtime", "profile", bundle, "--quick", "--out", str(out), *arguments]
    environment = {**os.environ, "EDGE_RUNTIME_DATA": str(out.parent / "data")}
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def predictions(bundle: str, table: str) -> dict[str, dict[str, float]]:
    """In a child process: what the table says of each point, and what frames at 30 fps took."""
    from edge_runtime import Budget, Runtime

    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    found = {}
    options: dict[str, Any] = {"query_table": table, "global_thread_pool": True, "budget": Budget.from_fps(30.0)}
    with Runtime.load(bundle, **options) as runtime:
        runtime.wait_ready()
        ladder = sorted(runtime.points, key=lambda p: p.madds)
        samples: dict[str, list[float]] = {point.name: [] for point in ladder}
        draw = random.Random(0)
        for _ in range(VISITS):
            for point in draw.sample(ladder, len(ladder)):
                runtime.pin(point.name)
                samples[point.name] += _visit(runtime, picture)[WARM_FRAMES:]
        for point in ladder:
            measured = statistics.median(samples[point.name])
            found[point.name] = {"predicted_ms": runtime.latency_ms(point.name), "measured_ms": round(measured, 5)}
    return found


def _visit(runtime: Any, picture: np.ndarray) -> list[float]:
    """Some frames in a row at the pinned point; milliseconds of the engine."""
    taken, next_s = [], time.perf_counter()
    for _ in range(WARM_FRAMES + FRAMES):
        next_s += PERIOD_S
        time.sleep(max(0.0, next_s - time.perf_counter()))
        taken.append(runtime.infer(picture).run_ms)
    return taken


def busy_verdict(bundle: str, out: Path) -> str:
    """The verdict of a profile beside a process that computes without pause."""
    from edge_runtime.profiling.result import load_result

    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        profile(bundle, out)
    finally:
        busy.kill()
        busy.wait()
    return load_result(out).verdict.reason


def share(values: list[float], limit: float) -> str:
    """ "19 of 20 within 5 %" """
    return f"{sum(abs(v) <= limit for v in values)} of {len(values)} within {100 * limit:.0f} %"


def measure(bundle: str) -> dict[str, Any]:
    """Everything, as plain values."""
    from edge_runtime.profiling.result import load_result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = [profile(bundle, folder / f"{run}.json") for run in "ab"]
        a, b = (load_result(folder / f"{run}.json") for run in "ab")
        command = [sys.executable, "-m", "benchmarks.profile_repeat", "--bundle", bundle, "--child"]
        done = subprocess.run([*command, str(folder / "a.json")], capture_output=True, text=True, check=True)
        predicted = json.loads(done.stdout.splitlines()[-1])
        verdict = busy_verdict(bundle, folder / "busy.json")
    p50 = [{point.name: point.latency.p50_ms.value for point in result.points} for result in (a, b)]
    apart = {point: round(p50[1][point] / p50[0][point] - 1.0, 4) for point in p50[0]}
    wrong = {point: round(row["measured_ms"] / row["predicted_ms"] - 1.0, 4) for point, row in predicted.items()}
    return {
        "bundle": Path(bundle).name, "points": len(apart), "quick_profile_s": [round(s, 1) for s in seconds],
        "verdicts": [a.verdict.reason, b.verdict.reason], "second_against_first": apart,
        "largest_difference": max(map(abs, apart.values())), "frames_against_table": wrong,
        "largest_prediction_error": max(map(abs, wrong.values())), "verdict_beside_a_busy_process": verdict,
        "p50_ms": p50[0], "predictions": predicted,
    }  # fmt: skip


def render(values: dict[str, Any]) -> str:
    """The table of docs/profiling.md."""
    apart, wrong = (list(values[key].values()) for key in ("second_against_first", "frames_against_table"))
    first, second = values["quick_profile_s"]
    rows = [
        ("quick profile of " + values["bundle"], f"{first:.0f} s and {second:.0f} s, verdict {values['verdicts'][0]}"),
        ("two profiles, p50 of each point", f"at most {100 * max(map(abs, apart)):.1f} % apart; {share(apart, 0.05)}"),
        ("frames at 30 fps against the query table, p50", f"at most {100 * max(map(abs, wrong)):.1f} % off; "
         f"{share(wrong, 0.10)}"),
        ("verdict beside a busy process", values["verdict_beside_a_busy_process"]),
    ]  # fmt: skip
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)])


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--record/--no-record", default=True, help="Write the JSON and the table of docs/profiling.md.")
@click.option("--child", hidden=True, default=None)
def main(bundle: Path | None, record: bool, child: str | None) -> None:
    """Measure and write benchmarks/results/profile_repeat.json."""
    from edge_runtime import default_bundle_path

    path = str(bundle or default_bundle_path())
    if child is not None:
        print(json.dumps(predictions(path, child)))
        return
    values = measure(path)
    print(render(values))
    for point, error in values["frames_against_table"].items():
        print(f"{point}: second {100 * values['second_against_first'][point]:+.1f} %, frames {100 * error:+.1f} %")
    if record:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{render(values)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
        save("profile_repeat", values)


if __name__ == "__main__":
    main()
