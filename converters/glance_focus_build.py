"""Checkpoint of Glance and Focus -> bundle: export the parts, solve the exits through the engine, verify, pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.glance_focus import CONVERSIONS, SUFFIX, step_parts
from converters.glance_focus_exits import HELD_OUT, SolvedExits, gate_of, solve_exits
from converters.glance_focus_int8 import (
    INT8_CONVERSIONS,
    Attempt,
    Int8Part,
    attempts,
    describe,
    largest_drop,
    quantize_part,
)
from converters.glance_focus_scores import HELD_OUT_SCENES, SequenceScores
from converters.int8_graph import QuantSpec
from converters.self_test import self_test
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import EarlyExitRunner, LookClock
from edge_runtime.exit_records import EarlyExits, ExitSetting, LookParts
from edge_runtime.manifest import Manifest, OperatingPoint, Preprocessing, Program, Vectors, version_to_write
from zoo.checkpoint import Checkpoint
from zoo.focus_exits import NEVER
from zoo.gfnet import GFNet, step_madds
from zoo.gfnet_checkpoint import build_gfnet
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource

VECTORS = "vectors/selftest.npz"
VECTOR_TOLERANCE = {"fp32": 0.02, "int8": 0.1}
Report = Callable[[str], None]


@dataclass(frozen=True)
class FocusRequest:
    """What to build from what."""

    checkpoint: Checkpoint
    source: PictureSource
    target: Path
    backends: tuple[str, ...] = ("onnxruntime",)
    precisions: tuple[str, ...] = ("fp32",)
    quant: QuantSpec = field(default_factory=QuantSpec)
    """How int8 is done, and how much accuracy it may lose at every look and every exit."""
    budgets: int = 4
    """Points between one look and all looks."""
    max_loss: float = 0.02
    """Accuracy that the risk-controlled point may lose against all looks, with 95 % confidence."""
    unsure_share: float = 0.02
    """Share of held-out pictures that each point may answer "unsure", 0-1."""
    held_out_scenes: int = HELD_OUT_SCENES
    """Scenes of each held-out picture that exits are solved on; a picture that is shown as it is counts once."""
    threads: int = 1
    overwrite: bool = False
    provenance: dict[str, str] = field(default_factory=dict)


def build_focus(request: FocusRequest, report: Report = lambda line: None) -> Path:
    """Make a bundle: a point for one look, for all looks, for each budget between, and one that bounds the loss.

    Raises:
        ConversionError: a part cannot be exported, or an engine differs from torch; nothing is left behind.
        CheckpointError: the checkpoint is of another kind.
    """
    model, recipe = build_gfnet(request.checkpoint)
    if not all(encoder.norms.entries for encoder in model.encoders):
        raise ConversionError("the checkpoint is not calibrated; finish its training (python -m zoo focus) first")
    with BundleWriter(request.target, request.overwrite) as writer:
        return _FocusBuild(request, model, recipe, writer, report).run()


class _FocusBuild:
    """The state of one conversion."""

    def __init__(
        self, request: FocusRequest, model: GFNet, recipe: GlanceRecipe, writer: BundleWriter, report: Report
    ) -> None:
        self.request, self.model, self.recipe, self.writer, self.report = request, model, recipe, writer, report
        self.splits = request.source.splits(recipe.calib_pictures, recipe.select_pictures)
        self.labels = {name: split.labels for name, split in self.splits.items()}
        self.madds = step_madds(model.design, len(request.checkpoint.classes))
        views = Views(recipe, request.source, self.splits["train"].names)
        self.scorer = SequenceScores(model, views, self.splits, request.held_out_scenes, request.threads, report)
        self.exported = step_parts(model)
        self.float_graphs: dict[str, bytes] = {}
        """Part -> its float ONNX file, which int8 starts from on every engine."""
        self.programs: list[Program] = []
        self.parts: list[LookParts] = []
        self.points: list[OperatingPoint] = []
        self.settings: list[ExitSetting] = []
        self.temperatures: tuple[float, ...] = (1.0,) * model.design.steps
        self.notes: list[str] = []

    def run(self) -> Path:
        """All steps in order."""
        for backend in self.request.backends:
            self._export(backend)
        never = ExitSetting("all", (looks := self.model.design.steps), (NEVER,) * (looks - 1), float(looks),
                            (*(0.0,) * (looks - 1), 1.0))  # fmt: skip
        self.settings = [never]  # until the exits are solved
        self.points = [self._point("all", parts, self.madds[-1], {"select": 0.0}, "all") for parts in self.parts[:1]]
        calibrate = "int8" in self.request.precisions
        scores = self._play(self.request.backends[0], self.parts[0], check=True, calibrate=calibrate)
        for backend, parts in zip(self.request.backends[1:], self.parts[1:], strict=True):
            self._play(backend, parts, check=True, scenes=1)  # they answer alike, or it raises
        self._solve(scores)
        if "int8" in self.request.precisions:
            self._quantize()
        if "fp32" not in self.request.precisions:
            self._drop_floats()
        self._time(self.writer.open(self._manifest()))
        vectors = self_test(self.writer.open(self._manifest()), self.request.threads)
        self.writer.write_npz(VECTORS, vectors, compressed=True)
        precision = "int8" if any(p.precision == "int8" for p in self.programs) else "fp32"
        return self.writer.finish(replace(self._manifest(), vectors=Vectors(VECTORS, VECTOR_TOLERANCE[precision])))

    def _export(self, backend: str) -> None:
        names = {}
        for part in self.exported:
            name = f"{part.name}-{backend}"
            content = CONVERSIONS[backend](part)
            if backend == "onnxruntime":
                self.float_graphs[part.name] = content
            file = self.writer.write(f"programs/{part.name}-fp32.{SUFFIX[backend]}", content)
            self.programs.append(Program(name, backend, "fp32", file, part.inputs[0], part.outputs[0]))
            names[part.name] = name
            self.report(f"{backend}: exported {part.name}, {len(content) / 1e6:.2f} MB")
        looks = range(1, self.model.design.steps + 1)
        classifiers = tuple(names.get("classifier") or names[f"classifier{look}"] for look in looks)
        self.parts.append(LookParts(names["glance"], names["policy"], names["focus"], classifiers))

    def _play(self, engine: str, parts: LookParts, **options: Any) -> dict[str, np.ndarray]:
        """Split -> scores (looks, scenes, classes); options as `SequenceScores.play`."""
        return self.scorer.play(self.writer.open(self._manifest()), engine, parts, **options)

    def _solve(self, scores: dict[str, np.ndarray]) -> None:
        """Temperatures and exits on held-out pictures of the first engine; accuracy of each on what is measured."""
        request = self.request
        self.solved = solve_exits(
            scores, self.labels, self.madds, request.budgets, request.max_loss, self.report,
            unsure_share=request.unsure_share,
        )  # fmt: skip
        self.temperatures = self.solved.temperatures
        self.settings, self.points = [], []
        self._add_plans(self.solved, "", list(zip(request.backends, self.parts, strict=True)))
        held = [name for name in HELD_OUT if name in scores]
        pictures = sum(len(self.splits[name]) for name in held)
        several = len(self.scorer.scenes) > 1
        self.notes += [
            f"exits: solved on {pictures} held-out pictures ({', '.join(held)})"
            + (f", {len(self.scorer.scenes)} scenes of each" if several else "")
            + "; costs are multiply-adds",
            f"safe: loses at most {request.max_loss:g} of the accuracy of all looks, with 95 % confidence"
            + ("; solved on one scene of each picture, since the bound asks for independent draws" if several else ""),
        ]

    def _add_plans(self, solved: SolvedExits, suffix: str, sets: list[tuple[str, LookParts]]) -> None:
        """A setting for each plan, and a point for each plan and set of parts."""
        self.settings += [
            ExitSetting(
                name + suffix, plan.limit, plan.thresholds[: plan.limit - 1], plan.looks, plan.shares[: plan.limit]
            )
            for name, plan in solved.plans.items()
        ]
        for backend, parts in sets:
            engine = "" if backend == self.request.backends[0] else f"-{backend}"
            for name, plan in solved.plans.items():
                accuracy = solved.accuracy[name] or {"select": 0.0}
                self.points.append(
                    self._point(
                        f"{name}{suffix}{engine}", parts, round(plan.cost), accuracy, name + suffix,
                        solved.unsure_below[name],
                    )
                )  # fmt: skip

    def _point(
        self, name: str, parts: LookParts, madds: int, accuracy: dict[str, float], setting: str,
        unsure_below: float = 0.0,
    ) -> OperatingPoint:  # fmt: skip
        side = self.model.design.picture
        return OperatingPoint(
            name, parts.glance, 1.0, (side, side), madds, accuracy, unsure_below=unsure_below, exit=setting
        )  # fmt: skip

    def _quantize(self) -> None:
        """Add int8 points, unless the sequence loses too much at a look or an exit; say which parts stay float."""
        first, quant = self.request.backends[0], self.request.quant
        if not self.solved.gate:
            raise ConversionError(
                "int8 is judged on the select split, which is empty: train with select_pictures above 0"
            )
        for attempt in attempts(quant):
            quantized = self._quantized(attempt)
            parts = self._stage(first, quantized)
            scores = self._play(first, parts)
            request = self.request
            found = solve_exits(scores, self.labels, self.madds, request.budgets, request.max_loss, lambda line: None,
                                self.temperatures, request.unsure_share)  # fmt: skip
            where, drop = largest_drop(self.solved.gate, found.gate)
            what = describe(quantized, [part.name for part in self.exported])
            self.report(f"int8, {what}: loses at most {drop:.2%} on select, at {where}")
            if drop <= quant.max_drop:
                break
            self._unstage(parts)
        else:
            self._say(
                f"int8 is left out: even with the glance alone {where} loses {drop:.2%} on select, "
                f"{quant.max_drop:.2%} may be lost; all parts stay float"
            )
            return
        self._say(f"int8: {what}")
        sets = [(first, parts), *self._other_engines(quantized, found)]
        self._add_plans(found, "-int8", sets)

    def _quantized(self, attempt: Attempt) -> dict[str, Int8Part]:
        found = {}
        for part in (part for part in self.exported if part.name in attempt.parts):
            if part.name not in self.float_graphs:
                self.float_graphs[part.name] = CONVERSIONS["onnxruntime"](part)
            graph, images = self.float_graphs[part.name], self.scorer.seen[part.name]
            found[part.name] = quantize_part(part, graph, images, self.request.quant, attempt.float_layers)
        return found

    def _other_engines(self, quantized: dict[str, Int8Part], solved: SolvedExits) -> list[tuple[str, LookParts]]:
        """The same integers on the other engines, each with its own gate."""
        kept = []
        for backend in self.request.backends[1:]:
            parts = self._stage(backend, quantized)
            scores = self._play(backend, parts, splits=("select",))
            gate = gate_of(scores, self.labels, solved.plans, self.madds, self.temperatures)
            where, drop = largest_drop(self.solved.gate, gate)
            self.report(f"int8 on {backend}: loses at most {drop:.2%} on select, at {where}")
            if drop > self.request.quant.max_drop:
                self._unstage(parts)
                self._say(f"int8 is left out on {backend}: {where} loses {drop:.2%} on select; its parts stay float")
            else:
                kept.append((backend, parts))
        return kept

    def _stage(self, backend: str, quantized: dict[str, Int8Part]) -> LookParts:
        """Write int8 encoders and list their set of parts."""
        floats = self.parts[self.request.backends.index(backend)]
        names = {}
        for name, found in quantized.items():
            names[name] = f"{name}-int8-{backend}"
            content = INT8_CONVERSIONS[backend](found)
            file = self.writer.write(f"programs/{name}-int8.{SUFFIX[backend]}", content)
            part = found.part
            self.programs.append(Program(names[name], backend, "int8", file, part.inputs[0], part.outputs[0]))
            self.report(f"{backend}: quantized {name}, {len(content) / 1e6:.2f} MB")
        self.parts.append(replace(floats, **names))
        return self.parts[-1]

    def _unstage(self, parts: LookParts) -> None:
        """Take a set of parts out again, with the programs that no other set uses."""
        self.parts.remove(parts)
        used = {name for p in self.parts for name in (p.glance, p.policy, p.focus, *p.classifiers)}
        for program in [p for p in self.programs if p.name not in used]:
            self.programs.remove(program)
            self.writer.remove(program.file)

    def _drop_floats(self) -> None:
        """A bundle of int8 alone; float points stay on engines whose int8 was left out."""
        precision = {p.name: p.precision for p in self.programs}
        engine = {p.name: p.backend for p in self.programs}
        has_int8 = {engine[p.glance] for p in self.parts if precision[p.glance] == "int8"}
        for parts in [p for p in self.parts if precision[p.glance] == "fp32" and engine[p.glance] in has_int8]:
            self.points = [p for p in self.points if p.program != parts.glance]
            self._unstage(parts)
        used = {p.exit for p in self.points}
        self.settings = [s for s in self.settings if s.name in used]

    def _say(self, note: str) -> None:
        """For the user now, and in the manifest for later."""
        self.report(note)
        self.notes.append(note)

    def _described(self, split: str) -> str:
        """What a split is made of."""
        pictures, scenes = len(self.splits[split]), len(self.scorer.scenes)
        if split in HELD_OUT and scenes > 1:
            return f"{pictures} pictures, {scenes} scenes of each"
        return f"{pictures} {self.recipe.data}"

    def _time(self, bundle: Bundle) -> None:
        """Expected milliseconds of each point here, from the usual time of a glance and of a patch."""
        latency_ms: dict[str, float] = {}
        for name in self.request.backends:
            backend = open_backend(name, bundle, BackendOptions(self.request.threads))
            for point in bundle.points_for(name):
                runner = backend.load(point)
                assert isinstance(runner, EarlyExitRunner)
                runner.look_clock = LookClock()
                for _ in range(4):
                    runner.warm_up()
                latency_ms[point.name] = max(1e-3, runner.expected_ms)
            backend.close()
        self.points = [replace(point, latency_ms=latency_ms[point.name]) for point in self.points]

    def _manifest(self) -> Manifest:
        recipe, design = self.recipe, self.model.design
        classifier = self.model.classifier
        exits = EarlyExits(
            design.patch, design.steps, design.classifier, self.model.policy.hidden,
            getattr(classifier, "memory_channels", 0), self.temperatures, tuple(self.parts), tuple(self.settings),
        )  # fmt: skip
        return Manifest(
            version_to_write(None), self.request.target.stem, "classification", tuple(self.request.checkpoint.classes),
            Preprocessing(tuple(recipe.mean), tuple(recipe.std)), tuple(self.programs), tuple(self.points), {},
            splits={name: self._described(name) for name in self.splits},
            provenance={**self.request.provenance, "recipe": recipe.variant or design.backbone},
            notes=tuple(self.notes), exits=exits,
        )  # fmt: skip
