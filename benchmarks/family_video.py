"""A video under the demo's phases with a bundle of ImageNet networks, and the block of docs/family.md.

    python -m benchmarks.family_video runs/imagenet-lite.bundle --source bikes.mp4

Runs the camera application and sums up its telemetry. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.page_block import fill
from benchmarks.record import RESULTS, environment, save

ROOT = RESULTS.parent.parent
PAGE, SCENARIO = ROOT / "docs" / "family.md", ROOT / "apps" / "demo" / "scenario.toml"


def summed_up(frames: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the frame events of a telemetry file.

    Raises:
        ValueError: there is no frame.
    """
    rows = list(frames)
    if not rows:
        raise ValueError("expected at least one frame in the telemetry")
    feasible = [row for row in rows if row["feasible"]]
    latency = np.percentile([row["latency_ms"] for row in rows], (50, 95, 99))
    return {
        "frames": len(rows),
        "dropped": sum(row["dropped"] for row in rows),
        "feasible": len(feasible),
        "in_time_of_feasible": sum(row["on_time"] for row in feasible) / len(feasible) if feasible else None,
        "switches": sum(row["switched"] for row in rows),
        "latency_ms": dict(zip(("p50", "p95", "p99"), (round(float(v), 2) for v in latency), strict=True)),
        "frames_per_point": dict(Counter(row["point"] for row in rows).most_common()),
    }


def sentence(found: dict[str, Any]) -> str:
    """What the page says of it."""
    share = found["in_time_of_feasible"]
    in_time = (
        "no frame was feasible" if share is None else f"{share:.1%} in time of {found['feasible']} feasible frames"
    )
    points = ", ".join(f"{name} {count}" for name, count in found["frames_per_point"].items())
    latency = found["latency_ms"]
    return (
        f"{found['frames']} frames, {found['dropped']} dropped, {in_time}, {found['switches']} switches, latency "
        f"{latency['p50']:.1f} ms at the median and {latency['p99']:.1f} at p99. Frames of each point: {points}."
    )


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--source", type=click.Path(exists=True), required=True, help="A video file.")
@click.option("--frames", default=500, show_default=True)
def main(bundle: Path, source: str, frames: int) -> None:
    """Play, sum up, write benchmarks/results/family_video.json and the block."""
    with tempfile.TemporaryDirectory() as folder:
        telemetry = Path(folder) / "telemetry.jsonl"
        subprocess.run(
            [
                sys.executable, "-m", "apps.camera", "--source", source, "--loop", "--max-frames", str(frames),
                "--bundle", str(bundle), "--scenario", str(SCENARIO), "--threads", "1", "--show", "no",
                "--save", str(Path(folder) / "annotated.mp4"), "--telemetry", str(telemetry),
            ],
            check=True,
        )  # fmt: skip
        events = map(json.loads, telemetry.read_text(encoding="utf-8").splitlines())
        found = summed_up(e for e in events if e["event"] == "frame")
    where = {"clip": Path(source).name, "bundle": bundle.name, "scenario": SCENARIO.name}
    save("family_video", where | found)
    facts = environment()
    fill(PAGE, "video", [sentence(found), "", f"{facts['cpu']}, {facts['date'][:10]}: `{facts['command']}`"])


if __name__ == "__main__":
    main()
