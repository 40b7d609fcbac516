"""Round a width's normalisation statistics to the steps of the bundle's tables, in the networks and the tables alike.

The rounded networks are what the bundle is verified against; what rounding itself costs is measured apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from converters.errors import ConversionError
from converters.norm_folding import NormPair
from converters.shared_weights import TensorStore
from edge_runtime.norm_tables import NormLayer, NormTables, encode_rows, statistics

TABLE_STEP = 1 / 32
"""Of the mean, as a share of the deviation, and of the deviation's log2: errors within 1.6 % and 1.1 %, an eighth of
what 500 calibration pictures leave uncertain."""
MAX_ROUNDING_DROP, MAX_ROUNDING_LOST = 0.02, 2
"""Accuracy that rounding may cost a point on select, or so many pictures of a small select split. Wide, since pictures
that are nearly undecided change sides both ways, by chance."""


@torch.no_grad()
def round_norms(
    plains: Mapping[str, nn.Module], pairs: list[NormPair], store: TensorStore, group: str, step: float = TABLE_STEP
) -> tuple[NormTables, dict[str, np.ndarray]] | None:
    """Round the statistics of the paired norms, and store them for a device.

    Args:
        plains: table key -> materialised, unfolded subnet of one width; its norms get the rounded statistics.
        pairs: convolutions with their norms.
        store: receives the factors and offsets that are no slice of the full network's.
        group: name of the width.
        step: of means and deviations.
    Returns:
        how a device makes scale and shift, and the arrays of the tables file; None without a paired norm.
    Raises:
        ValueError: a statistic is not finite.
    """
    if not pairs:
        return None
    rows = tuple(plains)
    deviations = np.stack([_deviation_steps(plain, pairs, step) for plain in plains.values()])
    means = np.stack(
        [
            np.rint(_joined(plain, pairs, "running_mean") / np.exp2(steps * step) / step).astype(np.int64)
            for plain, steps in zip(plains.values(), deviations, strict=True)
        ]
    )
    arrays = {f"{group}/mean": encode_rows(means), f"{group}/deviation": encode_rows(deviations)}
    norms = NormTables(group, rows, _layers(next(iter(plains.values())), pairs, store, group), step, step)
    for row, plain in enumerate(plains.values()):
        _set_statistics(plain, pairs, *statistics(norms, arrays, row))
    return norms, arrays


def require_fine_steps(point: str, exact: float, rounded: float, pictures: int, step: float) -> None:
    """Refuse statistics whose rounding costs accuracy.

    Args:
        exact, rounded: accuracy on select with the checkpoint's statistics and with the stored ones.
        pictures: of select.
    Raises:
        ConversionError: with the figures.
    """
    if round((exact - rounded) * pictures) > max(MAX_ROUNDING_DROP * pictures, MAX_ROUNDING_LOST):
        raise ConversionError(
            f"point {point}: rounding its normalisation statistics to steps of {step:g} takes accuracy on select from "
            f"{exact:.3f} to {rounded:.3f}; give --table-step {step / 4:g}; the bundle is not written"
        )


def _joined(plain: nn.Module, pairs: list[NormPair], name: str) -> np.ndarray:
    values = [getattr(plain.get_submodule(pair.norm), name).double().numpy() for pair in pairs]
    return np.concatenate(values)


def _deviation_steps(plain: nn.Module, pairs: list[NormPair], step: float) -> np.ndarray:
    """log2 of sqrt(variance + epsilon) in steps, rounded, but never so low that the variance becomes negative."""
    sizes = [plain.get_submodule(pair.norm).running_var.numel() for pair in pairs]
    epsilon = np.repeat([plain.get_submodule(pair.norm).eps for pair in pairs], sizes)
    exact = np.log2(_joined(plain, pairs, "running_var") + epsilon) / 2 / step
    if not np.isfinite(exact).all():
        raise ValueError("normalisation statistics are not finite; calibrate the network again")
    return np.maximum(np.rint(exact), np.ceil(np.log2(epsilon) / 2 / step)).astype(np.int64)


def _layers(plain: nn.Module, pairs: list[NormPair], store: TensorStore, group: str) -> tuple[NormLayer, ...]:
    state = plain.state_dict()

    def source(name: str) -> str:
        return store.source_of(name, state[name].cpu().numpy(), group)

    layers = []
    for pair in pairs:
        bias = f"{pair.convolution}.bias"
        gamma, beta = source(f"{pair.norm}.weight"), source(f"{pair.norm}.bias")
        layers.append(
            NormLayer(gamma, beta, state[f"{pair.norm}.weight"].numel(), source(bias) if bias in state else None)
        )
    return tuple(layers)


def _set_statistics(plain: nn.Module, pairs: list[NormPair], mean: np.ndarray, deviation: np.ndarray) -> None:
    at = 0
    for pair in pairs:
        norm = plain.get_submodule(pair.norm)
        here = slice(at, at + norm.running_mean.numel())
        norm.running_mean.copy_(torch.from_numpy(mean[here]))
        norm.running_var.copy_(torch.from_numpy(np.maximum(deviation[here] ** 2 - norm.eps, 0.0)))
        at = here.stop
