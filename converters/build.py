"""Checkpoint -> bundle: materialise, fold, export, verify with the device's engine, pack."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.norm_folding import NormPair, find_norm_pairs, fold_norms
from converters.onnx_export import export_onnx, externalise, initializer_shapes
from converters.point_latency import measure_latency_ms
from converters.shared_weights import TensorStore, full_store, make_recipe, point_table, recipe_values
from converters.verification import PointCheck, compare, engine_logits, require_parity, torch_logits
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import SCHEMA_VERSION, ChannelRule, Manifest, OperatingPoint, Preprocessing, Program, Vectors
from edge_runtime.tensor_recipe import GraphTensors
from zoo import SlimNet, materialise
from zoo.checkpoint import Checkpoint
from zoo.madds import count_madds
from zoo.pictures import PictureSource
from zoo.recipe import Recipe

WEIGHTS, TABLES, VECTORS = "weights.npz", "tables.npz", "vectors/selftest.npz"
SPLITS = ("select", "test")
VECTOR_PICTURES, VECTOR_SIDE, VECTOR_TOLERANCE = 3, 64, 0.02


@dataclass(frozen=True)
class BuildRequest:
    """What to build from what."""

    checkpoint: Checkpoint
    source: PictureSource
    target: Path
    name: str
    threads: int = 1
    overwrite: bool = False
    provenance: dict[str, str] | None = None


@dataclass(frozen=True)
class _Subnet:
    """One width while it is being converted."""

    name: str
    width: float
    pairs: list[NormPair]
    recipe: GraphTensors
    by_resolution: dict[int, nn.Module]
    """Materialised, unfolded: the reference of each point."""


def build(request: BuildRequest, report: Callable[[str], None] = lambda line: None) -> tuple[Path, list[PointCheck]]:
    """Make a bundle with one onnxruntime fp32 program per width and a point per (width, resolution).

    Args:
        request: the checkpoint, pictures and target.
        report: receives a line per step.
    Returns:
        the bundle's path and how each point does in the engine.
    Raises:
        ConversionError: the export fails or a point differs from torch; nothing is left behind.
    """
    recipe = Recipe.from_dict(request.checkpoint.recipe)
    model = request.checkpoint.build()
    if not len(model.norm_bank):
        raise ConversionError("the checkpoint is not calibrated; finish its training (python -m zoo train) first")
    with BundleWriter(request.target, request.overwrite) as writer:
        store = full_store(model)
        subnets = [_convert_width(writer, model, width, recipe, store, report) for width in sorted(recipe.widths)]
        writer.write_npz(WEIGHTS, store.used_only([s.recipe for s in subnets]))
        tables = {}
        for subnet in subnets:
            for resolution, plain in subnet.by_resolution.items():
                for vector, values in point_table(plain, subnet.pairs).items():
                    tables[f"{point_name(subnet.width, resolution)}/{vector}"] = values
        writer.write_npz(TABLES, tables)
        draft = _draft_manifest(request, recipe, subnets)
        checks = _verify(writer.open(draft), subnets, request, report)
        writer.write_npz(VECTORS, _self_test(writer.open(draft), request.threads), compressed=True)
        final = replace(
            draft,
            points=tuple(_measured(p, checks[p.name], request.checkpoint) for p in draft.points),
            vectors=Vectors(VECTORS, VECTOR_TOLERANCE),
        )
        latencies = measure_latency_ms(writer.open(final), request.threads)
        final = replace(final, points=tuple(replace(p, latency_ms=latencies[p.name]) for p in final.points))
        return writer.finish(final), list(checks.values())


def point_name(width: float, resolution: int, precision: str = "fp32") -> str:
    """w0.50-r048-fp32."""
    return f"w{width:.2f}-r{resolution:03d}-{precision}"


def _convert_width(
    writer: BundleWriter,
    model: SlimNet,
    width: float,
    recipe: Recipe,
    store: TensorStore,
    report: Callable[[str], None],
) -> _Subnet:
    started = time.monotonic()
    largest = max(recipe.resolutions)
    plains = {r: materialise(model, width=width, resolution=r) for r in sorted(recipe.resolutions)}
    example = torch.zeros(1, 3, largest, largest)
    pairs = find_norm_pairs(plains[largest], example)
    draw = torch.Generator().manual_seed(0)
    folded = fold_norms(plains[largest], pairs, torch.randn(example.shape, generator=draw))
    proto = export_onnx(_value_free(folded), largest)
    parameters = dict(folded.named_parameters())
    shapes = {n: s for n, s in initializer_shapes(proto).items() if n in parameters and tuple(parameters[n].shape) == s}
    name = f"w{width:.2f}"
    tensors = make_recipe(plains[largest], pairs, shapes, store, name)
    writer.write(f"programs/{name}-fp32.onnx", externalise(proto, set(shapes)))
    writer.write_json(f"programs/{name}-fp32.tensors.json", recipe_values(tensors))
    report(f"exported width {width:.2f} in {time.monotonic() - started:.0f} s: {len(pairs)} norms folded")
    return _Subnet(name, width, pairs, tensors, plains)


@torch.no_grad()
def _value_free(model: nn.Module) -> nn.Module:
    """A copy with random parameters: the exporter removes a bias that is zero, and another point's may not be."""
    copied = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(1)
    for parameter in copied.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return copied


