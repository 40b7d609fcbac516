"""Checkpoint of Glance and Focus -> bundle: export the parts, solve the exits through the engine, verify, pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.glance_focus import CONVERSIONS, SUFFIX, step_parts
from converters.self_test import self_test
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import Array, EarlyExitRunner, LookClock, shrink
from edge_runtime.early_exit_backend import EarlyExitBackend, ProgramParts
from edge_runtime.exit_records import EarlyExits, ExitSetting, LookParts
from edge_runtime.manifest import SCHEMA_VERSION, Manifest, OperatingPoint, Preprocessing, Program, Vectors
from edge_runtime.preprocess import preprocess
from zoo.checkpoint import Checkpoint
from zoo.focus_exits import NEVER, Answers, ExitPlan, control_risk, fit_temperatures, plan_budgets, play
from zoo.focus_patches import PolicyPlaces
from zoo.gfnet import GFNet, step_madds
from zoo.gfnet_checkpoint import build_gfnet
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource, Split

VECTORS, VECTOR_TOLERANCE = "vectors/selftest.npz", 0.02
MIN_AGREEMENT = 0.99  # a place on the border of two pixels may round to the other one and move a patch by a pixel
MAX_TYPICAL_ERROR = 1e-3  # of the largest logit; the median over pictures, for the same reason
HELD_OUT, MEASURED = ("calib", "select"), ("select", "test")
Report = Callable[[str], None]


@dataclass(frozen=True)
class FocusRequest:
    """What to build from what."""

    checkpoint: Checkpoint
    source: PictureSource
    target: Path
    backends: tuple[str, ...] = ("onnxruntime",)
    budgets: int = 4
    """Points between one look and all looks."""
    max_loss: float = 0.02
    """Accuracy that the risk-controlled point may lose against all looks, with 95 % confidence."""
    threads: int = 1
    overwrite: bool = False
    provenance: dict[str, str] = field(default_factory=dict)


class _Recorder:
    """Parts that keep the scores of each look."""

    def __init__(self, parts: ProgramParts) -> None:
        self._parts, self.scores = parts, list[Array]()
        self.encode, self.place, self.close = parts.encode, parts.place, parts.close

    def answer(self, look: int, vector: Array, memory: Array) -> tuple[Array, Array]:
        """As the parts'; keeps a copy."""
        scores, memory = self._parts.answer(look, vector, memory)
        self.scores.append(scores[0].copy())
        return scores, memory


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
        self.views = Views(recipe, request.source, self.splits["train"].names)
        self.madds = step_madds(model.design, len(request.checkpoint.classes))
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
        looks = self.model.design.steps
        self._set_plans({"all": ExitPlan((NEVER,) * (looks - 1), 0.0, looks, 0.0, (*(0.0,) * (looks - 1), 1.0))}, {})
        scores = self._engine_scores(self.writer.open(self._manifest()))
        self._solve(scores)
        bundle = self.writer.open(self._manifest())
        self._time(bundle)
        vectors = self_test(self.writer.open(self._manifest()), self.request.threads)
        self.writer.write_npz(VECTORS, vectors, compressed=True)
        return self.writer.finish(replace(self._manifest(), vectors=Vectors(VECTORS, VECTOR_TOLERANCE)))

    def _export(self, backend: str) -> None:
        names = {}
        for part in step_parts(self.model):
            name = f"{part.name}-{backend}"
            content = CONVERSIONS[backend](part)
            file = self.writer.write(f"programs/{part.name}-fp32.{SUFFIX[backend]}", content)
            self.programs.append(Program(name, backend, "fp32", file, part.inputs[0], part.outputs[0]))
            names[part.name] = name
            self.report(f"{backend}: exported {part.name}, {len(content) / 1e6:.2f} MB")
        looks = range(1, self.model.design.steps + 1)
        classifiers = tuple(names.get("classifier") or names[f"classifier{look}"] for look in looks)
        self.parts.append(LookParts(names["glance"], names["policy"], names["focus"], classifiers))

    def _engine_scores(self, bundle: Bundle) -> dict[str, dict[str, np.ndarray]]:
        """Backend -> split -> scores (looks, pictures, classes) of all looks, compared with torch's."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, parts in zip(self.request.backends, self.parts, strict=True):
            backend = open_backend(name, bundle, BackendOptions(self.request.threads))
            assert isinstance(backend, EarlyExitBackend)
            recorder = _Recorder(backend.parts(parts.glance))
            point = next(p for p in bundle.manifest.points if p.program == parts.glance)
            exits = bundle.manifest.exits
            assert exits is not None
            setting = exits.setting("all")
            runner = EarlyExitRunner(recorder, exits, setting, point.size_hw, len(bundle.manifest.labels))
            found[name] = {}
            for split in sorted({*HELD_OUT, *MEASURED} & set(self.splits)):
                found[name][split] = self._split_scores(
                    runner, recorder, bundle, self.splits[split], f"{name}: {split}"
                )
            backend.close()
        return found

    def _split_scores(
        self, runner: EarlyExitRunner, recorder: _Recorder, bundle: Bundle, split: Split, where: str
    ) -> np.ndarray:
        rows, expected = [], []
        for at in range(0, len(split), 100):
            inputs = []
            for picture in self.views.evaluation(split.names[at : at + 100]):
                preprocess(picture, bundle.spec, runner.input.shape[2:], out=runner.input)
                recorder.scores.clear()
                runner.run()
                rows.append(np.stack(recorder.scores))
                inputs.append(runner.input.copy())
            expected.append(self._torch_scores(np.concatenate(inputs)))
        if not rows:
            return np.zeros((self.model.design.steps, 0, len(bundle.manifest.labels)), np.float32)
        scores = np.stack(rows, 1)
        self._require_parity(scores, np.concatenate(expected, 1), where)
        return scores

    @torch.no_grad()
    def _torch_scores(self, pictures: np.ndarray) -> np.ndarray:
        """The reference (looks, pictures, classes) on the runtime's own glances."""
        glances = np.zeros((len(pictures), 3, *(self.model.design.patch,) * 2), np.float32)
        for index in range(len(pictures)):
            shrink(pictures[index : index + 1], glances[index : index + 1])
        looks = self.model.looks(
            torch.from_numpy(glances), torch.from_numpy(pictures), PolicyPlaces(self.model.policy)
        )  # fmt: skip
        return np.stack([look.logits.numpy() for look in looks])

    def _require_parity(self, found: np.ndarray, expected: np.ndarray, where: str) -> None:
        agreement = float((found.argmax(2) == expected.argmax(2)).mean())
        error = np.abs(found - expected).max(2) / np.abs(expected).max(2).clip(1e-6)
        typical = float(np.median(error))
        if agreement < MIN_AGREEMENT or not typical <= MAX_TYPICAL_ERROR:
            raise ConversionError(
                f"{where}: the engine agrees with torch on {agreement:.2%} of the answers (expected at least "
                f"{MIN_AGREEMENT:.0%}) with a typical error of {typical:.1e} (expected at most "
                f"{MAX_TYPICAL_ERROR:.0e}); the bundle is not written"
            )
        self.report(f"{where}: agreement with torch {agreement:.2%}, typical error {typical:.1e}")

    def _solve(self, scores: dict[str, dict[str, np.ndarray]]) -> None:
        """Temperatures and exits on held-out pictures of the first engine; accuracy of each on what is measured."""
        first = scores[self.request.backends[0]]
        held = [name for name in HELD_OUT if name in first and len(self.splits[name])]
        if not held:
            raise ConversionError("no held-out pictures: train with calib_pictures or select_pictures above 0")
        logits = np.concatenate([first[name] for name in held], 1)
        labels = np.concatenate([self.splits[name].labels for name in held])
        self.temperatures = fit_temperatures(logits, labels)
        answers = Answers.from_logits(logits, labels, self.temperatures)
        last = answers.looks - 1
        plans = {"one-look": play(answers, self.madds, (0.0, *(NEVER,) * (last - 1)))}
        for index, plan in enumerate(plan_budgets(answers, self.madds, self.request.budgets), start=1):
            plans[f"budget-{index}"] = plan
        plans["safe"] = control_risk(answers, self.madds, self.request.max_loss)
        plans["all"] = play(answers, self.madds, (NEVER,) * last)
        accuracy: dict[str, dict[str, float]] = {name: {} for name in plans}
        for split in MEASURED:
            if split not in first or not len(self.splits[split]):
                continue
            judged = Answers.from_logits(first[split], self.splits[split].labels, self.temperatures)
            for name, plan in plans.items():
                realised = play(judged, self.madds, plan.thresholds)
                accuracy[name][split] = realised.accuracy
                self.report(
                    f"{name} on {split}: planned {plan.cost / 1e6:.2f}, realised {realised.cost / 1e6:.2f} MMAdds, "
                    f"{realised.looks:.2f} looks, accuracy {realised.accuracy:.3f}"
                )
        self._set_plans(plans, accuracy)
        self.notes = [
            f"exits: solved on {len(labels)} held-out pictures ({', '.join(held)}); costs are multiply-adds",
            f"safe: loses at most {self.request.max_loss:g} of the accuracy of all looks, with 95 % confidence",
        ]

    def _set_plans(self, plans: dict[str, ExitPlan], accuracy: dict[str, dict[str, float]]) -> None:
        looks, design = self.model.design.steps, self.model.design
        self.settings = [
            ExitSetting(name, looks, plan.thresholds, plan.looks, plan.shares) for name, plan in plans.items()
        ]  # fmt: skip
        self.points = []
        for backend, parts in zip(self.request.backends, self.parts, strict=True):
            suffix = "" if backend == self.request.backends[0] else f"-{backend}"
            for name, plan in plans.items():
                madds = round(plan.cost) or self.madds[-1]
                self.points.append(
                    OperatingPoint(
                        f"{name}{suffix}", parts.glance, 1.0, (design.picture, design.picture), madds,
                        accuracy.get(name) or {"select": 0.0}, exit=name,
                    )
                )  # fmt: skip

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
            SCHEMA_VERSION, self.request.target.stem, "classification", tuple(self.request.checkpoint.classes),
            Preprocessing(tuple(recipe.mean), tuple(recipe.std)), tuple(self.programs), tuple(self.points), {},
            splits={name: f"{len(split)} {recipe.data}" for name, split in self.splits.items()},
            provenance={**self.request.provenance, "recipe": recipe.variant or design.backbone},
            notes=tuple(self.notes), exits=exits,
        )  # fmt: skip
