"""From logits to an answer that an application can use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.result import Classification

UNSURE = "unsure"
TOP = 5


def classify(
    logits: npt.NDArray[np.float32], labels: tuple[str, ...], temperature: float = 1.0, unsure_below: float = 0.0
) -> Classification:
    """Calibrated probabilities and the best label.

    Args:
        logits: (1, classes) float32; not changed.
        labels: class names.
        temperature: divides the logits (calibration of the operating point).
        unsure_below: below this confidence the label is "unsure".
    Returns:
        the answer; scores that are not finite say nothing, so they give "unsure" with confidence 0.
    """
    return answer_of(calibrated(logits, temperature), labels, unsure_below)


def calibrated(logits: npt.NDArray[np.float32], temperature: float = 1.0) -> npt.NDArray[np.float64] | None:
    """Probabilities, (classes,) float64, of logits (1, classes); None where they are not finite."""
    scores = logits[0].astype(np.float64) / temperature
    if not np.isfinite(scores).all():
        return None
    exponents = np.exp(scores - scores.max())
    return np.asarray(exponents / exponents.sum())


def answer_of(
    probabilities: npt.NDArray[np.float64] | None, labels: tuple[str, ...], unsure_below: float = 0.0
) -> Classification:
    """The best labels of probabilities (classes,); "unsure" with confidence 0 for None."""
    if probabilities is None:
        return Classification(UNSURE, 0.0)
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = tuple((labels[i], float(probabilities[i])) for i in order)
    label, confidence = top[0]
    if not confidence >= unsure_below:
        label = UNSURE
    return Classification(label, confidence, top)
