"""Compare a bundle's points with torch, on real pictures, through the engine that the device will use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from converters.errors import ConversionError
from edge_runtime.backends import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import preprocess

MIN_AGREEMENT = 0.999
MAX_RELATIVE_ERROR = 1e-3  # of the largest logit; float32 with another order of summation stays near 1e-5

BATCH_FRAMES = 100
"""Pictures that torch computes at a time, or frames of clips together."""


@dataclass(frozen=True)
class PointCheck:
    """How one point does in its engine."""

    point: str
    max_relative_error: float
    """Largest difference of a logit from torch's, as a share of the picture's largest logit."""
    agreement: float
    """Share of pictures whose best class equals torch's; of detectors share of boxes that both answers have."""
    accuracy: dict[str, float]
    """Split -> share of pictures whose best class is right; of detectors average precision at IoU 0.5."""
    box_error_px: float | None = None
    """Of detectors: largest difference of a side of any box from torch's, in pixels of the input."""
    max_relative_box_error: float = 0.0
    """The same as a share of the picture's largest coordinate."""
    unsure_below: float = 0.0
    """Of detectors: the score that is the best threshold on select."""

    def summary(self) -> str:
        """One line of figures."""
        boxes = "" if self.box_error_px is None else f", boxes within {self.box_error_px:.1e} px"
        what = "" if self.box_error_px is None else "AP50 "
        accuracy = ", ".join(f"{split} {value:.3f}" for split, value in self.accuracy.items())
        error = f"error {self.max_relative_error:.1e}"
        return f"{self.point}: agreement {self.agreement:.2%}, {error}{boxes}, {what}{accuracy}"


def engine_logits(
    backend: Backend, bundle: Bundle, point: OperatingPoint, pictures: list[np.ndarray]
) -> npt.NDArray[np.float32]:
    """All of `engine_outputs` in one array: (pictures, classes), or (pictures, anchors, 4 + labels) of detectors."""
    return np.stack(list(engine_outputs(backend, bundle, point, pictures)))


def engine_outputs(
    backend: Backend, bundle: Bundle, point: OperatingPoint, pictures: list[np.ndarray]
) -> Iterator[npt.NDArray[np.float32]]:
    """Run the real road for each picture: preprocess, engine.

    Args:
        pictures: (H, W, 3) or, of a clip bundle, (T, H, W, 3) uint8 RGB each.
    Returns:
        (classes,) or, of detectors, (anchors, 4 + labels) float32 for each picture, when it is asked for.
    Raises:
        ConversionError: the engine cannot load or run the point.
    """
    try:
        runner = backend.load(point)
        try:
            for picture in pictures:
                preprocess(picture, bundle.spec, point.size, out=runner.input)
                yield runner.run()[0].copy()
        finally:
            runner.close()
    except BackendError as error:
        raise ConversionError(
            f"{error}; leave this engine or precision out (--backend, --precision); the bundle is not written"
        ) from error


def torch_logits(
    model: nn.Module, bundle: Bundle, size: tuple[int, ...], pictures: list[np.ndarray]
) -> npt.NDArray[np.float32]:
    """All of `torch_outputs` in one array."""
    return np.stack(list(torch_outputs(model, bundle, size, pictures)))


def torch_outputs(
    model: nn.Module, bundle: Bundle, size: tuple[int, ...], pictures: list[np.ndarray]
) -> Iterator[npt.NDArray[np.float32]]:
    """The reference: the same preprocessing, torch's arithmetic.

    Args:
        size: (h, w), or (frames, h, w) of clips.
        pictures: as in `engine_logits`.
    Returns:
        as `engine_outputs`.
    """
    frames = size[0] if len(size) == 3 else 1
    step = max(1, BATCH_FRAMES // frames)
    for at in range(0, len(pictures), step):
        batch = np.concatenate([preprocess(p, bundle.spec, size) for p in pictures[at : at + step]])
        with torch.no_grad():
            found = model(torch.from_numpy(batch)).numpy()
        yield from found


def compare(point: str, reference: np.ndarray, found: np.ndarray, labels: dict[str, np.ndarray]) -> PointCheck:
    """Differences of one point.

    Args:
        reference, found: (pictures, classes), the splits one after the other in the order of `labels`.
        labels: split -> (pictures,) int64.
    """
    largest = np.abs(reference).max(1, keepdims=True).clip(1e-6)
    accuracy, at = {}, 0
    best = found.argmax(1)
    for split, expected in labels.items():
        accuracy[split] = float(np.mean(best[at : at + len(expected)] == expected))
        at += len(expected)
    error = float((np.abs(reference - found) / largest).max())
    return PointCheck(point, error, float(np.mean(best == reference.argmax(1))), accuracy)


def accuracy_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of pictures whose best class is right; logits (N, classes), labels (N,)."""
    return float(np.mean(logits.argmax(1) == labels))


def require_parity(check: PointCheck) -> None:
    """Refuse a point that differs from torch.

    Raises:
        ConversionError: with the figures.
    """
    error, what = max(check.max_relative_error, check.max_relative_box_error), "pictures"
    if check.box_error_px is not None:
        what = "boxes"
    if check.agreement < MIN_AGREEMENT or not error <= MAX_RELATIVE_ERROR:
        raise ConversionError(
            f"point {check.point}: the engine agrees with torch on {check.agreement:.2%} of the {what} "
            f"(expected at least {MIN_AGREEMENT:.1%}) with a largest error of {error:.1e} "
            f"(expected at most {MAX_RELATIVE_ERROR:.0e}); the bundle is not written"
        )
