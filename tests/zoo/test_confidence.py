"""Temperature, calibration error and the "unsure" threshold, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.confidence import (
    confidence_facts,
    confidence_report,
    expected_calibration_error,
    fit_temperature,
    unsure_threshold,
)
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.refit import refit_confidence
from zoo.train import train


def believable(count: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax is the true chance of each label, times a scale that makes them too sure."""
    draw = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(count, 4, generator=draw)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    return logits * scale, labels


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = believable(20_000, scale)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=0.05)


def test_the_temperature_of_a_biased_coin_is_known_exactly() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 4)  # right in 3 of 4: the best softmax is 3/4, so 1 / T = log 3
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(1.0 / math.log(3.0), rel=1e-6)


def test_scores_that_are_always_right_reach_the_end_of_the_search() -> None:
    assert fit_temperature(torch.tensor([[5.0, 0.0]] * 3), torch.zeros(3, dtype=torch.long)) == pytest.approx(0.05)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="give calib or select at least one"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_the_calibration_error_is_the_weighted_gap_of_each_bin() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])  # 0.9: one of two right; 0.6: both right
    assert expected_calibration_error(probabilities, labels) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(3 - 3.0) / 4)


def test_certainty_that_is_right_has_no_error() -> None:
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == 0.0


def test_the_threshold_leaves_the_asked_share_below() -> None:
    top = torch.linspace(0.51, 1.0, 101)
    threshold = unsure_threshold(torch.stack([top, 1 - top], 1), 0.1)
    assert float((top < threshold).double().mean()) == pytest.approx(0.1, abs=0.011)


def test_facts_are_fitted_on_all_held_out_splits_and_hold_on_others() -> None:
    logits, labels = believable(9_000, 3.0)
    parts = [(logits[:3000], labels[:3000]), (logits[3000:6000], labels[3000:6000])]
    facts = confidence_facts(parts, 0.2)
    assert facts["temperature"] == pytest.approx(3.0, rel=0.1)
    assert facts == confidence_facts([(logits[:6000], labels[:6000])], 0.2)
    report = confidence_report(logits[6000:], labels[6000:], facts)
    assert report["ece"] < 0.03
    assert report["unsure_known"] == pytest.approx(0.2, abs=0.03)
    assert expected_calibration_error(logits[6000:].softmax(1), labels[6000:]) > 0.1


@pytest.fixture
def finished(source: PictureSource, tmp_path: Path) -> Path:
    recipe = Recipe(
        model_options={"width_mult": 0.25, "small_input": True}, widths=(0.5, 1.0), resolutions=(16,), epochs=1,
        batch_size=12, learning_rate=0.05, calib_pictures=6, select_pictures=6, norm_pictures=30,
    )  # fmt: skip
    return train(recipe, source, tmp_path)


def test_a_finished_checkpoint_keeps_its_confidence_and_can_be_given_another(
    finished: Path, source: PictureSource
) -> None:
    before = load_checkpoint(finished)
    assert refit_confidence(finished, source) == before.accuracy
    rows = refit_confidence(finished, source, strangers=source, unsure_share=0.5)
    after = load_checkpoint(finished)
    assert after.accuracy == rows
    assert after.recipe["unsure_share"] == 0.5
    for old, new in zip(before.accuracy, rows, strict=True):
        assert new["test_accuracy"] == old["test_accuracy"]
        assert new["unsure_below"] > old["unsure_below"]
        assert 0.0 < new["unsure_others"] < 1.0  # these strangers are known, so about half of them are rejected


def test_an_unfinished_checkpoint_is_refused(finished: Path, source: PictureSource) -> None:
    with pytest.raises(CheckpointError, match="expected a finished checkpoint"):
        refit_confidence(finished.parent / "last.pt", source)
