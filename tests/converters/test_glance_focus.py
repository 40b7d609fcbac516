"""Glance and Focus from checkpoint to answers on the device's engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import CLASSES, write_pictures

from converters.errors import ConversionError
from converters.glance_focus import step_parts, to_executorch, to_onnx
from converters.glance_focus_build import FocusRequest, build_focus
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import OUT_OF_LOOKS, SURE, EarlyExitRunner
from edge_runtime.preprocess import preprocess
from edge_runtime.runtime import Runtime
from zoo.checkpoint import Checkpoint
from zoo.focus_patches import RandomPlaces
from zoo.gfnet import GFNet
from zoo.gfnet_evaluate import calibrate_encoders
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource

RECIPE = GlanceRecipe(
    design={
        "backbone": "mobilenet_v1", "backbone_options": {"width_mult": 0.125, "small_input": True}, "patch": 12,
        "steps": 3, "picture": 24, "classifier": "recurrent", "classifier_hidden": 8, "policy_hidden": 8,
    },
    calib_pictures=9, select_pictures=9, norm_pictures=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_pictures(tmp_path_factory.mktemp("pictures")))


def checkpoint(source: PictureSource, classifier: str = "recurrent", map_stride: int = 0) -> Checkpoint:
    """Random weights that answer differently by picture, with statistics of the pictures."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    recipe = dataclasses.replace(RECIPE, design={**RECIPE.design, "classifier": classifier, "map_stride": map_stride})
    model = GFNet(recipe.build_design(), len(CLASSES))
    for parameter in (*model.classifier.parameters(), *model.glance.head.parameters()):
        torch.nn.init.normal_(parameter, 0.0, 1.0)
    torch.nn.init.normal_(model.policy.actor.weight, 0.0, 3.0)  # places that differ by picture
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    views = Views(recipe, source, splits["train"].names)
    calibrate_encoders(
        model, views.batches(splits["train"]), lambda number: RandomPlaces(torch.Generator().manual_seed(number))
    )
    return Checkpoint(model.state_dict(), recipe.to_dict(), list(source.classes))