def _draft_manifest(request: BuildRequest, recipe: Recipe, subnets: list[_Subnet]) -> Manifest:
    programs, points = [], []
    for subnet in subnets:
        base = f"programs/{subnet.name}-fp32"
        program = Program(f"{subnet.name}-fp32", "onnxruntime", "fp32", base + ".onnx", tensors=base + ".tensors.json")
        programs.append(program)
        for resolution, plain in subnet.by_resolution.items():
            name = point_name(subnet.width, resolution)
            madds = count_madds(plain, (1, 3, resolution, resolution))
            size = (resolution, resolution)
            points.append(OperatingPoint(name, program.name, subnet.width, size, madds, {"select": 0.0}, table=name))
    mean, std = (tuple(float(v) for v in values) for values in (recipe.mean, recipe.std))
    return Manifest(
        SCHEMA_VERSION, request.name, "classification", tuple(request.checkpoint.classes),
        Preprocessing(mean, std), tuple(programs), tuple(points), {},
        channel_rule=ChannelRule("make_divisible", 8, min(recipe.widths), max(recipe.widths)),
        weights=WEIGHTS, tables=TABLES,
        splits={n: f"{request.source.root.name}, {len(s)} pictures" for n, s in _splits(request, recipe).items()},
        provenance={"recipe": f"{recipe.model} {recipe.method}, {recipe.epochs} epochs", **(request.provenance or {})},
    )  # fmt: skip


def _splits(request: BuildRequest, recipe: Recipe):  # type: ignore[no-untyped-def]
    found = request.source.splits(recipe.calib_pictures, recipe.select_pictures)
    return {name: found[name] for name in SPLITS if name in found}


def _verify(
    bundle: Bundle, subnets: list[_Subnet], request: BuildRequest, report: Callable[[str], None]
) -> dict[str, PointCheck]:
    """Every point against torch on the select and test pictures; refuses a point that differs."""
    splits = _splits(request, Recipe.from_dict(request.checkpoint.recipe))
    pictures = [request.source.picture(n) for split in splits.values() for n in split.names]
    labels = {name: split.labels for name, split in splits.items()}
    backend = open_backend("onnxruntime", bundle, BackendOptions(request.threads))
    checks = {}
    for subnet in subnets:
        for resolution, plain in subnet.by_resolution.items():
            point = bundle.point(point_name(subnet.width, resolution))
            reference = torch_logits(plain, bundle, point.size_hw, pictures)
            check = compare(point.name, reference, engine_logits(backend, bundle, point, pictures), labels)
            require_parity(check)
            report(
                f"{point.name}: agreement {check.agreement:.2%}, error {check.max_relative_error:.1e}, "
                + ", ".join(f"{split} {value:.3f}" for split, value in check.accuracy.items())
            )
            checks[point.name] = check
    return checks


def _self_test(bundle: Bundle, threads: int) -> dict[str, np.ndarray]:
    """Made-up pictures (never the data's) and what each point says of them."""
    draw = np.random.default_rng(2026)
    coarse = draw.integers(0, 256, (VECTOR_PICTURES, 6, 6, 3), np.uint8)
    pixels = np.stack([_enlarge(c) for c in coarse])
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads))
    rows = {f"logits/{p.name}": engine_logits(backend, bundle, p, list(pixels)) for p in bundle.manifest.points}
    return {"pixels": pixels, **rows}


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(coarse, (VECTOR_SIDE, VECTOR_SIDE), interpolation=cv2.INTER_CUBIC)


def _measured(point: OperatingPoint, check: PointCheck, checkpoint: Checkpoint) -> OperatingPoint:
    """The point with the engine's accuracy and the checkpoint's confidence calibration."""
    rows = [r for r in checkpoint.accuracy if r["width"] == point.width and r["resolution"] == point.size_hw[0]]
    row = rows[0] if rows else {}
    return replace(
        point, accuracy=check.accuracy,
        temperature=float(row.get("temperature", 1.0)), unsure_below=float(row.get("unsure_below", 0.0)),
    )  # fmt: skip
