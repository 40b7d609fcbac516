"""Separately trained models of one task -> one bundle: a point for each model, input size and precision.

Read, bring to one form, make a graph per input size, check against the original, measure on the user's pictures,
quantize with a gate, time, leave out what is dominated, pack. Weights that graphs share are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.family_int8 import Ranges, activations, calibrate, int8_structure, quantize_level, sensitive_layers
from converters.family_levels import Level, Size, make_levels
from converters.family_net import FamilyNet
from converters.family_pictures import PictureFiles, Pictures
from converters.family_sanity import check_sanity
from converters.int8_graph import QuantSpec
from converters.point_choice import drop_dominated, thin_out
from converters.point_latency import measure_latency_ms
from converters.self_test import self_test
from converters.shared_tensors import SharedTensors
from converters.shared_weights import recipe_values
from converters.verification import accuracy_of
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Manifest, OperatingPoint, Preprocessing, Program, Vectors, version_to_write
from edge_runtime.preprocess import TensorSpec, preprocess
from edge_runtime.tensor_recipe import GraphTensors
from zoo.pictures import Split

WEIGHTS, VECTORS = "weights.npz", "vectors/selftest.npz"
TOLERANCE = {"fp32": 0.02, "int8": 0.1}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """Figures that were measured elsewhere, for a bundle that is built without pictures."""

    what: str
    """In words, for the manifest: pictures, date, commit."""
    accuracy: Mapping[str, Mapping[str, float]]
    """Point -> split -> share right; points that are absent are not built."""
    ranges: Mapping[str, Ranges]
    """int8 point -> ranges of activations."""


@dataclass(frozen=True)
class FamilyRequest:
    """What to build from what."""

    nets: tuple[FamilyNet, ...]
    sizes: Mapping[str, tuple[Size, ...]]
    """Net -> input sizes."""
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    target: Path
    source: PictureFiles | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)
    """calib, select and test; calib's labels are not used."""
    measured: Measured | None = None
    """In place of pictures."""
    calibration: PictureFiles | None = None
    """Pictures for the ranges of int8; None takes those of calib."""
    precisions: tuple[str, ...] = ("fp32", "int8")
    quant: QuantSpec = field(default_factory=QuantSpec)
    threads: int = 1
    overwrite: bool = False
    drop_dominated: bool = True
    max_points: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sanity: bool = True
    """Try other preprocessing on a few pictures."""


@dataclass(frozen=True)
class FamilyResult:
    """What was built, and what was measured on the way."""

    path: Path
    points: tuple[OperatingPoint, ...]
    """Every measured point, those that were left out later included."""
    ranges: dict[str, Ranges]
    notes: tuple[str, ...]


def build_family(request: FamilyRequest, report: Report = lambda line: None) -> FamilyResult:
    """Make the bundle.

    Raises:
        ConversionError, DataError: the reason; nothing is left behind.
    """
    if len({net.name for net in request.nets}) < len(request.nets):
        raise ConversionError("two models have the same file name; rename one, since points are named after them")
    with BundleWriter(request.target, request.overwrite) as writer:
        return _Family(request, writer, report).run()


