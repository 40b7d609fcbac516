"""A bundle whose network is judged on cluttered scenes, and its video."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_training import write_pictures
from test_glance_focus import checkpoint

from benchmarks.focus_video import VideoSet, compared, main, play, require_fitting
from benchmarks.glance_focus_deadline import deadlines, in_time, two_look_runner
from converters import glance_focus_command
from converters.glance_focus_build import FocusRequest, build_focus
from converters.glance_focus_scores import SequenceScores
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.preprocess import preprocess
from edge_runtime.runtime import Runtime
from edge_runtime.sensor_loop import NoSensors
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.gfnet_checkpoint import build_gfnet
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource, Split

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
    return Bundle.load(
        build_focus(FocusRequest(of_scenes, PictureSource(pictures), target, budgets=2, held_out_scenes=3))
    )


def test_exits_are_solved_on_several_scenes_of_each_held_out_picture(
    bundle: Bundle, of_scenes: Checkpoint, pictures: Path
) -> None:
    manifest = bundle.manifest
    assert manifest.exits is not None
    point = bundle.point("budget-1")
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    runner = backend.load(point)
    views, splits = views_of(pictures, of_scenes)
    looks, right = {}, {}
    for split, variants in (("calib", 3), ("select", 3), ("test", 1)):
        looks[split], right[split] = [], []
        for variant in range(variants):
            for picture, label in zip(
                views.evaluation(splits[split].names, variant), splits[split].labels, strict=True
            ):  # fmt: skip
                preprocess(picture, bundle.spec, point.size_hw, out=runner.input)
                right[split].append(int(runner.run()[0].argmax()) == label)
                looks[split].append(runner.last.looks)
    backend.close()
    held = looks["calib"] + looks["select"]
    shares = [held.count(look) / len(held) for look in (1, 2, 3)]
    assert manifest.exits.setting("budget-1").shares == pytest.approx(shares)
    assert point.accuracy == pytest.approx({name: np.mean(right[name]) for name in ("select", "test")})


def test_the_manifest_says_pictures_and_scenes(bundle: Bundle) -> None:
    exits, safe = bundle.manifest.notes[:2]
    assert exits.startswith("exits: solved on 18 held-out pictures (calib, select), 3 scenes of each; costs")
    assert safe.endswith("solved on one scene of each picture, since the bound asks for independent draws")
    assert bundle.manifest.splits["select"] == "9 pictures, 3 scenes of each"
    assert bundle.manifest.splits["test"] == "12 scenes"


def test_the_command_hands_the_number_of_scenes_on(
    of_scenes: Checkpoint, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def build(request: FocusRequest, report: object) -> Path:
        asked.append(request.held_out_scenes)
        return tmp_path

    monkeypatch.setattr(glance_focus_command, "build_focus", build)
    save_checkpoint(tmp_path / "model.pt", of_scenes)
    words = ["--checkpoint", str(tmp_path / "model.pt"), "--data", str(pictures), "--out", str(tmp_path / "a.bundle")]
    for more in ([], ["--held-out-scenes", "7"]):
        done = CliRunner().invoke(glance_focus_command.focus_command, [*words, *more])
        assert done.exit_code == 0, done.output
    assert asked == [4, 7]


def views_of(pictures: Path, checkpoint: Checkpoint) -> tuple[Views, dict[str, Split]]:
    source, made = PictureSource(pictures), GlanceRecipe.from_dict(checkpoint.recipe)
    splits = source.splits(made.calib_pictures, made.select_pictures)
    return Views(made, source, splits["train"].names), splits


def test_engines_are_compared_with_torch_on_the_first_scenes_alone(
    bundle: Bundle, of_scenes: Checkpoint, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lines, compared_pictures = build_gfnet(of_scenes)[0], list[str](), list[int]()
    views, splits = views_of(pictures, of_scenes)
    scorer = SequenceScores(model, views, splits, 3, 1, lines.append)
    torch_scores = scorer._torch_scores
    monkeypatch.setattr(
        scorer, "_torch_scores", lambda images: (compared_pictures.append(len(images)), torch_scores(images))[1]
    )
    parts = bundle.manifest.exits.parts[0]
    found = scorer.play(bundle, "onnxruntime", parts, check=True, calibrate=True)
    assert {name: scores.shape for name, scores in found.items()} == {
        "calib": (3, 3, 9, 3), "select": (3, 3, 9, 3), "test": (3, 1, 12, 3),
    }  # fmt: skip
    assert compared_pictures == [9, 9, 12]
    assert len(lines) == 3
    assert (found["select"][:, 0] != found["select"][:, 1]).any()
    alone = scorer.play(bundle, "onnxruntime", parts, splits=("select",), scenes=1)
    np.testing.assert_array_equal(alone["select"], found["select"][:, :1])
    assert len(scorer.seen["glance"]) == 27  # of calib alone, every scene


def test_a_deadline_is_compared_with_two_looks_at_the_same_frames(
    bundle: Bundle, of_scenes: Checkpoint, pictures: Path
) -> None:
    views, splits = views_of(pictures, of_scenes)
    scorer = SequenceScores(build_gfnet(of_scenes)[0], views, splits, 3, 1, lambda line: None)
    scores = scorer.play(bundle, "onnxruntime", bundle.manifest.exits.parts[0], splits=("select",))["select"]
    answers = scores.argmax(3).reshape(3, -1)  # look, scene
    assert all((answers[1] != answers[look]).any() for look in (0, 2))
    scenes = np.concatenate([views.evaluation(splits["select"].names, variant) for variant in range(3)])
    labels = np.tile(splits["select"].labels, 3)
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    runner = two_look_runner(backend, bundle, bundle.point("one-look"))  # whatever the point's thresholds
    found = [in_time(runner, bundle, scene, 60.0)[0] for scene in scenes]
    backend.close()
    np.testing.assert_array_equal(found, answers[1])
    prices = (0.05, 1.0)
    rows = deadlines(bundle, scenes, labels, frames=32, busy=0, prices=prices)  # five of 27 scenes come twice
    right = (answers[1] == labels).astype(float)
    assert tuple(late["late_per_right"] for late in rows) == prices
    for late in rows:
        assert late["two_look_accuracy"] == pytest.approx((right.sum() + right[:5].sum()) / 32)
        assert (late["frames"], late["latency_ms"]["count"]) == (32, 32)
        assert 1.0 <= late["looks"] <= 3.0
        assert 0.0 <= late["two_look_in_time"] <= 1.0
        assert late["two_look_latency_ms"]["count"] == 32
        assert late["kept_before"] == 0.999
    (tight,) = deadlines(bundle, scenes, labels, frames=4, busy=0, prices=(1.0,), kept=0.1)
    assert tight["deadline_ms"] < rows[0]["deadline_ms"]


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
