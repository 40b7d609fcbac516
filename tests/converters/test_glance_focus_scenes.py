"""A bundle whose network is judged on cluttered scenes, and its video."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_training import write_pictures
from test_glance_focus import checkpoint

from benchmarks.focus_video import VideoSet, compared, main, play, require_fitting
from converters.glance_focus_build import FocusRequest, build_focus
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.runtime import Runtime
from edge_runtime.sensor_loop import NoSensors
from zoo.checkpoint import Checkpoint
from zoo.gfnet_recipe import GlanceRecipe
from zoo.pictures import PictureSource

RECIPE = """
data = "scenes"
object_sides = [8, 16]
calib_pictures = 9
select_pictures = 9
norm_pictures = 12
[design]
backbone = "mobilenet_v1"
backbone_options = { width_mult = 0.125, small_input = true }
patch = 12
steps = 3
picture = 24
classifier = "recurrent"
classifier_hidden = 8
policy_hidden = 8
"""
"""The network of test_glance_focus.py, on scenes."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def of_scenes(pictures: Path, recipe: Path) -> Checkpoint:
    """Random weights, by a recipe of scenes."""
    values = GlanceRecipe.from_file(recipe).to_dict()
    return dataclasses.replace(checkpoint(PictureSource(pictures)), recipe=values)


@pytest.fixture(scope="module")
def bundle(of_scenes: Checkpoint, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("scenes") / "a.bundle"
    return Bundle.load(build_focus(FocusRequest(of_scenes, PictureSource(pictures), target, budgets=2)))


def test_videos_are_played_with_and_without_the_last_frames_place(bundle: Bundle, pictures: Path, recipe: Path) -> None:
    videos = VideoSet(str(pictures), recipe, count=6, frames=4, seed=0)
    require_fitting(bundle, videos.source.classes, videos.spec.canvas)
    options = {"threads": 1, "budget": Budget(60_000.0), "sensors": NoSensors(), "query_table": "none"}
    with (
        Runtime.load(bundle, **options) as plain,
        Runtime.load(bundle, look_where_found=True, **options) as option,
    ):
        found = play({False: plain, True: option}, "budget-2", videos)
        row = compared("budget-2", found)
    assert found[True].looks.shape == (6, 4)
    assert (found[False].looks[:, 0] >= 1).all()
    assert not found[False].hinted.any()
    assert 0.0 < row["hinted"] < 1.0  # the first frame never is
    assert (found[True].run_ms > 0.0).all()


def test_the_video_command_has_a_row_for_each_point(bundle: Bundle, pictures: Path, recipe: Path) -> None:
    words = [str(bundle.root), "--data", str(pictures), "--recipe", str(recipe), "--no-write"]
    done = CliRunner().invoke(main, [*words, "--videos", "3", "--frames", "2"])
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ")[0] for line in done.output.splitlines() if line.startswith("| ")]
    assert rows == ["| point", *(f"| {p.name}" for p in sorted(bundle.manifest.points, key=lambda p: p.madds))]
    assert "3 videos of 2 frames, onnxruntime, one thread" in done.output
    too_many = CliRunner().invoke(main, [*words, "--videos", "13"])
    assert (too_many.exit_code, too_many.output.count("\n")) == (1, 1)
    assert "fewer than 13 test pictures; ask for fewer --videos" in too_many.output
