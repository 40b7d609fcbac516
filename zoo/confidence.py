"""Confidence that can be believed: a temperature per operating point, and a threshold below which it is "unsure".

Temperature scaling and the calibration error after Guo et al. 2017, arXiv:1706.04599. Everything is fitted on held-out
pictures of the known classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ECE_BINS = 15
TEMPERATURES = (0.05, 20.0)  # the search stays inside
SEARCH_STEPS = 60  # golden section: the interval shrinks to 1e-12 of its length
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which softmax(logits / temperature) gives the labels the highest likelihood.

    Args:
        logits: (N, classes) float.
        labels: (N,) int64.
    Raises:
        ValueError: there is no picture.
    """
    if len(labels) == 0:
        raise ValueError("fit_temperature: no pictures; give calib or select at least one")

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    low, high = (math.log(t) for t in TEMPERATURES)
    for _ in range(SEARCH_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if loss(left) <= loss(right):  # the loss has one minimum, being convex in 1 / temperature
            high = right
        else:
            low = left
    return math.exp((low + high) / 2.0)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = ECE_BINS) -> float:
    """Mean distance between confidence and accuracy, 0-1, over equal bins of confidence weighted by their pictures.

    Args:
        probabilities: (N, classes), rows sum to 1.
        labels: (N,) int64.
    """
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    index = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1  # bins are open below, closed above
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right - confidence.double())
    return float(gap.abs().sum() / max(1, len(labels)))


def unsure_threshold(probabilities: Tensor, unsure_share: float) -> float:
    """The confidence below which this share of known pictures falls.

    Args:
        probabilities: (N, classes) of pictures of the known classes.
        unsure_share: 0-1; how many of them may be answered "unsure".
    """
    return float(torch.quantile(probabilities.max(1).values.double(), unsure_share))


def confidence_facts(held_out: list[tuple[Tensor, Tensor]], unsure_share: float) -> dict[str, float]:
    """Temperature and threshold of one operating point.

    Args:
        held_out: logits and labels of splits that were not trained on and are not reported on.
    Returns:
        `temperature` (divides the logits) and `unsure_below` (of the highest probability after that).
    """
    logits, labels = (torch.cat(parts) for parts in zip(*held_out, strict=True))
    temperature = fit_temperature(logits, labels)
    threshold = unsure_threshold((logits.double() / temperature).softmax(1), unsure_share)
    return {"temperature": temperature, "unsure_below": threshold}


def confidence_report(logits: Tensor, labels: Tensor, facts: dict[str, float]) -> dict[str, float]:
    """How the confidence of one point holds on pictures that it was not fitted on.

    Returns:
        `ece`, and `unsure_known`: the share of these pictures that are answered "unsure".
    """
    probabilities = (logits.double() / facts["temperature"]).softmax(1)
    unsure = probabilities.max(1).values < facts["unsure_below"]
    return {"ece": expected_calibration_error(probabilities, labels), "unsure_known": float(unsure.double().mean())}
