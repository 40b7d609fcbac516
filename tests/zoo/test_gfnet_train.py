"""Whole training runs of Glance and Focus on a few small pictures: every stage, resuming, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.gfnet_checkpoint import build_gfnet
from zoo.gfnet_parts import ENTRY
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_train import train_gfnet
from zoo.pictures import PictureSource
from zoo.recipe import Recipe, RecipeError
from zoo.train import TrainError, train

RECIPE = GlanceRecipe(
    design={
        "backbone": "mobilenet_v1", "backbone_options": {"width_mult": 0.125, "small_input": True}, "patch": 12,
        "steps": 3, "picture": 24, "classifier": "recurrent", "classifier_hidden": 8, "policy_hidden": 8,
    },
    stage1_epochs=1, stage2_epochs=1, stage3_epochs=1, stage4_epochs=1, batch_size=18, learning_rate=0.05,
    fine_tune_share=1.0, policy_learning_rate=0.01, grid_side=2, grid_pictures=20,
    calib_pictures=3, select_pictures=6, norm_pictures=12,
)  # fmt: skip
# 39 training pictures: two steps in each stage
METHODS = ("ppo", "differentiable", "grid")


def changed(**values: Any) -> GlanceRecipe:
    return dataclasses.replace(RECIPE, **values)


def weights(path: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_checkpoint(path).model.items() if isinstance(v, Tensor)}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts whose weights differ."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def whole_runs(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """For each method, the checkpoints after stage 1, 2, 3, 4 and the result."""
    torch.set_num_threads(1)
    runs = {}
    for method in METHODS:
        out = tmp_path_factory.mktemp(method)
        kept = []
        for stage in (1, 2, 3, 4):
            train_gfnet(changed(policy=method), source, out, stop_after_epochs=1)
            kept.append(Path(shutil.copy(out / "last.pt", out / f"stage{stage}.pt")))
        runs[method] = [*kept, train_gfnet(changed(policy=method), source, out)]
    return runs


@pytest.mark.parametrize("method", METHODS)
def test_each_stage_trains_the_parts_that_it_should(whole_runs: dict[str, list[Path]], method: str) -> None:
    first, second, third, fourth = (weights(path) for path in whole_runs[method][:4])
    learns = {"glance", "focus", "classifier", "policy"} if method == "differentiable" else {"policy"}
    assert moved(first, second) == learns
    assert moved(second, third) == {"glance", "focus", "classifier"}
    assert moved(third, fourth) == learns


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_a_calibrated_model_its_answers_and_a_log(whole_runs: dict[str, list[Path]], method: str) -> None:
    path = whole_runs[method][-1]
    result = load_checkpoint(path)
    assert {(row["patches"], row["step"]) for row in result.accuracy} == {
        (kind, step) for kind in ("policy", "centre", "random", "saliency") for step in (1, 2, 3)
    }
    assert {row["madds"] for row in result.accuracy if row["step"] == 1} != {0}
    model, recipe = build_gfnet(result)
    assert recipe == changed(policy=method)
    statistics = [encoder.norms.entries[ENTRY] for encoder in model.encoders]
    name = next(iter(statistics[0]))
    assert not torch.allclose(statistics[0][name][0], statistics[1][name][0])
    with np.load(path.parent / "looks.npz") as answers:
        assert answers["test/logits"].shape == (3, 12, 3)
        right = (answers["test/logits"][1].argmax(1) == answers["test/labels"]).mean()
    row = next(r for r in result.accuracy if r["patches"] == "policy" and r["step"] == 2)
    assert row["test_accuracy"] == pytest.approx(right)
    lines = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["epoch"] * 4 + ["result"]
    assert [line["stage"] for line in lines[:4]] == [1, 2, 3, 4]


class KilledError(Exception):
    """The process is killed here."""


# the number of the step, or of the epoch, after which the process is gone
KILLS = [("ppo", "step", 3), ("differentiable", "step", 4), ("differentiable", "step", 1), ("grid", "epoch", 2),
         ("grid", "step", 3), ("grid", "epoch", 4)]  # fmt: skip


@pytest.mark.parametrize(("method", "event", "killed_at"), KILLS)
def test_a_killed_run_goes_on_to_the_same_weights(
    whole_runs: dict[str, list[Path]], source: PictureSource, tmp_path: Path, method: str, event: str, killed_at: int
) -> None:
    left = killed_at

    def kill(happened: dict[str, Any]) -> None:
        nonlocal left
        left -= happened["event"] == event
        if left == 0:
            raise KilledError

    recipe = changed(policy=method)
    with pytest.raises(KilledError):
        train_gfnet(recipe, source, tmp_path, checkpoint_every_s=-1.0, progress=kill)
    torch.manual_seed(99)  # a new process starts anywhere
    found = train_gfnet(recipe, source, tmp_path)
    torch.testing.assert_close(weights(found), weights(whole_runs[method][-1]), rtol=0, atol=0)


def test_it_learns(source: PictureSource, tmp_path: Path) -> None:
    recipe = changed(stage1_epochs=12, stage2_epochs=1, learning_rate=0.1, batch_size=12, fine_tune_share=0.1)
    rows = load_checkpoint(train_gfnet(recipe, source, tmp_path)).accuracy
    last = next(r for r in rows if r["patches"] == "policy" and r["step"] == 3)
    assert last["test_accuracy"] > 0.6  # three classes: 0.33 by chance


def test_scenes_and_one_network_for_both_encoders(source: PictureSource, tmp_path: Path) -> None:
    design = {**RECIPE.design, "shared": True, "widths": [0.5, 1.0], "picture": 32, "backbone_options": {
        "width_mult": 0.25, "small_input": True}}  # fmt: skip
    recipe = changed(design=design, data="scenes", object_sides=(12, 16), policy="none")
    path = train_gfnet(recipe, source, tmp_path)
    model, _ = build_gfnet(load_checkpoint(path))
    assert model.glance.net is model.focus.net
    assert load_checkpoint(path).accuracy[0]["patches"] == "random"  # the control: no policy was learned


def test_an_untrained_glance_keeps_its_weights(source: PictureSource, tmp_path: Path) -> None:
    recipe = changed(train_glance=False)
    first = train_gfnet(recipe, source, tmp_path, stop_after_epochs=1)
    torch.manual_seed(recipe.seed)
    from zoo.gfnet import GFNet

    start = {k: v for k, v in GFNet(recipe.build_design(), 3).state_dict().items() if isinstance(v, Tensor)}
    assert moved(start, weights(first)) == {"focus", "classifier"}


def test_encoders_start_from_a_trained_backbone(source: PictureSource, tmp_path: Path) -> None:
    options = RECIPE.design["backbone_options"]
    trained = Recipe(
        model_options=options, widths=(1.0,), resolutions=(12,), epochs=1, batch_size=12, calib_pictures=3,
        select_pictures=6, norm_pictures=12, learning_rate=0.05,
    )  # fmt: skip
    start = train(trained, source, tmp_path / "backbone")
    recipe = changed(init=str(start), train_glance=False)
    path = train_gfnet(recipe, source, tmp_path / "run", stop_after_epochs=1)
    model, _ = build_gfnet(load_checkpoint(path))
    backbone = load_checkpoint(start).build()
    torch.testing.assert_close(model.glance.net.stem[0].weight, backbone.stem[0].weight, rtol=0, atol=0)
    torch.testing.assert_close(model.glance.head.weight, backbone.classifier.weight, rtol=0, atol=0)
    glances = torch.randn(2, 3, 12, 12)
    with torch.no_grad():  # with its statistics the untrained glance answers as the backbone did
        torch.testing.assert_close(model.glance.own_logits(model.glance(glances)[0]), backbone(glances, 1.0))
    assert not torch.equal(model.focus.net.stem[0].weight, backbone.stem[0].weight)
    other = changed(init=str(start), design={**RECIPE.design, "backbone_options": {"width_mult": 0.25}})
    with pytest.raises(RecipeError, match=r"init: it holds 'mobilenet_v1' with .*0\.125"):
        train_gfnet(other, source, tmp_path / "other")


def test_frozen_networks_get_the_statistics_of_what_they_will_see(whole_runs: dict[str, list[Path]]) -> None:
    def focus_mean(path: Path) -> Tensor:
        entry = load_checkpoint(path).model["focus.norms._extra_state"][ENTRY]
        return entry[next(iter(entry))][0]

    random, tuned, policy = (focus_mean(path) for path in whole_runs["grid"][1:4])
    assert torch.equal(random, tuned)  # fine-tuning normalises by its batches
    assert not torch.allclose(random, policy)


def test_a_finished_network_is_trained_on_as_a_whole(
    whole_runs: dict[str, list[Path]], source: PictureSource, tmp_path: Path
) -> None:
    before = whole_runs["grid"][-1]
    only_policy = changed(policy="grid", init=str(before), stage1_epochs=0, stage2_epochs=0, stage3_epochs=0)
    after = train_gfnet(only_policy, source, tmp_path / "a")
    assert moved(weights(before), weights(after)) == {"policy"}
    other = changed(init=str(before), stage1_epochs=0, design={**RECIPE.design, "policy_hidden": 4})
    with pytest.raises(RecipeError, match="another design"):
        train_gfnet(other, source, tmp_path / "b")


def test_another_recipe_in_the_same_folder_is_refused(
    whole_runs: dict[str, list[Path]], source: PictureSource, tmp_path: Path
) -> None:
    shutil.copy(whole_runs["ppo"][0], tmp_path / "last.pt")
    with pytest.raises(RecipeError, match=r"last\.pt: belongs to a run with another recipe"):
        train_gfnet(changed(policy="differentiable"), source, tmp_path)


def test_a_checkpoint_of_another_kind_is_refused(whole_runs: dict[str, list[Path]]) -> None:
    other = load_checkpoint(whole_runs["ppo"][-1])
    other.recipe = {"model": "mobilenet_v1"}
    with pytest.raises(CheckpointError, match="holds no Glance and Focus network"):
        build_gfnet(other)


def test_a_loss_that_is_not_a_number_stops_the_run(source: PictureSource, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"loss is (nan|inf) in epoch \d+, step \d+; lower learning_rate"):
        train_gfnet(changed(learning_rate=1e30, classifier_learning_rate=1e30), source, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"policy": "magic"}, "policy is 'magic', expected one of ppo"),
        ({"design": {"backbone": "toaster", "patch": 8, "steps": 2}}, "design.backbone is 'toaster'"),
        ({"design": {"backbone": "resnet50", "patch": 8, "steps": 2, "petals": 1}}, "unknown key 'petals'"),
        ({"design": {"backbone": "resnet50", "patch": 8, "steps": 1}}, "steps is 1"),
        ({"variant": "resnet50_96", "stage1_epochs": 0}, "stage1_epochs is 0, expected 1 or more without init"),
        ({"variant": "big"}, "variant is 'big'"),
        ({"variant": "resnet50_96", "ppo_clip": 2.0}, "ppo_clip is 2.0"),
        ({"variant": "resnet50_96", "data": "scenes", "object_sides": [300, 400]}, "object_sides"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_by_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        GlanceRecipe.from_dict(values)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "zoo" / "recipes").glob("gfnet-*.toml")), ids=str)
def test_the_shipped_recipes_can_be_read(path: Path) -> None:
    assert GlanceRecipe.from_file(path).build_design().steps >= 2
