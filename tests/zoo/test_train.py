"""Whole training runs on a few small pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.models import create
from zoo.optimizers import parameter_groups
from zoo.pictures import DataError, PictureSource
from zoo.recipe import Recipe, RecipeError
from zoo.train import TrainError, open_device, train

RECIPE = Recipe(
    model_options={"width_mult": 0.25, "small_input": True},
    widths=(0.25, 1.0),
    resolutions=(16, 12),
    epochs=2,
    batch_size=12,
    learning_rate=0.05,
    calib_pictures=3,
    select_pictures=6,
    norm_pictures=30,
)  # 39 training pictures: 3 steps an epoch
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "label_smoothing": 0.1, "ema_teacher": 0.9, "augmentation": "strong", "warmup_steps": 2,
        "quantization_aware_epochs": 1, "clip_gradient_norm": 5.0,
    },
}  # fmt: skip


def changed(**values: Any) -> Recipe:
    return dataclasses.replace(RECIPE, **values)


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(path: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_checkpoint(path).model.items() if isinstance(v, Tensor)}


def assert_equal_weights(found: Path, expected: Path) -> None:
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=0)


def figures(line: dict[str, Any]) -> dict[str, Any]:
    """A log line without what a clock decides."""
    return {k: v for k, v in line.items() if k not in ("time", "duration_s")}


def test_a_run_learns_and_leaves_a_calibrated_model_and_a_log(source: PictureSource, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    recipe = changed(epochs=8, learning_rate=0.1)
    path = train(recipe, source, tmp_path / "run", progress=events.append)

    assert path == tmp_path / "run" / "model.pt"
    result = load_checkpoint(path)
    assert result.classes == ["disc", "square", "stripes"]
    assert result.training == {}
    assert [(row["width"], row["resolution"]) for row in result.accuracy] == recipe.points()
    best = result.accuracy[0]
    assert {"select_accuracy", "test_accuracy", "madds"} <= set(best)
    assert best["test_accuracy"] > 0.6  # three classes: 0.33 by chance
    model = result.build()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 12, 12), 0.25).shape == (1, 3)

    lines = log_lines(tmp_path / "run")
    assert [line["event"] for line in lines] == ["epoch"] * 8 + ["result"]
    assert [line["epoch"] for line in lines[:-1]] == list(range(1, 9))
    assert lines[-1]["points"] == result.accuracy
    assert lines[7]["train_accuracy"] > lines[0]["train_accuracy"]
    steps = [e for e in events if e["event"] == "step"]
    assert [(e["done"], e["total"]) for e in steps] == [(i + 1, 24) for i in range(24)]
    for epoch in range(8):
        mean = sum(e["loss"] for e in steps[epoch * 3 : epoch * 3 + 3]) / 3
        assert lines[epoch]["loss"] == pytest.approx(mean)
        assert 0.0 <= lines[epoch]["train_accuracy"] <= 1.0


def test_clipped_gradients_move_the_weights_by_the_rate_times_the_limit(source: PictureSource, tmp_path: Path) -> None:
    recipe = changed(epochs=1, batch_size=39, momentum=0.0, weight_decay=0.0, learning_rate=0.1, clip_gradient_norm=0.5)
    start = create(recipe.model, num_classes=3, **recipe.model_options)
    before = {k: v.detach().clone() for k, v in start.named_parameters()}
    path = train(recipe, source, tmp_path / "run", initial_weights=start.state_dict())
    after = weights(path)
    moved = math.sqrt(sum(float((after[k] - v).square().sum()) for k, v in before.items()))
    assert moved == pytest.approx(0.1 * 0.5, rel=1e-4)


class KilledError(Exception):
    """The process is killed here."""


@pytest.mark.parametrize(
    ("name", "killed_at"),
    [("plain", ("step", 2)), ("everything", ("step", 5)), ("everything", ("epoch", 1)), ("everything", ("epoch", 2))],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else value,
)
def test_a_killed_run_goes_on_to_the_same_weights(
    whole_runs: dict[str, Path], source: PictureSource, tmp_path: Path, name: str, killed_at: tuple[str, int]
) -> None:
    kind, number = killed_at

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == kind and event["done" if kind == "step" else "epoch"] == number:
            raise KilledError

    recipe, out = changed(**OPTIONS[name]), tmp_path / "run"
    with pytest.raises(KilledError):
        train(recipe, source, out, checkpoint_every_s=-1.0, progress=kill)  # saves after each step
    torch.manual_seed(99)  # a new process starts anywhere
    whole = whole_runs[name]
    resumed = train(recipe, source, out)
    assert_equal_weights(resumed, whole / "model.pt")
    last = {line.get("epoch"): figures(line) for line in log_lines(out)}  # a repeated epoch: the last line counts
    assert last == {line.get("epoch"): figures(line) for line in log_lines(whole)}


@pytest.fixture(scope="module")
def whole_runs(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs to compare with."""
    torch.set_num_threads(1)
    runs = {}
    for name, options in OPTIONS.items():
        runs[name] = tmp_path_factory.mktemp(name)
        train(changed(**options), source, runs[name])
    return runs


