"""Glance and Focus under a deadline and beside busy processes: how many frames answer in time, and how well.

    python -m benchmarks.glance_focus_deadline apps/demo/focus-20.bundle --checkpoint MODEL.pt --data PICTURES
    python -m benchmarks.glance_focus_deadline ... --split select --late-per-right 0.02 --late-per-right 0.05

The deadline is what two looks keep in 999 of 1000 frames, measured under the same load just before: a tighter one
could not be kept so often by looking twice. The same frames are also answered by the network of two looks, which
stops neither early nor late, in turn with the rule: a minute that is noisier than those before it shows in both. The
first form fills its line of docs/glance-and-focus.md; the second, which only shows, is for choosing how many late
frames a further right answer may cost.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.glance_focus import scenes_of
from benchmarks.glance_focus_tables import PAGE, deadline_line, fill
from benchmarks.record import percentiles, save
from edge_runtime.early_exit import LATE_PER_RIGHT

FRAMES, BUSY_PROCESSES, CALIBRATION_FRAMES = 8000, 2, 8000
KEPT = 0.999
"""Share of the frames in which two looks kept the deadline, just before."""
STRETCH_FRAMES = 400
"""Of one price or of two looks, before it is the next one's turn."""


def deadlines(
    bundle: Any, scenes: np.ndarray, labels: np.ndarray, frames: int, busy: int, prices: tuple[float, ...],
    kept: float = KEPT,
) -> list[dict[str, Any]]:  # fmt: skip
    """All looks wanted, time for two, other processes busy: a row for each price, measured in turn.

    Args:
        scenes: (N, S, S, 3) uint8, shown again and again.
        frames: of each price.
        busy: processes that do nothing but compute.
        prices: late frames that a further right answer may cost, 0 or more.
        kept: share of the frames, 0-1, in which two looks kept the deadline before.
    """
    from edge_runtime.backends import BackendOptions, open_backend

    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    point = max(bundle.points_for("onnxruntime"), key=lambda p: p.madds)
    two = two_look_runner(backend, bundle, point)
    runners = [backend.load(point) for _ in prices]
    for runner, price in zip(runners, prices, strict=True):
        runner.late_per_right = price
    turns: list[tuple[Any, list[tuple[int, int, float]]]] = [(runner, []) for runner in (two, *runners)]
    with busy_processes(busy):
        times_s = [in_time(two, bundle, scenes[i % len(scenes)], 60.0)[2] for i in range(CALIBRATION_FRAMES)]
        deadline_s = float(np.quantile(times_s, kept))
        for runner in runners:
            for scene in scenes[:20]:
                in_time(runner, bundle, scene, 60.0)
        for start in range(0, frames, STRETCH_FRAMES):
            for runner, rows in turns:
                for index in range(start, min(start + STRETCH_FRAMES, frames)):
                    given_s = 60.0 if runner is two else deadline_s
                    rows.append(in_time(runner, bundle, scenes[index % len(scenes)], given_s))
    backend.close()
    truth = labels[np.arange(frames) % len(scenes)]
    twice, *found = (figures(rows, truth, deadline_s) for _, rows in turns)
    shared = {"deadline_ms": deadline_s * 1000.0, "frames": frames, "busy_processes": busy, "bundle": bundle.root.name}
    shared |= {"kept_before": kept} | {f"two_look_{key}": value for key, value in twice.items() if key != "looks"}
    return [{"late_per_right": price, **shared, **row} for price, row in zip(prices, found, strict=True)]


def figures(rows: list[tuple[int, int, float]], labels: np.ndarray, deadline_s: float) -> dict[str, Any]:
    """What the frames of one price come to.

    Args:
        rows: class, looks and seconds of each frame.
        labels: (frames,) the right classes.
    """
    answers, looks, took_s = np.array(rows).T
    return {
        "in_time": float((took_s <= deadline_s).mean()), "accuracy": float((answers == labels).mean()),
        "looks": float(looks.mean()), "latency_ms": percentiles((took_s * 1000.0).tolist()),
    }  # fmt: skip


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Inside, so many other processes compute without a pause."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        for burner in burners:
            burner.terminate()
            burner.join()


def two_look_runner(backend: Any, bundle: Any, point: Any) -> Any:
    """A point's network that always looks twice."""
    from edge_runtime.early_exit import EarlyExitRunner
    from edge_runtime.exit_records import ExitSetting
    from zoo.focus_exits import NEVER

    setting = ExitSetting("two looks", 2, (NEVER,), 2.0, (0.0, 1.0))
    parts, classes = backend.parts(point.program), len(bundle.manifest.labels)
    return EarlyExitRunner(parts, bundle.manifest.exits, setting, point.size_hw, classes)


def in_time(runner: Any, bundle: Any, scene: np.ndarray, deadline_s: float) -> tuple[int, int, float]:
    """Class, looks and seconds of one frame that has a deadline."""
    from edge_runtime.early_exit import DEADLINE_SHARE
    from edge_runtime.preprocess import preprocess

    started_s = time.monotonic()
    preprocess(scene, bundle.spec, scene.shape[:2], out=runner.input)
    runner.deadline_s = started_s + deadline_s * DEADLINE_SHARE
    logits = runner.run()
    took_s = time.monotonic() - started_s
    return int(logits[0].argmax()), runner.last.looks, took_s


def _burn() -> None:
    while True:
        math.fsum(range(1000))


@click.command()
@click.argument("bundle_path", type=click.Path(exists=True))
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of python -m zoo focus.")
@click.option("--data", type=click.Path(), required=True, help="The pictures.")
@click.option("--split", type=click.Choice(["select", "test"]), default="test", show_default=True)
@click.option("--late-per-right", "prices", type=click.FloatRange(0), multiple=True, help="May be given often.")
@click.option("--frames", type=click.IntRange(1), default=FRAMES, show_default=True, help="Of each price.")
@click.option("--busy", type=click.IntRange(0), default=BUSY_PROCESSES, show_default=True, help="Busy processes.")
@click.option("--kept", type=click.FloatRange(0, 1), default=KEPT, show_default=True, help="By two looks, before.")
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result.")
def main(
    bundle_path: str, checkpoint: Path, data: str, split: str, prices: tuple[float, ...], frames: int, busy: int,
    kept: float, write: bool,
) -> None:  # fmt: skip
    """Measure, and fill the line of docs/glance-and-focus.md."""
    import torch

    from edge_runtime.bundle import Bundle
    from zoo.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    bundle = Bundle.load(bundle_path)
    scenes, labels, _, (views, _) = scenes_of(load_checkpoint(checkpoint), data, split)
    if views.spec is None:
        raise click.UsageError("this network was trained on pictures as they are; give one of scenes")
    rows = deadlines(bundle, scenes, labels, frames, busy, prices or (LATE_PER_RIGHT,), kept)
    for row in rows:
        click.echo(f"late per right {row['late_per_right']:g}, {split}: {deadline_line(row)['deadline']}")
    if write and split == "test" and not prices and kept == KEPT:
        save("glance_focus_deadline", {"deadline": rows[0]})
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), deadline_line(rows[0])), encoding="utf-8")


if __name__ == "__main__":
    main()
