"""The arithmetic and the tables of the Glance and Focus benchmark."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from benchmarks.glance_focus import budget_plans, realised_plan, sign_test, speed_ups
from benchmarks.glance_focus_deadline import busy_processes, figures
from benchmarks.glance_focus_tables import PAGE, deadline_line, fill, render
from zoo import gfnet_evaluate
from zoo.focus_exits import Answers, ExitPlan


def test_the_paired_test_is_exact() -> None:
    assert sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(60, 100) == pytest.approx(0.00196, abs=2e-4)  # of 160 fair coins


def test_a_static_point_is_compared_with_the_fastest_that_is_as_accurate() -> None:
    focus = [
        {"point": "one-look", "test_accuracy": 0.3, "mean_ms": 1.0},
        {"point": "budget", "test_accuracy": 0.5, "mean_ms": 2.0},
        {"point": "all", "test_accuracy": 0.55, "mean_ms": 3.0},
        {"point": "all-int8", "test_accuracy": 0.7, "mean_ms": 0.1},  # the static points are float
    ]
    static = [{"point": f"r{a}", "test_accuracy": a, "mean_ms": ms} for a, ms in ((0.5, 5.0), (0.2, 0.5), (0.6, 9.0))]
    rows = speed_ups(focus, static)
    assert [(row["focus"], row["times_faster"]) for row in rows] == [("budget", 2.5), ("one-look", 0.5), (None, None)]


def test_ten_budgets_are_planned_on_held_out_pictures_and_played_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    class Views:
        def variants(self, scenes: int) -> range:
            return range(scenes)

    def scores(count: int, variant: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = np.random.default_rng(count).integers(0, 3, count)
        logits = np.random.default_rng((count, variant)).normal(0.0, 1.0, (3, count, 3))
        logits[:, np.arange(count), labels] += np.array([[0.5], [1.0], [1.5]])
        return torch.from_numpy(logits).float(), torch.from_numpy(labels)

    sizes = {"calib": 2000, "select": 2000, "test": 4000}
    splits = {name: range(size) for name, size in sizes.items()}
    asked: list[tuple[int, int]] = []

    def look_logits(model: None, views: Views, split: range, variant: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((len(split), variant))
        return scores(len(split), variant)

    monkeypatch.setattr(gfnet_evaluate, "look_logits", look_logits)
    found = budget_plans(None, Views(), splits, [10, 20, 30], held_out_scenes=2, test_scenes=3)
    assert asked == [(2000, 0), (2000, 1)] * 2 + [(4000, 0), (4000, 1), (4000, 2)]
    rows = found.pop("plans")
    assert found == {"held_out_pictures": 4000, "held_out_scenes": 2, "test_pictures": 4000, "test_scenes": 3}
    assert len(rows) == 10
    planned = [row["planned_madds"] for row in rows]
    assert planned == sorted(planned)
    assert planned[0] < 15 < 25 < planned[-1]
    assert all(abs(row["cost_error"]) < 0.05 for row in rows)
    assert any(row["cost_error"] != 0.0 for row in rows)  # other pictures than it was planned on
    assert all(0.0 < row["standard_error_madds"] < 0.2 for row in rows)  # at most 10 / sqrt(4000) for costs 10 to 30


def test_scenes_of_one_picture_are_no_pictures_of_their_own() -> None:
    confidence = np.array([[0.9, 0.1, 0.9, 0.1, 0.9, 0.1], [0.5] * 6])  # three equal scenes of two pictures
    test = Answers(confidence, np.ones((2, 6), bool))
    plan = ExitPlan((0.5,), 14.0, 1.5, 1.0, (0.5, 0.5))
    row = realised_plan(test, [10, 20], plan, scenes=3)
    assert (row["planned_madds"], row["realised_madds"], row["looks"]) == (14, 15, 1.5)
    assert row["standard_error_madds"] == pytest.approx(5.0)  # of two pictures that cost 10 and 20, not of six


def values() -> dict[str, object]:
    return {
        "focus": [{"point": "all", "planned_madds": 10e6, "realised_madds": 10.1e6, "cost_error": 0.01, "looks": 3.0,
                   "test_accuracy": 0.5, "mean_ms": 2.0}],
        "budgets": {"held_out_pictures": 1000, "held_out_scenes": 4, "test_pictures": 900, "test_scenes": 3, "plans": [
            {"planned_madds": 10e6, "realised_madds": 10.15e6, "standard_error_madds": 0.06e6, "cost_error": 0.015,
             "planned_accuracy": 0.51, "test_accuracy": 0.5, "looks": 2.0}]},
        "controls": [{"look": 2, "patches": "random", "test_accuracy": 0.4, "p_value": 0.01}],
        "static": [{"point": "r128", "test_accuracy": 0.6, "mean_ms": 4.0}],
        "speed_ups": [{"static": "r128", "focus": None, "times_faster": None}],
    }  # fmt: skip


LATE: dict[str, Any] = {
    "deadline_ms": 2.5, "busy_processes": 2, "in_time": 0.999, "frames": 1000, "looks": 2.0, "accuracy": 0.45,
    "two_look_accuracy": 0.455, "two_look_in_time": 0.998, "two_look_latency_ms": {"p99": 2.6},
    "latency_ms": {"p99": 2.4}, "bundle": "a.bundle",
}  # fmt: skip


def test_the_tables_say_what_was_measured() -> None:
    tables = render(values())
    assert "| all | 10.00 | 10.10 (+1.0%) | 3.00 | 0.500 | 2.00 |" in tables["plans"]
    assert "| 10.00 | 10.15 ± 0.06 | +1.5% | 0.510 | 0.500 |" in tables["budgets"]
    assert "Solved on 1000 pictures with 4 scenes of each, played on 900 with 3" in tables["budgets"]
    assert "none is as accurate" in tables["static"]
    line = deadline_line(LATE)["deadline"]
    assert "99.90% of 1000 frames in time" in line
    assert "accuracy 0.450, p99 2.40 ms; always two looks, in turn with it: 99.80% in time, accuracy 0.455" in line


def test_the_page_has_a_place_for_each_table() -> None:
    everything = {**render(values()), **deadline_line(LATE)}
    page = fill(Path(PAGE).read_text(encoding="utf-8"), everything)
    for table in everything.values():
        assert table in page
    with pytest.raises(click.ClickException, match="markers"):
        fill("no markers", {"plans": "x"})


def test_the_figures_of_a_deadline_count_late_frames_wrong_classes_and_looks() -> None:
    rows = [(3, 2, 0.004), (1, 4, 0.009), (0, 1, 0.011), (2, 5, 0.010)]
    found = figures(rows, np.array([3, 1, 5, 2]), 0.010)
    assert found["in_time"] == 0.75  # at the deadline is in time
    assert found["accuracy"] == 0.75
    assert found["looks"] == 3.0
    assert found["latency_ms"]["p99"] == pytest.approx(11.0)


def test_busy_processes_end_with_their_block() -> None:
    before = set(multiprocessing.active_children())
    with busy_processes(2):
        burners = set(multiprocessing.active_children()) - before
        assert len(burners) == 2
        assert all(burner.is_alive() for burner in burners)
    assert not any(burner.is_alive() for burner in burners)
