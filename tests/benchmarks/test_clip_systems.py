"""The table of networks for clips: every system has its recipe, and a row says what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.clip_systems import HEAD, SYSTEMS, line, recipe_name, shuffled
from benchmarks.system_bundles import ends_of
from zoo.checkpoint import Checkpoint
from zoo.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[2] / "zoo" / "recipes"


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_recipe_of_the_same_task(name: str) -> None:
    recipe = Recipe.from_file(RECIPES / f"{recipe_name(name)}.toml")
    assert recipe.clips == "camera-moves"
    assert recipe.train_pictures == 12_800


def test_shuffling_keeps_the_frames_of_each_clip_and_changes_their_order() -> None:
    clips = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8, 1, 1, 1)
    found = shuffled(clips, np.random.default_rng(0))
    assert [sorted(clip.ravel()) for clip in found] == [sorted(clip.ravel()) for clip in clips]
    assert all(not np.array_equal(one, other) for one, other in zip(found, clips, strict=True))
    assert len({tuple((clip - clip.min()).ravel()) for clip in found}) > 1


def test_a_bundle_keeps_the_largest_and_smallest_frames_and_resolutions() -> None:
    recipe = {"resolutions": [64, 48, 32], "frames": [16, 8, 4]}
    kept = ends_of(Checkpoint({}, recipe, [])).recipe
    assert (kept["resolutions"], kept["frames"]) == ([64, 32], [16, 4])
    assert ends_of(Checkpoint({}, {"resolutions": [64], "frames": []}, [])).recipe == {
        "resolutions": [64],
        "frames": [],
    }


def test_a_row_says_what_the_network_reaches_costs_and_where_it_runs() -> None:
    row = {
        "trained": {
            "options": {"width_mult": 0.25, "depths": [1, 2]}, "clip": [8, 64], "parameters": 513_580,
            "madds": 75_700_000, "test": 0.952, "shuffled": 0.231,
        },
        "bundle": {
            "latency_ms": {"ORT fp32": 9.87, "ET fp32": 12.34},
            "checks": {
                "w1.00-f08-r064-fp32": {"max_relative_error": 7e-7}, "w1.00-f08-r064-int8": {"max_relative_error": 0.2},
                "w1.00-f08-r064-fp32-et": {"max_relative_error": 2e-6},
            },
            "played": {"onnxruntime": {"frames": 60}, "executorch": {"frames": 0}},
        },
    }  # fmt: skip
    expected = (
        "| STM | width_mult 0.25, depths 1, 2 | 8x64x64 | 0.51 | 76 | 95.2% | 23.1% | 9.9 | - | 12.3 | - "
        "| 7e-07 / 2e-06 | onnxruntime |"
    )
    assert line("STM", row) == expected
    assert expected.count("|") == HEAD.count("|")
