"""Size of a bundle on disk against its largest width alone: a bundle of that width's points only, and plain ONNX files.

    python -m benchmarks.bundle_size --bundle NAME.bundle

For each precision the bundle is reduced to that precision's points, and then to the widest ones: files that no point
uses leave, weights and tables keep what the remaining programs need, all packed as the converter does. "Plain ONNX" is
one graph with its weights inside, as `torch.onnx.export` and onnxruntime's quantizer leave them (the costliest point).
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.plain_export import plain_model
from benchmarks.record import save


def npz_size(arrays: dict[str, np.ndarray], compressed: bool = False) -> int:
    """Bytes of an npz file, packed as the converter packs tables when compressed."""
    from edge_runtime.packed_file import pack

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return len(pack(buffer.getvalue())) if compressed else len(buffer.getvalue())


def reduced_sizes(bundle: Any, points: tuple[Any, ...]) -> dict[str, int]:
    """Bytes of each part of the bundle with these points only."""
    from edge_runtime.tensor_recipe import read_recipe

    manifest = bundle.manifest
    programs = tuple(p for p in manifest.programs if p.name in {point.program for point in points})
    recipes = [read_recipe(bundle.content(p.tensors), p.tensors) for p in programs]
    sources = {name for recipe in recipes for name in recipe.sources}
    keys = {str(p.table) for p in points} | {r.norms.group for r in recipes if r.norms is not None}
    tables = {k: v for k, v in bundle.tables.items() if k.partition("/")[0] in keys}
    names = {p.name for p in points}
    vectors = {k: v for k, v in bundle.vectors.items() if "/" not in k or k.partition("/")[2] in names}
    found = io.BytesIO()
    np.savez_compressed(found, **vectors)
    files = {p.file for p in programs} | {str(p.tensors) for p in programs}
    others = {manifest.weights, manifest.tables, manifest.vectors.file}
    facts = {n: f for n, f in manifest.files.items() if n in files | others}
    less = dataclasses.replace(manifest, programs=programs, points=points, files=facts)
    return {
        "weights": npz_size({k: v for k, v in bundle.weights.items() if k in sources}),
        "tables": npz_size(tables, compressed=True),
        "programs": sum(manifest.files[name].size_bytes for name in files),
        "vectors": len(found.getvalue()),
        "manifest": len(json.dumps(dataclasses.asdict(less), indent=1)),
    }


def compare(bundle: Any, precision: str) -> dict[str, Any]:
    """One precision's sizes and ratios."""
    points = bundle.points_for("onnxruntime", precision)
    widest = max(p.width for p in points)
    alone = tuple(p for p in points if p.width == widest)
    parts, alone_parts = reduced_sizes(bundle, points), reduced_sizes(bundle, alone)
    size, alone_size = sum(parts.values()), sum(alone_parts.values())
    plain = len(plain_model(bundle, max(alone, key=lambda p: p.madds)).SerializeToString())
    return {
        "points": len(points),
        "widths": sorted({p.width for p in points}),
        "resolutions": sorted({p.size_hw[0] for p in points}),
        "bundle_bytes": size,
        "bundle_parts": parts,
        "widest_alone_bytes": alone_size,
        "widest_alone_parts": alone_parts,
        "plain_onnx_bytes": plain,
        "ratio_to_widest_alone": round(size / alone_size, 4),
        "ratio_to_plain_onnx": round(size / plain, 4),
    }


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None)
@click.option("--record/--no-record", default=True, help="Write benchmarks/results/bundle_size.json.")
def main(bundle: Path | None, record: bool) -> None:
    """Measure, print and record."""
    from edge_runtime import Bundle, default_bundle_path

    opened = Bundle.load(bundle or default_bundle_path())
    programs = [p for p in opened.manifest.programs if p.backend == "onnxruntime" and p.tensors is not None]
    results = {precision: compare(opened, precision) for precision in dict.fromkeys(p.precision for p in programs)}
    on_disk = sum(p.stat().st_size for p in opened.root.rglob("*") if p.is_file())
    print(json.dumps({"on_disk_bytes": on_disk, **results}, indent=1))
    if record:
        save("bundle_size", {"bundle": opened.root.name, "on_disk_bytes": on_disk, "precisions": results})


if __name__ == "__main__":
    main()
