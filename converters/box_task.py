"""Detectors as the converter's task: scenes made by seed, boxes after suppression, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from converters.box_agreement import best_threshold, shared_boxes
from converters.detector_net import RowDetector
from converters.errors import ConversionError
from converters.task import Outputs
from converters.verification import PointCheck
from edge_runtime.detection import detect
from edge_runtime.manifest import Boxes as BoxRule
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import TensorSpec
from zoo.box_checkpoint import build_detector
from zoo.box_evaluate import SCORE_MIN
from zoo.box_metrics import Boxes, average_precision, mean_precision
from zoo.box_scenes import BoxSceneSet
from zoo.checkpoint import Checkpoint
from zoo.clip_source import ClipSource
from zoo.efficientdet_boxes import DETECTIONS_MAX, OVERLAP_MAX, anchor_boxes
from zoo.pictures import PictureSource
from zoo.slim_net import Size

AGREE_FROM, AGREE_SLACK = 0.05, 1e-3
"""Boxes of this score or more must be in both networks' answers; a partner's score may be lower by the slack."""


class Detection:
    """A detector of boxes. Its splits are scenes, each made of pictures of that split by the recipe's evaluation seed.

    Args:
        checkpoint: of a finished training of python -m zoo boxes.
        source: the pictures that its scenes were made of.
    Raises:
        CheckpointError: the checkpoint holds no detector, or weights that do not fit.
        ConversionError: the pictures are of other classes than the detector's, or none are set apart for select.
    """

    name, examples, clip, free_sides = "detection", "scenes", None, False
    boxes = BoxRule(OVERLAP_MAX, DETECTIONS_MAX)

    def __init__(self, checkpoint: Checkpoint, source: PictureSource | ClipSource) -> None:
        detector, self.recipe = build_detector(checkpoint)
        if source.classes != checkpoint.classes or not isinstance(source, PictureSource):
            raise ConversionError(
                f"{source.root}: its classes are {', '.join(source.classes[:5])}, ..., expected the detector's "
                f"{', '.join(checkpoint.classes[:5])}, ...; give the pictures that it was trained on"
            )
        self.model = RowDetector(detector)
        self.recipe_text = f"{self.recipe.model} boxes, {self.recipe.epochs} epochs"
        self.float_layers = self.model.class_predictors()
        self.splits = source.splits(self.recipe.calib_pictures, self.recipe.select_pictures)
        self._scenes = {
            name: BoxSceneSet(source, split, self.recipe.scene_spec, self.recipe.evaluation_seed)
            for name, split in self.splits.items()
        }
        mean, std = ((float(a), float(b), float(c)) for a, b, c in (self.recipe.mean, self.recipe.std))
        self._spec, self._labels = TensorSpec(mean, std), tuple(checkpoint.classes)

    def pictures(self, split: str) -> list[np.ndarray]:
        """The scenes, (canvas, canvas, 3) uint8 RGB each; as `Task`."""
        scenes = self._scenes[split]
        return [scenes.picture(name) for name in scenes.split.names]

    def anchors(self, size: Size) -> int | None:
        """Of one input size."""
        side = size if isinstance(size, int) else size[-1]
        return len(anchor_boxes((side, side), self.model.settings.anchor_scale))

    def accuracy(self, outputs: Outputs, point: OperatingPoint, split: str) -> float:
        """Average precision at IoU 0.5, mean over the classes."""
        return self._precision([self._found(rows, point) for rows in outputs], self._there(split))

    def check(self, point: OperatingPoint, reference: Outputs, found: Outputs, splits: Sequence[str]) -> PointCheck:
        """By rows and, in the answers, by boxes of AGREE_FROM and more: the share that both have."""
        differences, answers = _Differences(), []
        for expected, rows in zip(reference, found, strict=True):
            differences.add(expected, rows)
            answers.append(self._found(rows, point))
            shared, total = shared_boxes(self._found(expected, point), answers[-1], AGREE_FROM, AGREE_SLACK)
            differences.shared, differences.total = differences.shared + shared, differences.total + total
        accuracy, at, threshold = {}, 0, 1.0
        for split in splits:
            there = self._there(split)
            part, at = answers[at : at + len(there)], at + len(there)
            accuracy[split] = self._precision(part, there)
            if split == "select":
                threshold = best_threshold(part, there)
        agreement = differences.shared / differences.total if differences.total else 1.0
        return PointCheck(
            point.name, differences.logit, agreement, accuracy, differences.box_px, differences.box, threshold
        )

    def finished(self, point: OperatingPoint, check: PointCheck) -> OperatingPoint:
        """With the threshold that gives the point its best F1 on select; scores are taken as they are."""
        return replace(point, accuracy=check.accuracy, temperature=1.0, unsure_below=check.unsure_below)

    def change(self, reference: Tensor, found: Tensor) -> float:
        """Of logits and boxes, each as a share of its own mean square."""
        kinds = (slice(4), slice(4, None))
        changes = [(found - reference)[..., k].square().mean() / reference[..., k].square().mean() for k in kinds]
        return float(sum(changes))

    def _found(self, rows: np.ndarray, point: OperatingPoint) -> Boxes:
        """The answer of one picture as the runtime makes it, down to small scores; in pixels of the scene."""
        point = replace(point, unsure_below=SCORE_MIN, temperature=1.0)
        side = self.recipe.canvas
        found = detect(rows[None], self._labels, self.boxes, point, self._spec, (side, side))
        sides = np.array([(b.left, b.top, b.right, b.bottom) for b in found], np.float64).reshape(-1, 4)
        labels = np.array([self._labels.index(b.label) for b in found], np.int64)
        return Boxes(sides, labels, np.array([b.confidence for b in found], np.float64))

    def _there(self, split: str) -> list[Boxes]:
        scenes = self._scenes[split]
        every = [scenes.scene(name) for name in scenes.split.names]
        return [Boxes(scene.boxes_xyxy, scene.labels) for scene in every]

    def _precision(self, found: Sequence[Boxes], there: Sequence[Boxes]) -> float:
        return mean_precision(average_precision(found, there, len(self._labels)))[0]


@dataclass
class _Differences:
    """The largest so far."""

    logit: float = 0.0
    """As a share of the picture's largest logit."""
    box: float = 0.0
    """As a share of the picture's largest coordinate."""
    box_px: float = 0.0
    shared: int = field(default=0)
    total: int = field(default=0)

    def add(self, reference: np.ndarray, found: np.ndarray) -> None:
        """Rows (anchors, 4 + classes) of one picture; what is no number differs without limit."""
        apart = np.nan_to_num(np.abs(found - reference), nan=np.inf)
        boxes, logits = float(apart[:, :4].max()), float(apart[:, 4:].max())
        self.box_px = max(self.box_px, boxes)
        self.box = max(self.box, boxes / max(float(np.abs(reference[:, :4]).max()), 1e-6))
        self.logit = max(self.logit, logits / max(float(np.abs(reference[:, 4:]).max()), 1e-6))