@pytest.fixture(scope="module")
def first_epoch(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of the plain run after one of its two epochs."""
    torch.set_num_threads(1)
    return weights(train(RECIPE, source, tmp_path_factory.mktemp("first"), stop_after_epochs=1))


def test_a_run_can_be_done_in_parts(whole_runs: dict[str, Path], source: PictureSource, tmp_path: Path) -> None:
    first = train(RECIPE, source, tmp_path, stop_after_epochs=1)
    assert first.name == "last.pt"
    assert_equal_weights(train(RECIPE, source, tmp_path, stop_after_epochs=5), whole_runs["plain"] / "model.pt")


def test_running_a_finished_run_again_gives_the_same_model(
    whole_runs: dict[str, Path], source: PictureSource, tmp_path: Path
) -> None:
    out = shutil.copytree(whole_runs["plain"], tmp_path / "run")
    assert_equal_weights(train(RECIPE, source, out), whole_runs["plain"] / "model.pt")
    assert load_checkpoint(out / "model.pt").accuracy == load_checkpoint(whole_runs["plain"] / "model.pt").accuracy


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"ema_teacher": 0.5},
        {"augmentation": "strong"},
        {"augmentation": "none"},
        {"method": "usnet"},
        {"method": "single"},
        {"random_widths": 0},
        {"momentum": 0.0},
        {"weight_decay": 0.1},
        {"warmup_steps": 3},
        {"seed": 1},
    ],
    ids=lambda options: "-".join(map(str, *options.items())),
)
def test_every_option_changes_the_weights(
    first_epoch: dict[str, Tensor], source: PictureSource, tmp_path: Path, options: dict[str, Any]
) -> None:
    found = weights(train(changed(**options), source, tmp_path, stop_after_epochs=1))
    plain = first_epoch
    assert max(float((found[k] - plain[k]).abs().max()) for k in plain) > 1e-5


def test_a_single_width_is_calibrated_and_evaluated_alone(source: PictureSource, tmp_path: Path) -> None:
    path = train(changed(method="single", widths=(0.5,), epochs=1), source, tmp_path)
    rows = load_checkpoint(path).accuracy
    assert [(row["width"], row["resolution"]) for row in rows] == [(0.5, 16), (0.5, 12)]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(source: PictureSource, tmp_path: Path) -> None:
    recipe = changed(method="single", epochs=3, warmup_steps=4, learning_rate=0.08)
    train(recipe, source, tmp_path)
    rates = [line["learning_rate"] for line in log_lines(tmp_path)[:-1]]
    cosine = [0.04 * (1 + math.cos(math.pi * step / 9)) for step in (5, 8)]  # the last step of epochs 2 and 3, of 9
    assert rates == pytest.approx([0.08 * 3 / 4, *cosine])


def test_norms_biases_and_depthwise_convolutions_do_not_decay() -> None:
    model = create("mobilenet_v1", num_classes=3, width_mult=0.25)
    decayed, others = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    kept = {names[id(p)] for p in decayed["params"]}
    expected = {"stem.0.weight", "classifier.weight"} | {
        name for name, p in model.named_parameters() if p.dim() == 4 and p.shape[2:] == (1, 1)
    }  # in this network every other convolution is depthwise
    assert kept == expected
    assert len(kept) + len(others["params"]) == len(names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_starting_weights_are_used_by_the_network_and_its_teacher(source: PictureSource, tmp_path: Path) -> None:
    torch.manual_seed(7)
    start = create(RECIPE.model, num_classes=3, **RECIPE.model_options).state_dict()
    recipe = changed(epochs=1, learning_rate=1e-9, ema_teacher=0.9)
    last = train(recipe, source, tmp_path, initial_weights=start, stop_after_epochs=1)
    checkpoint = load_checkpoint(last)
    for state in (checkpoint.model, checkpoint.training["teacher"]):
        torch.testing.assert_close(state["stem.0.weight"], start["stem.0.weight"], rtol=0, atol=1e-6)


def test_another_recipe_in_the_same_folder_is_refused(
    whole_runs: dict[str, Path], source: PictureSource, tmp_path: Path
) -> None:
    out = shutil.copytree(whole_runs["plain"], tmp_path / "run")
    with pytest.raises(RecipeError, match=r"last\.pt: belongs to a run with another recipe"):
        train(changed(learning_rate=0.01), source, out)


def test_other_classes_in_the_same_folder_are_refused(
    whole_runs: dict[str, Path], shapes_folder: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole_runs["plain"], tmp_path / "run")
    tree = shutil.copytree(shapes_folder, tmp_path / "tree")
    for part in ("train", "test"):
        (tree / part / "disc").rename(tree / part / "circle")
    with pytest.raises(RecipeError, match=r"last\.pt: belongs to a run on other classes"):
        train(RECIPE, PictureSource(tree), out)


def test_a_broken_picture_stops_the_run_by_name_and_leaves_no_thread(shapes_folder: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(shapes_folder, tmp_path / "tree")
    for index in range(16):
        (tree / "train" / "disc" / f"{index:03d}.png").write_bytes(b"")
    before = threading.active_count()
    with pytest.raises(DataError, match=r"train/disc/\d+\.png is not a readable picture"):
        train(RECIPE, PictureSource(tree), tmp_path / "run")
    assert threading.active_count() == before


def test_too_few_pictures_for_a_batch_or_a_split_are_refused(source: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size 40 is more than the 39 pictures"):
        train(changed(batch_size=40), source, tmp_path / "a")
    with pytest.raises(DataError, match="48 training pictures cannot give 30 for calib and 20 for select"):
        train(changed(calib_pictures=30, select_pictures=20), source, tmp_path / "b")


def test_a_loss_that_is_not_a_number_stops_the_run(source: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"loss is (nan|inf) in epoch \d+, step \d+; lower learning_rate"):
        train(changed(method="single", learning_rate=1e30), source, tmp_path)


def test_an_option_that_the_model_lacks_is_named(source: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model_options.*'mobilenet_v1'.*colour"):
        train(changed(model_options={"colour": "red"}), source, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(source: PictureSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match=r"file/run: cannot be made into a folder: Not a directory"):
        train(RECIPE, source, tmp_path / "file" / "run")


@pytest.mark.parametrize(("name", "error"), [("log.jsonl", TrainError), ("last.pt.part", CheckpointError)])
def test_a_full_disk_ends_the_run_in_a_sentence(
    source: PictureSource, tmp_path: Path, name: str, error: type[Exception]
) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(error, match="cannot be written: No space left on device"):
        train(changed(epochs=1, method="single"), source, tmp_path)


@pytest.mark.parametrize("name", ["abacus", "cuda:77"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(TrainError, match=f"device '{name}' cannot be used here"):
        open_device(name)


def test_each_process_of_a_job_takes_its_own_gpu() -> None:
    with pytest.raises(TrainError, match="device 'cuda:77'"):
        open_device("cuda", {"LOCAL_RANK": "77"})
    assert open_device("cpu", {"LOCAL_RANK": "77"}) == torch.device("cpu")
