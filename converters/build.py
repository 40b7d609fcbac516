"""Checkpoint -> bundle: materialise, fold, export, quantize, verify with the device's engine, pack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.bundle_writer import BundleWriter
from converters.delegation import MIN_DELEGATED
from converters.errors import ConversionError
from converters.executorch_build import ExecutorchJob, add_executorch
from converters.executorch_subset import thin_programs
from converters.int8 import (
    Int8Subnet,
    exact_drops,
    int8_name,
    point_tensors,
    quantize_width,
    quantize_with_gate,
    with_float_layers,
)  # fmt: skip
from converters.int8_graph import QuantSpec, external_names
from converters.norm_rounding import TABLE_STEP, require_fine_steps
from converters.onnx_export import externalise
from converters.point_choice import choose_points
from converters.point_latency import measure_latency_ms
from converters.self_test import self_test
from converters.shared_weights import full_store, recipe_values
from converters.subnets import Subnet, channel_rule, convert_width, float_point, size_of_point, table_key
from converters.task import Classification, Task
from converters.verification import PointCheck, engine_outputs, require_parity, torch_outputs
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Manifest, OperatingPoint, Preprocessing, Program, Vectors, version_to_write
from edge_runtime.preprocess import TensorSpec
from edge_runtime.tensor_recipe import GraphTensors
from zoo import materialise
from zoo.checkpoint import Checkpoint
from zoo.clip_source import ClipSource
from zoo.pictures import PictureSource
from zoo.slim_net import Size

WEIGHTS, TABLES, VECTORS = "weights.npz", "tables.npz.z", "vectors/selftest.npz"
MEASURED_SPLITS = ("select", "test")
VECTOR_TOLERANCE = {"fp32": 0.02, "int8": 0.1}
Report = Callable[[str], None]


@dataclass(frozen=True)
class BuildRequest:
    """What to build from what."""

    checkpoint: Checkpoint
    source: PictureSource | ClipSource
    """What the checkpoint's recipe was trained on; of a network for clips they stand where pictures are named below."""
    target: Path
    name: str
    precisions: tuple[str, ...] = ("fp32",)
    quant: QuantSpec = field(default_factory=QuantSpec)
    threads: int = 1
    overwrite: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = ("onnxruntime",)
    min_delegated: float = MIN_DELEGATED
    cache_folder: Path | None = None
    """For lowered ExecuTorch programs; None takes the user's."""
    table_step: float = TABLE_STEP
    """What normalisation statistics are rounded to; see norm_rounding.py."""
    drop_dominated: bool = False
    """Leave out points that another one beats here; only where this machine is the kind that the bundle is for."""
    max_points: int | None = None
    """Of each engine; None keeps all."""
    kind: Callable[[Checkpoint, PictureSource | ClipSource], Task] = Classification
    """What the checkpoint was trained for."""


def build(request: BuildRequest, report: Report = lambda line: None) -> tuple[Path, list[PointCheck]]:
    """Make a bundle: a point per (width, size, precision, engine).

    For onnxruntime a graph per width, frames and precision; for ExecuTorch a program per precision, a method per point.

    Args:
        request: the checkpoint, pictures and target.
        report: receives a line per step.
    Returns:
        the bundle's path and how each point does in the engine.
    Raises:
        ConversionError: the export fails or a float point differs from torch; nothing is left behind.
    """
    task = request.kind(request.checkpoint, request.source)
    if not len(task.model.norm_bank):
        raise ConversionError("the checkpoint is not calibrated; finish its training (python -m zoo train) first")
    with BundleWriter(request.target, request.overwrite) as writer:
        return _Build(request, task, writer, report).run()


