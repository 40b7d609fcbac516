"""The ablation of how a pretrained network becomes a supernet: its arms, and its table."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.init_ablation import ARMS, RECIPE, render, summarise
from zoo.recipe import Recipe


def test_each_arm_is_the_recipe_with_one_key_changed() -> None:
    start = Recipe.from_file(RECIPE)
    for name, (_, changes) in ARMS.items():
        arm = dataclasses.replace(start, **changes)
        differing = [f.name for f in dataclasses.fields(Recipe) if getattr(arm, f.name) != getattr(start, f.name)]
        assert len(differing) == (name != "start")


def test_a_row_is_the_mean_of_each_width_and_both_ends() -> None:
    rows = [
        {"width": width, "test_accuracy": accuracy, "madds": madds}
        for width, accuracy, madds in ((1.0, 0.9, 8e6), (1.0, 0.7, 4e6), (0.5, 0.6, 2e6), (0.5, 0.4, 1e6))
    ]
    found = summarise(rows)
    assert found == {"widths": {"0.5": 50.0, "1": 80.0}, "all": pytest.approx(65.0), "cheapest": 40.0, "full": 90.0}
    lines = render({"unsorted": {"0": found}})
    assert lines[0].startswith("| variant | seed | width 1.00 | width 0.50 |")
    assert lines[2] == "| not sorted | 0 | 80.0 | 50.0 | 65.0 | 90.0 | 40.0 |"
