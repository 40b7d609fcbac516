"""A point whose weights are made on the device, against a plain export: the same graph with its weights inside.

Two sessions per point, one thread, in turn; the ratio of medians per point. Needs the `onnx` package (extra `convert`).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import save

WARM_UP, RUNS = 20, 300


def plain_model(bundle: Any, point: Any) -> Any:
    """The point's graph (an onnx.ModelProto) with its weights embedded."""
    import onnx

    from edge_runtime.tensor_recipe import build_tensors, read_recipe

    program = bundle.program(point)
    recipe = read_recipe(bundle.content(program.tensors), program.tensors)
    tensors = build_tensors(recipe, bundle.weights, bundle.tables, point.table)
    model = onnx.load_from_string(bundle.content(program.file))
    for initializer in model.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(onnx.numpy_helper.from_array(tensors[initializer.name], initializer.name))
    return model


def plain_session(bundle: Any, point: Any) -> Any:
    """A session over the graph with the point's weights embedded, otherwise with the runtime's options."""
    import onnxruntime

    model = plain_model(bundle, point)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_free_dimension_override_by_name("height", point.size_hw[0])
    options.add_free_dimension_override_by_name("width", point.size_hw[1])
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bound(session: Any, point: Any, classes: int) -> Any:
    """Its input and output bound to arrays, as the runtime does; a function that runs it once."""
    picture, logits = np.zeros((1, 3, *point.size_hw), np.float32), np.zeros((1, classes), np.float32)
    binding = session.io_binding()
    binding.bind_input("image", "cpu", 0, np.float32, picture.shape, picture.ctypes.data)
    binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
    keep = (picture, logits)
    return lambda: (session.run_with_iobinding(binding), keep)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
def main(bundle: Path | None) -> None:
    """Measure and write benchmarks/results/plain_export.json."""
    from edge_runtime import Bundle, default_bundle_path
    from edge_runtime.backends import BackendOptions, open_backend

    opened = Bundle.load(bundle or default_bundle_path())
    backend = open_backend("onnxruntime", opened, BackendOptions(threads=1))
    rows = {}
    for point in opened.points_for("onnxruntime"):
        ways = {
            "bundle": backend.load(point).run,
            "plain": bound(plain_session(opened, point), point, len(opened.manifest.labels)),
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(WARM_UP + RUNS):
            for name, run in ways.items():
                started = time.perf_counter()
                run()
                if turn >= WARM_UP:
                    samples[name].append((time.perf_counter() - started) * 1000.0)
        medians = {name: statistics.median(values) for name, values in samples.items()}
        ratio = medians["bundle"] / medians["plain"]
        rows[point.name] = {f"{name}_ms": round(value, 4) for name, value in medians.items()} | {
            "ratio": round(ratio, 3)
        }
        print(point.name, rows[point.name])
    ratios = [row["ratio"] for row in rows.values()]
    summary = {"median": round(statistics.median(ratios), 3), "worst": max(ratios)}
    print(summary)
    save("plain_export", {"bundle": opened.root.name, "ratio": summary, "points": rows})


if __name__ == "__main__":
    main()