class _Build:
    """The state of one conversion."""

    def __init__(self, request: BuildRequest, task: Task, writer: BundleWriter, report: Report) -> None:
        self.request, self.task, self.writer, self.report = request, task, writer, report
        self.model, self.recipe = task.model, task.recipe
        self.quant = replace(request.quant, float_layers=(*request.quant.float_layers, *task.float_layers))
        self.store = full_store(self.model)
        self.tables: dict[str, np.ndarray] = {}
        self.stored_int8: dict[str, np.ndarray] = {}
        self.quantized: dict[str, Int8Subnet] = {}
        self.subnets: list[Subnet] = []
        self.programs: list[Program] = []
        self.points: list[OperatingPoint] = []
        self.checks: list[PointCheck] = []
        self.notes: list[str] = []
        self._recipes: dict[str, GraphTensors] = {}  # of each program

    def run(self) -> tuple[Path, list[PointCheck]]:
        """All steps in order."""
        for width in sorted(self.recipe.widths):
            self._convert(width)
        if "onnxruntime" in self.request.backends:
            self._finish_onnx()
        else:
            self._drop_onnx()
        if "executorch" in self.request.backends:
            self._add_executorch()
        bundle = self._open()
        latency_ms: dict[str, float] = {}
        for name in self.request.backends:
            latency_ms |= measure_latency_ms(bundle, self.request.threads, name)
        self.points = [replace(p, latency_ms=latency_ms[p.name]) for p in self.points]
        self._choose_points()
        vectors = self_test(self._open(), self.request.threads)
        self.writer.write_npz(VECTORS, vectors, compressed=True)
        precision = "int8" if "int8" in self.request.precisions else "fp32"
        final = replace(self._manifest(), vectors=Vectors(VECTORS, VECTOR_TOLERANCE[precision]))
        return self.writer.finish(final), self.checks

    def _choose_points(self) -> None:
        """Leave out what the request does not want, with its programs, methods, weights and tables."""
        engine_of = {p.name: p.backend for p in self.programs}
        kept, notes = choose_points(self.points, engine_of, self.request.drop_dominated, self.request.max_points)
        self.notes += notes
        for note in notes:
            self.report(note)
        if len(kept) < len(self.points):
            self.points = kept
            self._remove_unused()
            if "onnxruntime" in self.request.backends:
                self._write_arrays()
        # Also where nothing left here: the accuracy gate and --precision may have taken points of a .pte.
        smaller = thin_programs(self.programs, self.points, self.writer.read, self.report)
        for file, content in smaller.items():
            self.writer.write(file, content)

    def _finish_onnx(self) -> None:
        """Verify the float points, add the int8 ones."""
        self._write_arrays()
        self._verify_floats()
        if "int8" in self.request.precisions:
            for subnet in self.subnets:
                self._quantize(subnet)
        if "fp32" not in self.request.precisions:
            self._drop_floats()
        self._write_arrays()

    def _drop_onnx(self) -> None:
        """A bundle for ExecuTorch alone: its programs hold their own weights."""
        for program in self.programs:
            self.writer.remove(program.file)
            self.writer.remove(str(program.tensors))
        self.programs, self.points = [], []

    def _add_executorch(self) -> None:
        try:
            part = add_executorch(self._executorch_job(self.request.precisions))
        except ConversionError as error:
            if not {"fp32", "int8"} <= set(self.request.precisions):
                raise
            self.notes.append(f"int8 for ExecuTorch is left out: {error}")
            self.report(self.notes[-1])
            part = add_executorch(self._executorch_job(("fp32",)))
        listed = {p.file for p in part.programs}
        for file in (f"programs/all-{precision}.pte" for precision in ("fp32", "int8")):
            if file not in listed and (self.writer.root / file).exists():
                self.writer.remove(file)
        self.programs, self.points = self.programs + part.programs, self.points + part.points
        self.checks, self.notes = self.checks + part.checks, self.notes + part.notes

    def _executorch_job(self, precisions: tuple[str, ...]) -> ExecutorchJob:
        request = self.request
        splits = {n: self.task.splits[n] for n in self._measured()}
        return ExecutorchJob(
            self.subnets, precisions, self.quant,
            lambda subnet, accuracy: self.quantized.get(subnet.name) or self._quantize_exactly(subnet, accuracy),
            lambda found, size: point_tensors(found, self.store.arrays, self.tables, size),
            {n: self.task.pictures(n) for n in splits}, {n: s.labels for n, s in splits.items()},
            self.writer.write, lambda programs, points: self.writer.open(self._manifest(programs, points)),
            self.task.finished, self.report, request.threads, request.min_delegated, request.cache_folder,
        )  # fmt: skip

    def _convert(self, width: float) -> None:
        started = time.monotonic()
        converted = convert_width(
            self.model, width, self.recipe.sizes(), self.store, self.request.table_step, self.task.free_sides
        )
        for subnet in converted:
            names = {t.name for t in subnet.recipe.tensors}
            self._add_program(subnet, "fp32", externalise(subnet.template, names), subnet.recipe)
            self.tables.update(subnet.tables)
            self.points += [replace(float_point(subnet, s), anchors=self.task.anchors(s)) for s in subnet.by_size]
        self.subnets += converted
        graphs = "" if len(converted) == 1 else f" as {len(converted)} graphs, {', '.join(s.name for s in converted)},"
        self.report(
            f"exported width {width:.2f}{graphs} in {time.monotonic() - started:.0f} s: "
            f"{len(converted[0].pairs)} norms folded"
        )

    def _add_program(self, subnet: Subnet, precision: str, graph: bytes, recipe: GraphTensors) -> None:
        name = f"{subnet.name}-{precision}"
        file = self.writer.write(f"programs/{name}.onnx.z", graph)
        tensors = self.writer.write_json(f"programs/{name}.tensors.json.z", recipe_values(recipe))
        program = Program(name, "onnxruntime", precision, file, tensors=tensors)
        self.programs = [p for p in self.programs if p.name != name] + [program]
        self._recipes[name] = recipe

    def _write_arrays(self) -> None:
        """Weights and tables, as far as some program needs them."""
        recipes, stored = list(self._recipes.values()), {**self.store.arrays, **self.stored_int8}
        used = {name for recipe in recipes for name in recipe.sources}
        self.writer.write_npz(WEIGHTS, {name: array for name, array in stored.items() if name in used})
        keys = {str(p.table) for p in self.points} | {r.norms.group for r in recipes if r.norms is not None}
        self.writer.write_npz(TABLES, {k: v for k, v in self.tables.items() if k.partition("/")[0] in keys})

    def _manifest(self, programs: list[Program] | None = None, points: list[OperatingPoint] | None = None) -> Manifest:
        """With these programs and points, or with all so far."""
        request, task = self.request, self.task
        onnx = "onnxruntime" in request.backends
        where, what = request.source.root.name, task.examples
        splits = {n: f"{where}, {len(task.splits[n])} {what}" for n in self._measured()}
        return Manifest(
            version_to_write(task.clip, task.boxes), request.name, task.name, tuple(request.checkpoint.classes),
            self._preprocessing(), tuple(self.programs if programs is None else programs),
            tuple(self.points if points is None else points), {},
            channel_rule=channel_rule(self.model, self.recipe),
            weights=WEIGHTS if onnx else None, tables=TABLES if onnx else None, splits=splits, clip=task.clip,
            boxes=task.boxes, notes=tuple(self.notes),
            provenance={"recipe": task.recipe_text, **request.provenance},
        )  # fmt: skip

    def _preprocessing(self) -> Preprocessing:
        mean, std = (tuple(float(v) for v in values) for values in (self.recipe.mean, self.recipe.std))
        return Preprocessing(mean, std)

    def _measured(self) -> list[str]:
        return [name for name in MEASURED_SPLITS if name in self.task.splits]

    def _measured_pictures(self) -> list[np.ndarray]:
        return [picture for name in self._measured() for picture in self.task.pictures(name)]

    def _open(self) -> Bundle:
        return self.writer.open(self._manifest())

    def _verify_floats(self) -> None:
        """Every float point against torch on the select and test pictures; refuses a point that differs."""
        bundle, pictures = self._open(), self._measured_pictures()
        backend = open_backend("onnxruntime", bundle, BackendOptions(self.request.threads))
        references = {table_key(s.width, size): plain for s in self.subnets for size, plain in s.by_size.items()}
        for index, point in enumerate(self.points):
            reference = torch_outputs(references[str(point.table)], bundle, point.size, pictures)
            found = engine_outputs(backend, bundle, point, pictures)
            check = self.task.check(point, reference, found, self._measured())
            require_parity(check)
            self._accept(check)
            self._check_rounding(bundle, point, check)
            self.points[index] = self.task.finished(point, check)

    def _check_rounding(self, bundle: Bundle, point: OperatingPoint, check: PointCheck) -> None:
        """The point's accuracy with the stored statistics against that with the checkpoint's."""
        exact = materialise(self.model, width=point.width, resolution=size_of_point(point))
        select = self.task.pictures("select")
        accuracy = self.task.accuracy(torch_outputs(exact, bundle, point.size, select), point, "select")
        require_fine_steps(point.name, accuracy, check.accuracy["select"], len(select), self.request.table_step)

    def _accept(self, check: PointCheck) -> None:
        self.checks.append(check)
        self.report(check.summary())

    def _quantize(self, subnet: Subnet) -> None:
        """Add the int8 points of a width that lose no more than the spec allows."""
        select = self.task.pictures("select")
        floats = {size_of_point(p): p for p in self.points if p.program == f"{subnet.name}-fp32"}

        def drops_of(found: Int8Subnet) -> dict[Size, float]:
            self._stage(found, floats)
            bundle = self._open()
            backend = open_backend("onnxruntime", bundle, BackendOptions(self.request.threads))
            drops = {}
            for size, point in floats.items():
                found_point = bundle.point(int8_name(point))
                outputs = engine_outputs(backend, bundle, found_point, select)
                drops[size] = point.accuracy["select"] - self.task.accuracy(outputs, found_point, "select")
            return drops

        chosen, drops = self._gate(subnet, drops_of)
        self.quantized[subnet.name] = chosen
        self._stage(chosen, floats)
        floating = [name for name in chosen.spec.float_layers if name not in self.task.float_layers]
        if floating:
            self.notes.append(f"{subnet.name} int8: {', '.join(floating)} stay float")
        self._check_int8(floats, drops)

    def _quantize_exactly(self, subnet: Subnet, accuracy: dict[Size, float]) -> Int8Subnet:
        """A width for ExecuTorch alone; its answers are computed in float, since this processor may saturate."""
        labels, spec = self.task.splits["select"].labels, self._tensor_spec()
        pictures = self.task.pictures("select")

        def drops(found: Int8Subnet) -> dict[Size, float]:
            return exact_drops(found, accuracy, self.store.arrays, self.tables, pictures, labels, spec)

        return self._gate(subnet, drops)[0]

    def _gate(
        self, subnet: Subnet, drops_of: Callable[[Int8Subnet], dict[Size, float]]
    ) -> tuple[Int8Subnet, dict[Size, float]]:
        """The width in int8, with as many float layers as the allowed loss needs."""
        calibration, spec = self.task.pictures("calib"), self._tensor_spec()
        gammas = subnet.gammas(self.model)

        def quantize(quant: QuantSpec) -> Int8Subnet:
            return quantize_width(subnet, self.store.arrays, self.tables, gammas, calibration, spec, quant)

        def float_layers_of(quant: QuantSpec, size: Size, count: int) -> QuantSpec:
            return with_float_layers(subnet, size, quant, count, calibration, spec, self.task.change)

        return quantize_with_gate(quantize, drops_of, float_layers_of, self.quant, self.report)

    def _tensor_spec(self) -> TensorSpec:
        return TensorSpec.from_facts(self._preprocessing())

    def _stage(self, found: Int8Subnet, floats: dict[Size, OperatingPoint]) -> None:
        """Write a quantized width and list its points, replacing an earlier attempt."""
        graph = externalise(found.graph.proto, external_names(found.graph.recipe))
        self._add_program(found.subnet, "int8", graph, found.graph.recipe)
        self.stored_int8.update(found.stored)
        self.tables.update(found.tables)
        names, program = {int8_name(p) for p in floats.values()}, f"{found.subnet.name}-int8"
        self.points = [p for p in self.points if p.name not in names]
        self.points += [replace(p, name=int8_name(p), program=program) for p in floats.values()]
        self._write_arrays()

    def _check_int8(self, floats: dict[Size, OperatingPoint], drops: dict[Size, float]) -> None:
        """Measure the int8 points on every split; leave out those that lose too much, and say so."""
        bundle = self._open()
        backend = open_backend("onnxruntime", bundle, BackendOptions(self.request.threads))
        pictures = self._measured_pictures()
        for size, point in floats.items():
            name = int8_name(point)
            index = next(i for i, p in enumerate(self.points) if p.name == name)
            if drops[size] > self.request.quant.max_drop:
                self.notes.append(f"{name} is left out: it loses {drops[size]:.2%} on select")
                self.report(self.notes[-1])
                del self.points[index]
                continue
            reference = engine_outputs(backend, bundle, point, pictures)
            found = engine_outputs(backend, bundle, self.points[index], pictures)
            check = self.task.check(self.points[index], reference, found, self._measured())
            self._accept(check)
            self.points[index] = self.task.finished(self.points[index], check)

    def _drop_floats(self) -> None:
        """A bundle of int8 alone; a float point stays where its int8 one was left out."""
        has_int8 = {p.table for p in self.points if p.name.endswith("-int8")}
        self.points = [p for p in self.points if p.name.endswith("-int8") or p.table not in has_int8]
        self._remove_unused()

    def _remove_unused(self) -> None:
        """Take out programs that no point uses."""
        used = {p.program for p in self.points}
        gone = [p for p in self.programs if p.name not in used]
        self.programs = [p for p in self.programs if p.name in used]
        for program in gone:
            self._recipes.pop(program.name, None)
            for file in filter(None, (program.file, program.tensors)):
                self.writer.remove(file)
