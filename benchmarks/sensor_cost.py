"""What one reading of the sensors costs: on this machine, and on an emulated laptop that has every sensor.

    python benchmarks/sensor_cost.py [--readings 2000] [--out benchmarks/results/sensor_cost.json]

The emulated tree lies on an ordinary file system: it shows the cost of opening, reading and understanding the files,
not what a slow driver adds when it talks to its chip.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "edge_runtime")]

import device_trees  # noqa: E402 (found by the line above)

from edge_runtime.machine_facts import read_machine_facts  # noqa: E402
from edge_runtime.sensors import DeviceSensors  # noqa: E402


def measure(root: Path, readings: int) -> dict[str, object]:
    """Milliseconds of construction and of `read`, with the number of readings known."""
    start = time.perf_counter()
    sensors = DeviceSensors(root)
    construction_ms = 1e3 * (time.perf_counter() - start)
    for index in range(20):
        known = sensors.read(float(index))
    wall_ms, cpu_ms = [], []
    for index in range(readings):
        start, start_cpu = time.perf_counter(), time.thread_time()
        known = sensors.read(100.0 + index)
        cpu_ms.append(1e3 * (time.thread_time() - start_cpu))
        wall_ms.append(1e3 * (time.perf_counter() - start))
    return {
        "construction_ms": round(construction_ms, 3),
        "readings": readings,
        "known_fields": sorted(known.sources),
        "read_wall_ms": percentiles(wall_ms),
        "read_cpu_ms": percentiles(cpu_ms),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p99 and the largest."""
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2], 4),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 4),
        "max": round(ordered[-1], 4),
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "benchmarks" / "results" / "sensor_cost.json")
    options = parser.parse_args()
    facts = read_machine_facts()
    with tempfile.TemporaryDirectory() as folder:
        emulated = measure(device_trees.laptop(Path(folder)), options.readings)
    result = {
        "device": f"{facts.cpu_model}, {facts.cores} cores, {platform.system()} {platform.release()}",
        "commit": git("rev-parse", "--short", "HEAD"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "python " + " ".join(["benchmarks/sensor_cost.py", *sys.argv[1:]]),
        "foreign_load": DeviceLoad().share(),
        "this_machine": measure(Path("/"), options.readings),
        "emulated_laptop": emulated,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


class DeviceLoad:
    """How busy others keep this machine while we measure, for the record."""

    def __init__(self) -> None:
        self._sensors = DeviceSensors()

    def share(self, wait_s: float = 0.5) -> float | None:
        """Share of all cores, 0-1."""
        time.sleep(wait_s)
        load = self._sensors.read().foreign_load
        return None if load is None else round(load, 2)


def git(*words: str) -> str:
    """Output of a git command, or "unknown" outside a checkout."""
    done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
