"""Comparing an engine with torch: the figures, and which of them are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from converters.errors import ConversionError
from converters.verification import PointCheck, compare, engine_logits, require_parity, torch_logits
from edge_runtime.errors import BackendError
from edge_runtime.preprocess import TensorSpec

REFERENCE = np.array([[4.0, 1.0], [0.0, -8.0], [1.0, 2.0], [2.0, 1.0]])


def test_the_figures_are_those_of_a_hand_count() -> None:
    found = REFERENCE + np.array([[0.0, 0.4], [0.4, 0.0], [1.5, 0.0], [0.0, 0.0]])
    check = compare("p", REFERENCE, found, {"select": np.array([0, 0, 1]), "test": np.array([1])})
    assert check.max_relative_error == pytest.approx(1.5 / 2.0)
    assert check.agreement == pytest.approx(3 / 4)  # the third picture changed its class
    assert check.accuracy == {"select": pytest.approx(2 / 3), "test": 0.0}


def test_logits_of_zero_do_not_divide_by_zero() -> None:
    assert compare("p", np.zeros((1, 2)), np.zeros((1, 2)), {}).max_relative_error == 0.0


@pytest.mark.parametrize(
    ("error", "agreement", "accepted"),
    [(1e-5, 1.0, True), (1e-3, 0.999, True), (2e-3, 1.0, False), (1e-5, 0.998, False), (float("nan"), 1.0, False)],
)
def test_a_point_that_differs_is_refused_with_its_figures(error: float, agreement: float, accepted: bool) -> None:
    check = PointCheck("w0.50-r048", error, agreement, {})
    if accepted:
        require_parity(check)
        return
    with pytest.raises(ConversionError, match=r"point w0.50-r048: the engine agrees with torch on \d+\.\d+% of"):
        require_parity(check)


def test_scores_that_are_not_numbers_are_refused() -> None:
    found = REFERENCE.copy()
    found[0, 1] = np.nan
    with pytest.raises(ConversionError, match="the bundle is not written"):
        require_parity(compare("p", REFERENCE, found, {}))


def test_a_point_that_the_engine_cannot_run_is_refused_with_the_engines_words() -> None:
    class Broken:
        def load(self, point: object) -> object:
            raise BackendError("w1.00-int8-et: ExecuTorch failed: error 0x1")

    with pytest.raises(ConversionError, match="error 0x1; leave this engine or precision out"):
        engine_logits(Broken(), None, None, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "most"), [((8, 8), 100), ((8, 8, 8), 12), ((64, 8, 8), 1)])
def test_torch_never_computes_more_than_a_hundred_frames_at_once(size: tuple[int, ...], most: int) -> None:
    batches: list[tuple[int, ...]] = []

    def model(batch: torch.Tensor) -> torch.Tensor:
        batches.append(tuple(batch.shape))
        return batch.flatten(1).mean(1, keepdim=True)

    bundle = SimpleNamespace(spec=TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    pictures = [np.full((*size, 3), k, np.uint8) for k in range(101)]
    found = torch_logits(model, bundle, size, pictures)  # type: ignore[arg-type]
    assert {shape[1:] for shape in batches} == {(3, *size)}
    assert max(shape[0] for shape in batches) == most
    np.testing.assert_allclose(found[:, 0], np.arange(101))
