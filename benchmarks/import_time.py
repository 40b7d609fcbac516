"""How long `import edge_runtime` takes in a fresh interpreter, and what it brings along."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from benchmarks.record import save

RUNS = 15
CHILD = """
import sys, time
started = time.perf_counter()
import edge_runtime
spent = time.perf_counter() - started
names = ("torch", "cv2", "onnxruntime", "click", "psutil", "rich", "executorch", "onnx")
heavy = [name for name in names if name in sys.modules]
print(__import__("json").dumps({"import_s": spent, "heavy": heavy}))
"""
NUMPY = "import time\nstarted = time.perf_counter()\nimport numpy\nprint(time.perf_counter() - started)"


def _run(code: str) -> str:
    """In a fresh interpreter that may use its byte-code cache, as a user's does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def main() -> None:
    """Measure and write benchmarks/results/import_time.json."""
    found, numpy_s = [], []
    _run(CHILD)  # fills the cache
    for _ in range(RUNS):
        found.append(json.loads(_run(CHILD)))
        numpy_s.append(float(_run(NUMPY)))
    values = {
        "import_s_median": round(statistics.median(f["import_s"] for f in found), 4),
        "import_s_max": round(max(f["import_s"] for f in found), 4),
        "of_which_numpy_s_median": round(statistics.median(numpy_s), 4),
        "heavy_modules": sorted({m for f in found for m in f["heavy"]}),
        "runs": RUNS,
    }
    print(values)
    save("import_time", values)


if __name__ == "__main__":
    main()
