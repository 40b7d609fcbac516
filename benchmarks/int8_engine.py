"""What ONNX Runtime makes of a quantized graph, as it opens it by itself and as the runtime opens it: docs/bundle.md.

    python -m converters checkpoint apps/demo/everyday-20.bundle --recipe zoo/recipes/efficientnet-lite0-20.toml \
        --out model.pt
    python -m benchmarks.int8_engine model.pt --data imagenet20-64.zip

Each point is quantized with 7-bit weights, with 8-bit ones, and with 7-bit ones and its most sensitive layers in float,
then compared with the same graph in float arithmetic, which has the rounding and nothing else. Times are processor
times, median, one thread, all ways in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.page_block import PAGE, fill
from benchmarks.record import environment, save

Session = Callable[[np.ndarray], np.ndarray]
WAYS = ("by itself", "as the runtime opens it")


def opened(graph: bytes, tensors: dict[str, np.ndarray], way: str) -> Session:
    """A session on one thread."""
    import onnxruntime

    from edge_runtime.backends.ort_options import open_session

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_external_initializers(
        list(tensors), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
    )
    if way == WAYS[0]:
        session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    else:
        session = open_session(onnxruntime, graph, options)
    return lambda picture: np.array(session.run(None, {"image": picture})[0])


def compared(
    exact: np.ndarray, sessions: dict[str, Session], pictures: list[np.ndarray]
) -> dict[str, dict[str, float]]:
    """How often each way changes the best class, and its median processor time in milliseconds.

    Args:
        exact: (pictures, classes) logits.
        sessions: by way.
        pictures: (1, 3, H, W) float32 each.
    """
    best: dict[str, list[int]] = {way: [] for way in sessions}
    taken_ms: dict[str, list[float]] = {way: [] for way in sessions}
    for picture in pictures:
        for way, run in sessions.items():
            started_s = time.thread_time()
            logits = run(picture)
            taken_ms[way].append(1000.0 * (time.thread_time() - started_s))
            best[way].append(int(logits.argmax()))
    return {
        way: {
            "changed": round(float(np.mean(np.array(found) != exact.argmax(1))), 4),
            "ms": round(statistics.median(taken_ms[way]), 4),
        }
        for way, found in best.items()
    }


class Points:
    """A checkpoint's points in int8."""

    def __init__(self, checkpoint: Path, data: Path, count: int) -> None:
        from converters.shared_weights import full_store
        from edge_runtime.preprocess import TensorSpec
        from zoo.checkpoint import load_checkpoint
        from zoo.pictures import PictureSource
        from zoo.recipe import Recipe

        loaded, source = load_checkpoint(checkpoint), PictureSource(str(data))
        self.recipe, self.model = Recipe.from_dict(loaded.recipe), loaded.build()
        splits = source.splits(self.recipe.calib_pictures, self.recipe.select_pictures)
        self.calib = [source.picture(name) for name in splits["calib"].names]
        self.pictures = [source.picture(name) for name in splits["select"].names[:count]]
        self.spec = TensorSpec(tuple(self.recipe.mean), tuple(self.recipe.std))
        self.store = full_store(self.model)

    def measure(self, width: float, resolution: int, float_layers: int) -> dict[str, Any]:
        """One point: weights -> what `compared` says."""
        from converters.int8 import exact_logits, point_tensors, quantize_width, with_float_layers
        from converters.int8_graph import QuantSpec, external_names
        from converters.norm_rounding import TABLE_STEP
        from converters.onnx_export import externalise
        from converters.subnets import convert_width
        from edge_runtime.preprocess import preprocess

        (subnet,) = convert_width(self.model, width, (resolution,), self.store, TABLE_STEP)
        seven = QuantSpec(reduce_range=True)
        specs = {
            "7 bits": seven, "8 bits": replace(seven, reduce_range=False),
            f"7 bits, {float_layers} layers in float": with_float_layers(
                subnet, resolution, seven, float_layers, self.calib, self.spec
            ),
        }  # fmt: skip
        inputs = [preprocess(picture, self.spec, (resolution, resolution)) for picture in self.pictures]
        rows: dict[str, Any] = {}
        for name, spec in specs.items():
            gammas = subnet.gammas(self.model)
            found = quantize_width(subnet, self.store.arrays, subnet.tables, gammas, self.calib, self.spec, spec)
            tensors = point_tensors(found, self.store.arrays, subnet.tables, resolution)
            exact = exact_logits(found, tensors, resolution, self.pictures, self.spec)
            graph = externalise(found.graph.proto, external_names(found.graph.recipe))
            sessions = {way: opened(graph, tensors, way) for way in WAYS}
            rows[name] = compared(exact, sessions, inputs)
        return rows


def render(points: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of the table of docs/bundle.md."""
    heads = [f"{column}, {way}" for column in ("changed class", "ms") for way in WAYS]
    lines = ["| point | weights | " + " | ".join(heads) + " |", "|---|---|---|---|---|---|"]
    for point, rows in points.items():
        for weights, ways in rows.items():
            changed = " | ".join(f"{100 * ways[way]['changed']:.1f} %" for way in WAYS)
            lines.append(
                f"| {point} | {weights} | {changed} | " + " | ".join(f"{ways[w]['ms']:.2f}" for w in WAYS) + " |"
            )
    return lines


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pictures", type=click.IntRange(1), default=200, show_default=True, help="Of select.")
@click.option("--float-layers", type=click.IntRange(1), default=4, show_default=True)
def main(checkpoint: Path, data: Path, pictures: int, float_layers: int) -> None:
    """Measure both ends of the ladder; write benchmarks/results/int8_engine.json and the table."""
    made = Points(checkpoint, data, pictures)
    measured, side = {}, max(made.recipe.resolutions)
    for width in (max(made.recipe.widths), min(made.recipe.widths)):
        name = f"w{width:.2f}-r{side:03d}"
        measured[name] = made.measure(width, side, float_layers)
        print(name, measured[name], flush=True)
    save("int8_engine", {"pictures": pictures, "float_layers": float_layers, "points": measured})
    facts = environment()
    where = f"{facts['cpu']}, {facts['date'][:10]}: `{facts['command']}`"
    fill(PAGE, "int8-engine", [*render(measured), "", f"{pictures} select pictures, against float arithmetic; {where}"])


if __name__ == "__main__":
    main()