class _Family:
    """The state of one conversion."""

    def __init__(self, request: FamilyRequest, writer: BundleWriter, report: Report) -> None:
        self.request, self.writer, self.report = request, writer, report
        self.spec = TensorSpec(
            *(getattr(request.preprocessing, n) for n in ("mean", "std", "fit", "crop_share", "resize"))
        )
        self.tensors = SharedTensors()
        self.recipes: dict[str, GraphTensors] = {}
        self.programs: dict[str, Program] = {}
        self.points: dict[str, OperatingPoint] = {}
        self.ranges: dict[str, Ranges] = {}
        self.notes: list[str] = list(request.notes)

    def run(self) -> FamilyResult:
        request = self.request
        levels = make_levels(request.nets, request.sizes, len(request.labels), self.spec, self.report)
        self.notes += [
            f"{net.name}: the softmax at its end was taken off; the runtime has its own"
            for net in request.nets
            if net.softmax_removed
        ]
        for level in levels:
            self._add(level, "fp32", level.graph)
        self._measure([level.point("fp32") for level in levels], "fp32")
        if request.measured is None and request.sanity:
            self._check_sanity(levels)
        if "int8" in self.request.precisions:
            for net in self.request.nets:
                self._quantize([level for level in levels if level.net is net])
            self._gate(levels)
        if "fp32" not in self.request.precisions:
            self._drop_floats(levels)
        return self._finish()

    # programs, points, accuracy

    def _add(self, level: Level, precision: str, graph: onnx.ModelProto) -> None:
        name = level.point(precision)
        content, recipe = self.tensors.take_out(graph, level.net.name)
        self.writer.write(f"programs/{name}.onnx", content)
        tensors = self.writer.write_json(f"programs/{name}.tensors.json", recipe_values(recipe))
        self.recipes[name] = recipe
        self.programs[name] = Program(
            name, "onnxruntime", precision, f"programs/{name}.onnx", "image", "logits", tensors
        )
        self.points[name] = OperatingPoint(name, name, level.width, level.size_hw, level.madds, {"select": 0.0})

    def _remove(self, name: str) -> None:
        program = self.programs.pop(name)
        for file in (program.file, str(program.tensors)):
            self.writer.remove(file)
        del self.points[name], self.recipes[name]
        self.tensors.keep_only(list(self.recipes.values()))

    def _measure(self, names: list[str], precision: str) -> None:
        """Accuracy of points, through the runtime's own backend, or from what was measured elsewhere."""
        if self.request.measured is not None:
            for name in names:
                figures = self.request.measured.accuracy.get(name)
                if figures is None:
                    self._remove(name)
                else:
                    self.points[name] = replace(self.points[name], accuracy=dict(figures))
            return
        bundle = self._open()
        backend = open_backend("onnxruntime", bundle, BackendOptions(self.request.threads))
        for name in names:
            accuracy, right, total = {}, 0.0, 0
            for split, part in self.request.splits.items():
                logits = self._logits(backend, bundle, name, self._pictures(part.names))
                share = accuracy_of(logits, part.labels) if len(part) else 0.0
                right, total = right + share * len(part), total + len(part)
                if split != "calib" and len(part):
                    accuracy[split] = share
            accuracy["all"] = right / total
            self.points[name] = replace(self.points[name], accuracy=accuracy)
            self.report(f"{name}: " + ", ".join(f"{split} {share:.1%}" for split, share in accuracy.items()))
        backend.close()

    def _logits(self, backend, bundle: Bundle, name: str, pictures: Pictures) -> np.ndarray:  # type: ignore[no-untyped-def]
        runner = backend.load(bundle.point(name))
        rows = [np.zeros((0, len(self.request.labels)), np.float32)]
        try:
            for picture in pictures:
                preprocess(picture, bundle.spec, self.points[name].size_hw, out=runner.input)
                rows.append(runner.run().copy())
        finally:
            runner.close()
        return np.concatenate(rows)

    def _pictures(self, names: tuple[str, ...]) -> Pictures:
        assert self.request.source is not None
        return self.request.source.several(names)

    def _check_sanity(self, levels: list[Level]) -> None:
        bundle = self._open()
        backend = open_backend("onnxruntime", bundle, BackendOptions(self.request.threads))
        select = self.request.splits["select"]
        for net in self.request.nets:
            level = [level for level in levels if level.net is net][-1]
            runner = backend.load(bundle.point(level.point("fp32")))
            found = check_sanity(
                runner, self.spec, level.size_hw, self._pictures(select.names), select.labels, net.channels,
                len(self.request.labels),
            )  # fmt: skip
            runner.close()
            for line in found.lines:
                self.report(f"{net.name}: {line}")
            for warning in found.warnings:
                self.report(f"{net.name}: WARNING: {warning}")
                self.notes.append(f"{net.name}: {warning}")

    # int8

    def _quantize(self, levels: list[Level]) -> None:
        """The int8 graphs of one net."""
        structure = int8_structure(levels[-1].graph, self.request.quant)
        for level in levels:
            ranges = self._ranges(level, activations(structure))
            if ranges is not None:
                self.ranges[level.point("int8")] = ranges
        for level in levels:
            if level.point("int8") in self.ranges:
                self._add_int8(level, self.ranges[level.point("int8")], self.request.quant, structure)
        self.report(f"{levels[0].net.name}: int8 graphs of {len(levels)} sizes")

    def _add_int8(self, level: Level, ranges: Ranges, spec: QuantSpec, structure: onnx.ModelProto) -> None:
        family = [r for name, r in self.ranges.items() if name.startswith(f"{level.net.name}-r")]
        made = quantize_level(level.graph, ranges, spec, structure, family)
        self.ranges[level.point("int8")] = made.ranges
        self._add(level, "int8", made.proto)

    def _ranges(self, level: Level, names: list[str]) -> Ranges | None:
        """Ranges on real pictures at this size; None where a measurement elsewhere left the point out."""
        if self.request.measured is not None:
            return self.request.measured.ranges.get(level.point("int8"))
        if self.request.calibration is not None:
            pictures = self.request.calibration.several(self.request.calibration.names)
        else:
            pictures = self._pictures(self.request.splits["calib"].names)
        taken = Pictures(pictures.source, pictures.names[: self.request.quant.calib_pictures])
        return calibrate(level.graph, names, [preprocess(p, self.spec, level.size_hw) for p in taken])

    def _gate(self, levels: list[Level]) -> None:
        """Measure the int8 points; one that loses too much gets its sensitive layers back in float, or leaves."""
        made = [level for level in levels if level.point("int8") in self.points]
        self._measure([level.point("int8") for level in made], "int8")
        if self.request.measured is not None:
            return
        for level in made:
            spec = self.request.quant
            if self._drop(level) <= spec.max_drop:
                continue
            first = self._drop(level)
            layers = sensitive_layers(level.graph, self.ranges[level.point("int8")], spec.max_float_layers)
            spec = replace(spec, float_layers=layers)
            structure = int8_structure(level.graph, spec)
            self._add_int8(level, self._ranges(level, activations(structure)) or {}, spec, structure)
            self._measure([level.point("int8")], "int8")
            name = level.point("int8")
            if self._drop(level) <= spec.max_drop:
                self.notes.append(
                    f"{name}: {', '.join(layers)} stay float; with all in int8 it lost {first:.1%} on select"
                )
            else:
                self.notes.append(
                    f"{name} is left out: int8 loses {min(first, self._drop(level)):.1%} on select, allowed are "
                    f"{spec.max_drop:.1%}"
                )
                self._remove(name)
            self.report(self.notes[-1])

    def _drop(self, level: Level) -> float:
        points = [self.points[level.point(p)].accuracy["select"] for p in ("fp32", "int8")]
        return points[0] - points[1]

    def _drop_floats(self, levels: list[Level]) -> None:
        for level in levels:
            if level.point("int8") in self.points:
                self._remove(level.point("fp32"))

    # the end

    def _finish(self) -> FamilyResult:
        latency_ms = measure_latency_ms(self._open(), self.request.threads)
        self.points = {n: replace(p, latency_ms=latency_ms[n]) for n, p in self.points.items()}
        everything = tuple(self.points.values())
        kept = list(everything)
        if self.request.drop_dominated:
            kept, notes = drop_dominated(kept)
            self._note(notes)
        if self.request.max_points is not None:
            kept, notes = thin_out(kept, self.request.max_points)
            self._note(notes)
        for name in set(self.points) - {p.name for p in kept}:
            self._remove(name)
        vectors = self_test(self._open(), self.request.threads)
        self.writer.write_npz(VECTORS, vectors, compressed=True)
        tolerance = TOLERANCE["int8" if any(p.precision == "int8" for p in self.programs.values()) else "fp32"]
        path = self.writer.finish(replace(self._manifest(), vectors=Vectors(VECTORS, tolerance)))
        return FamilyResult(path, everything, self.ranges, tuple(self.notes))

    def _note(self, notes: list[str]) -> None:
        self.notes += notes
        for note in notes:
            self.report(note)

    def _open(self) -> Bundle:
        self.writer.write_npz(WEIGHTS, self.tensors.arrays)
        return self.writer.open(self._manifest())

    def _manifest(self) -> Manifest:
        request = self.request
        if request.measured is not None:
            splits = dict.fromkeys(("select", "test", "all"), request.measured.what)
        else:
            root = request.source.root.name if request.source is not None else ""
            splits = {n: f"{root}, {len(s)} pictures" for n, s in request.splits.items()}
            splits["all"] = f"{root}, {sum(len(s) for s in request.splits.values())} pictures, calib included"
        return Manifest(
            version_to_write(None), request.target.stem, "classification", request.labels, request.preprocessing,
            tuple(self.programs.values()), tuple(self.points.values()), {}, weights=WEIGHTS, splits=splits,
            provenance=dict(request.provenance), notes=tuple(self.notes),
        )  # fmt: skip
