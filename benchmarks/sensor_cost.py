"""What one reading of the sensors costs: on this machine, and on an emulated laptop that has nearly every sensor.

Run with `python -m benchmarks.sensor_cost`. The emulated tree lies on an ordinary file system: it shows the cost of
opening, reading and understanding the files, not what a slow driver adds when it talks to its chip. Wall time holds
the waits for a core that other processes cause (see `foreign_load`); processor time does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import percentiles, save
from edge_runtime.sensors import DeviceSensors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "edge_runtime"))
import device_trees


def main() -> None:
    """Measure, print and write benchmarks/results/sensor_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=2000, help="how many readings to time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        emulated = measure(device_trees.laptop(Path(folder)), options.readings)
    values = {"this_machine": measure(Path("/"), options.readings), "emulated_laptop": emulated}
    print(json.dumps(values, indent=1))
    save("sensor_cost", values)


def measure(root: Path, count: int) -> dict[str, Any]:
    """What construction, `read` and the count of tasks before a frame take, and what was known."""
    start = time.perf_counter()
    sensors = DeviceSensors(root)
    construction_ms = 1e3 * (time.perf_counter() - start)
    readings = sensors.read(0.0)
    wall_ms, processor_ms = [], []
    for index in range(count):
        start, start_processor = time.perf_counter(), time.thread_time()
        readings = sensors.read(1.0 + index)
        processor_ms.append(1e3 * (time.thread_time() - start_processor))
        wall_ms.append(1e3 * (time.perf_counter() - start))
    crowding_us = []
    for _ in range(count):
        start = time.perf_counter()
        sensors.crowding(threads=1)
        crowding_us.append(1e6 * (time.perf_counter() - start))
    return {
        "crowding_wall_us": percentiles(crowding_us),
        "construction_ms": round(construction_ms, 3),
        "read_wall_ms": percentiles(wall_ms),
        "read_processor_ms": percentiles(processor_ms),
        "known": sorted(readings.sources),
        "foreign_load": readings.foreign_load,
    }


if __name__ == "__main__":
    main()
