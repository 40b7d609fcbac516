"""The calibration error that chance gives shrinks with more pictures, and is not zero."""

from __future__ import annotations

import torch

from benchmarks.calibration_floor import chance_errors


def test_chance_gives_a_calibration_error_that_shrinks_with_the_number_of_pictures() -> None:
    row = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    few, many = chance_errors(row.repeat(100, 1), 40), chance_errors(row.repeat(6400, 1), 40)
    mean_few, mean_many = sum(few) / 40, sum(many) / 40
    assert 0.02 < mean_few < 0.07  # 0.8 standard deviations of a share of 0.5: 4 %
    assert mean_many < mean_few / 4