@pytest.fixture(scope="module")
def bundles(source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Classifier -> its bundle, made when it is first asked for: exporting takes long."""
    root, made = tmp_path_factory.mktemp("bundles"), dict[str, Bundle]()

    def bundle(kind: str) -> Bundle:
        if kind not in made:
            request = FocusRequest(checkpoint(source, kind, STRIDES[kind]), source, root / f"{kind}.bundle", budgets=2)
            made[kind] = Bundle.load(build_focus(request))
        return made[kind]

    return bundle


STRIDES = {"recurrent": 4, "concatenating": 0}
"""Both kinds of map are exported and played."""
KINDS = ["recurrent", pytest.param("concatenating", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_has_a_point_for_each_plan_and_a_program_for_each_part(
    bundles: Callable[[str], Bundle], kind: str
) -> None:
    manifest = bundles(kind).manifest
    assert [p.name for p in manifest.points] == ["one-look", "budget-1", "budget-2", "safe", "all"]
    files = {p.file for p in manifest.programs}
    classifiers = {"classifier"} if kind == "recurrent" else {f"classifier{look}" for look in (1, 2, 3)}
    assert files == {f"programs/{name}-fp32.onnx.z" for name in {"glance", "policy", "focus"} | classifiers}
    assert manifest.exits is not None
    looks = [manifest.exits.setting(str(p.exit)).expected_looks for p in manifest.points]
    assert looks[0] == 1.0
    assert looks[4] == 3.0
    assert 1.0 < looks[1] < looks[2] < 3.0
    madds = [p.madds for p in manifest.points]
    assert madds[0] < madds[1] < madds[2] < madds[4]
    assert all(set(p.accuracy) == {"select", "test"} and p.latency_ms for p in manifest.points)
    assert all(0.0 < p.unsure_below < 1.0 for p in manifest.points)
    assert set(bundles(kind).vectors) == {"pixels", *(f"logits/{p.name}" for p in manifest.points)}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_engine_looks_where_torch_looks_and_says_the_same(
    bundles: Callable[[str], Bundle], source: PictureSource, kind: str
) -> None:
    from zoo.focus_patches import PolicyPlaces
    from zoo.gfnet_checkpoint import build_gfnet

    bundle = bundles(kind)
    model, _ = build_gfnet(checkpoint(source, kind, STRIDES[kind]))
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    runner = backend.load(bundle.point("all"))
    assert isinstance(runner, EarlyExitRunner)
    temperature = bundle.manifest.exits.temperatures[-1]
    boxes = set()
    for name in source.names[:6]:
        preprocess(source.picture(name), bundle.spec, (24, 24), out=runner.input)
        found = runner.run().copy()
        glance = torch.from_numpy(runner.input.reshape(1, 3, 12, 2, 12, 2).mean((3, 5)))
        looks = model.looks(glance, torch.from_numpy(runner.input), PolicyPlaces(model.policy))
        np.testing.assert_allclose(found * temperature, looks[-1].logits.numpy(), rtol=1e-3, atol=1e-3)
        expected = [tuple(int(v) for v in np.floor(look.place[0].double().numpy() * 12)) for look in looks[1:]]
        assert [box[:2] for box in runner.last.boxes] == expected
        boxes.update(expected)
    assert len(boxes) > 3  # places differ by picture
    backend.close()


def test_the_runtime_answers_with_such_a_bundle_and_stops_when_sure(
    bundles: Callable[[str], Bundle], source: PictureSource
) -> None:
    bundle = bundles("recurrent")
    with Runtime.load(bundle.root, threads=1, budget=Budget(deadline_ms=10_000.0)) as runtime:
        runtime.wait_ready(60)
        for point in ("one-look", "all"):
            runtime.pin(point)
            result = runtime.infer(source.picture(source.names[0]))
            assert result.answer.label in (*CLASSES, "unsure")
            assert np.isfinite(result.outputs[0]).all()
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    runner = backend.load(bundle.point("one-look"))
    runner.run()
    assert (runner.last.looks, runner.last.reason) == (1, OUT_OF_LOOKS)
    runner = backend.load(bundle.point("budget-2"))
    reasons = set()
    for name in source.names:
        preprocess(source.picture(name), bundle.spec, (24, 24), out=runner.input)
        runner.run()
        reasons.add(runner.last.reason)
        assert (runner.last.reason == SURE) == (runner.last.looks < runner.max_looks)
    assert SURE in reasons
    backend.close()


@pytest.mark.parametrize("option", [False, True])
def test_on_video_the_first_patch_lies_where_the_last_frame_found_its_answer(
    bundles: Callable[[str], Bundle], source: PictureSource, option: bool
) -> None:
    bundle = bundles("recurrent")
    started = []
    with Runtime.load(bundle, threads=1, budget=Budget(10_000.0), look_where_found=option) as runtime:
        runtime.pin("budget-2")
        for name in source.names:
            first, second = (runtime.infer(source.picture(name)).trail for _ in range(2))
            if first.reason == SURE and first.boxes_xyxy:  # on the same picture, what one frame found starts the next
                assert second.hinted == option
                assert not option or second.boxes_xyxy[0] == first.boxes_xyxy[-1]
                started.append(name)
    assert started  # made-up weights are sure after a patch now and then


def test_shares_and_accuracy_are_those_of_the_engine(bundles: Callable[[str], Bundle], source: PictureSource) -> None:
    bundle = bundles("recurrent")
    split = source.splits(9, 9)["test"]
    backend = open_backend("onnxruntime", bundle, BackendOptions(1))
    for name in ("one-look", "budget-1", "all"):
        point = bundle.point(name)
        runner = backend.load(point)
        right = 0
        for picture, label in zip(split.names, split.labels, strict=True):
            preprocess(source.picture(picture), bundle.spec, point.size_hw, out=runner.input)
            right += int(runner.run()[0].argmax()) == label
        assert right / len(split) == pytest.approx(point.accuracy["test"])
    backend.close()


@pytest.mark.slow  # lowering takes most of a minute
def test_executorch_runs_the_parts_too(source: PictureSource, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    lines: list[str] = []
    request = FocusRequest(checkpoint(source), source, tmp_path / "pte.bundle", ("executorch",), budgets=0)
    bundle = Bundle.load(build_focus(request, lines.append))
    assert {p.file.rpartition(".")[2] for p in bundle.manifest.programs} == {"pte"}
    assert any("agreement with torch" in line for line in lines)
    backend = open_backend("executorch", bundle, BackendOptions(1))
    runner = backend.load(bundle.point("all"))
    assert np.isfinite(runner.run()).all()
    assert runner.last.looks == 3
    backend.close()


def test_what_is_not_calibrated_or_not_held_out_is_refused(source: PictureSource, tmp_path: Path) -> None:
    held = checkpoint(source)
    bare = GFNet(GlanceRecipe.from_dict(held.recipe).build_design(), 3).state_dict()
    with pytest.raises(ConversionError, match="not calibrated"):
        build_focus(FocusRequest(dataclasses.replace(held, model=bare), source, tmp_path / "a.bundle"))
    assert not (tmp_path / "a.bundle").exists()


def test_the_critic_stays_at_home(source: PictureSource) -> None:
    from zoo.gfnet_checkpoint import build_gfnet

    model, _ = build_gfnet(checkpoint(source))
    parts = {part.name: part for part in step_parts(model)}
    assert list(parts) == ["glance", "policy", "focus", "classifier"]
    names = [name for name, _ in parts["policy"].module.named_parameters()]
    assert not [name for name in names if "critic" in name]
    assert not [m for m in parts["glance"].module.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("convert", [to_onnx, to_executorch])
def test_a_part_that_cannot_be_exported_is_named(convert: object, source: PictureSource) -> None:
    from zoo.gfnet_checkpoint import build_gfnet

    class Stubborn(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    model, _ = build_gfnet(checkpoint(source))
    part = dataclasses.replace(step_parts(model)[0], module=Stubborn())
    with pytest.raises(ConversionError, match="glance cannot be exported"):
        convert(part)  # type: ignore[operator]
