"""Benchmarks run on whatever bundle ships."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.ladder import spread_points
from edge_runtime import Bundle, default_bundle_path

ROOT = Path(__file__).resolve().parents[2]


def test_spread_points_keep_both_ends_and_no_point_twice() -> None:
    bundle = Bundle.load(default_bundle_path(), verify=False)
    points = sorted(bundle.points_for("onnxruntime"), key=lambda p: p.madds)
    names = spread_points(bundle, 5)
    assert len(set(names)) == 5
    assert (names[0], names[-1]) == (points[0].name, points[-1].name)
    assert len(spread_points(bundle, 1000)) == len(points)


def test_the_pipeline_benchmark_times_the_resizing_of_the_present_pipeline() -> None:
    command = [sys.executable, "-m", "benchmarks.pipeline_overhead", "--frames", "20", "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert set(rows) == {"overhead_ms", "resize_ms", "engine_ms", "frame_ms"}
    assert "'count': 20, 'p50': 0.0," not in rows["resize_ms"]  # the timer is in place
