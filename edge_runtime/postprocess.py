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
    scores = logits[0].astype(np.float64) / temperature
    if not np.isfinite(scores).all():
        return Classification(UNSURE, 0.0)
    exponents = np.exp(scores - scores.max())
    probabilities = exponents / exponents.sum()
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = tuple((labels[i], float(probabilities[i])) for i in order)
    label, confidence = top[0]
    if not confidence >= unsure_below:
        label = UNSURE
    return Classification(label, confidence, top)
