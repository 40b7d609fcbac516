"""The default model's table: float beside int8, and what int8 costs."""

from __future__ import annotations

import pytest

from benchmarks.default_table import drops, joined, table

ROWS = [
    {"width": 1.0, "resolution": 64, "madds": 2e6, "select_accuracy": 0.9, "test_accuracy": 0.88, "ece": 0.02,
     "unsure_known": 0.05, "unsure_others": 0.6},
    {"width": 0.5, "resolution": 64, "madds": 1e6, "select_accuracy": 0.8, "test_accuracy": 0.78, "ece": 0.03,
     "unsure_known": 0.06},
]  # fmt: skip


def test_int8_stands_beside_its_float_point_and_the_loss_counts_only_points_that_exist() -> None:
    rows = joined(ROWS, {(1.0, 64): {"test": 0.87}})
    assert [r["int8_test"] for r in rows] == [0.87, None]
    assert drops(rows) == {"mean": pytest.approx(1.0), "worst": pytest.approx(1.0)}
    lines = table(rows, drops(rows))
    assert lines[2] == "| 1.00 | 64 | 2.0 | 90.0% | 88.0% | 87.0% | 2.0% | 5.0% | 60.0% |"
    assert lines[3].endswith("| 6.0% |  |")  # no strangers were measured
    assert "left out" in lines[3]
    assert lines[-1] == "int8 costs 1.00 points of test accuracy on average, 1.0 at worst."
