"""From a training on clips to a bundle that a stream runs through: X3D in three dimensions, STM in two."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from built_bundle import Built
from click.testing import CliRunner
from small_clip_training import CLIP_MS, FRAMES, RESOLUTIONS, clip_recipe, train_clips, write_views

import converters.__main__ as command
import converters.subnets
from converters.build import BuildRequest, build
from converters.bundle_checkpoint import checkpoint_from_bundle
from converters.errors import ConversionError
from converters.executorch_build import add_executorch
from converters.int8 import int8_name
from converters.int8_graph import QuantSpec
from converters.onnx_export import export_onnx
from converters.select_points import select_points
from edge_runtime import Budget, Frame, Runtime
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import preprocess
from edge_runtime.self_check import require_passed, verify_bundle
from edge_runtime.sensor_loop import NoSensors
from zoo import materialise
from zoo.camera_moves import MOVES, CameraMoves
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.pictures import evaluation_batch
from zoo.recipe import Recipe
from zoo.sources import open_source

QUANT = QuantSpec(reduce_range=True, calib_pictures=7, max_drop=1.0)
POINTS = [f"w1.00-f{frames:02d}-r{side:03d}" for frames in sorted(FRAMES) for side in sorted(RESOLUTIONS)]
INTEGER_ERROR = 0.35  # of the largest logit: random gammas of both signs make 8 bits coarse


def with_own_calibration(held: Checkpoint) -> Checkpoint:
    """Each point's temperature says which it is."""
    rows = [{**row, "temperature": row["frames"] + row["resolution"] / 100} for row in held.accuracy]
    return dataclasses.replace(held, accuracy=rows)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def x3d(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    return with_own_calibration(train_clips(clip_recipe("x3d_xs"), views, tmp_path_factory.mktemp("x3d")))


@pytest.fixture(scope="module")
def clips(x3d: Checkpoint, views: Path) -> CameraMoves:
    source = open_source(Recipe.from_dict(x3d.recipe), views)
    assert isinstance(source, CameraMoves)
    return source


@pytest.fixture(scope="module")
def x3d_built(x3d: Checkpoint, clips: CameraMoves, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two numbers of frames, two resolutions, two precisions."""
    lines: list[str] = []
    target = tmp_path_factory.mktemp("bundles") / "x3d.bundle"
    return Built(*build(BuildRequest(x3d, clips, target, "x3d", ("fp32", "int8"), QUANT), lines.append), lines)


@pytest.fixture(scope="module")
def stm(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.set_num_threads(1)
    recipe = clip_recipe("stm50_8f", frames=(4,), resolutions=(24,))
    return train_clips(recipe, views, tmp_path_factory.mktemp("stm"))


@pytest.fixture
def _one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs for the example's size alone: free sides of STM take the exporter 20 s, which is for test-slow."""
    monkeypatch.setattr(converters.subnets, "export_onnx", functools.partial(export_onnx, free_sides=False))


def run_point(bundle: Bundle, point: OperatingPoint, clips: list[np.ndarray]) -> np.ndarray:
    """Logits (clips, classes) of the point's own engine."""
    runner = open_backend(bundle.program(point).backend, bundle, BackendOptions(1)).load(point)
    rows = []
    for clip in clips:
        preprocess(clip, bundle.spec, point.size, out=runner.input)
        rows.append(runner.run()[0].copy())
    runner.close()
    return np.stack(rows)


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_the_points_are_those_of_the_recipe_and_the_manifest_says_how_long_a_clip_is(x3d_built: Built) -> None:
    manifest = Bundle.load(x3d_built.path).manifest
    assert sorted(p.name for p in manifest.points) == sorted(f"{p}-{q}" for p in POINTS for q in ("fp32", "int8"))
    sizes = {(t, r, r) for t in FRAMES for r in RESOLUTIONS}
    assert {p.size for p in manifest.points} == sizes
    assert manifest.clip is not None
    assert (manifest.schema_version, manifest.clip.duration_ms) == (3, CLIP_MS)
    assert manifest.labels == MOVES
    assert [p.name for p in manifest.programs if p.precision == "fp32"] == ["w1.00-f04-fp32", "w1.00-f08-fp32"]
    assert [text.partition(", ")[2] for text in manifest.splits.values()] == ["7 clips"] * 2
    madds = {p.size: p.madds for p in manifest.points}
    assert madds[8, 24, 24] > madds[4, 24, 24] > madds[4, 16, 16]


def test_one_graph_for_each_number_of_frames_takes_every_resolution_and_shares_the_weights(
    x3d_built: Built, x3d: Checkpoint
) -> None:
    bundle = Bundle.load(x3d_built.path)
    for program in (p for p in bundle.manifest.programs if p.precision == "fp32"):
        proto = onnx.load_from_string(bundle.content(program.file))
        shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
        assert shape == [1, 3, int(program.name[7:9]), "height", "width"]
    full = {name for name, _ in x3d.build().named_parameters()}
    stored = {name.removesuffix("/int8").removesuffix("/int8_scale") for name in bundle.weights}
    assert stored <= full  # nothing of one number of frames alone


@torch.no_grad()
def test_every_point_computes_what_torch_computes(x3d_built: Built, x3d: Checkpoint, clips: CameraMoves) -> None:
    bundle, model = Bundle.load(x3d_built.path), x3d.build()
    names = clips.splits(7, 7)["test"].names[:3]
    for point in (p for p in bundle.manifest.points if p.name.endswith("fp32")):
        plain = materialise(model, width=point.width, resolution=point.size)
        pixels = torch.from_numpy(evaluation_batch(clips, names, point.size)).movedim(-1, 1).float()
        mean, std = (torch.tensor(x3d.recipe[key]).view(1, 3, 1, 1, 1) for key in ("mean", "std"))
        expected = plain((pixels - mean) / std).numpy()
        found = run_point(bundle, point, [clips.picture(name) for name in names])
        assert worst(found, expected) < 0.03  # of the stored statistics
    assert max(c.max_relative_error for c in x3d_built.checks if c.point.endswith("fp32")) < 1e-4


def test_the_points_carry_the_calibration_of_their_own_frames(x3d_built: Built) -> None:
    for point in Bundle.load(x3d_built.path).manifest.points:
        assert point.temperature == pytest.approx(point.size[0] + point.size[1] / 100)


def test_the_accuracy_is_that_of_the_engine_on_clips(x3d_built: Built, clips: CameraMoves) -> None:
    bundle, splits = Bundle.load(x3d_built.path), clips.splits(7, 7)
    for point in bundle.manifest.points[::3]:
        for name in ("select", "test"):
            logits = run_point(bundle, point, [clips.picture(n) for n in splits[name].names])
            assert point.accuracy[name] == pytest.approx(np.mean(logits.argmax(1) == splits[name].labels))


def test_three_dimensional_convolutions_become_integers_with_ranges_of_each_point(
    x3d_built: Built, clips: CameraMoves
) -> None:
    bundle = Bundle.load(x3d_built.path)
    integers = [a for name, a in bundle.weights.items() if name.endswith("/int8")]
    assert {a.ndim for a in integers} == {5}
    assert max(int(np.abs(a).max()) for a in integers) == 63
    ranges = {name: bundle.tables[f"{name}/activation_scale"] for name in POINTS}
    assert len({a.tobytes() for a in ranges.values()}) == len(POINTS)
    image = {name: float(scales[0]) for name, scales in ranges.items()}
    assert image["w1.00-f04-r016"] < image["w1.00-f04-r024"]  # area averaging takes the extremes away
    names = clips.splits(7, 7)["test"].names
    for point in (p for p in bundle.manifest.points if p.name.endswith("fp32")):
        floats, rounded = (
            run_point(bundle, bundle.point(name), [clips.picture(n) for n in names])
            for name in (point.name, int8_name(point))
        )
        assert 0.0 < worst(rounded, floats) < INTEGER_ERROR


def test_the_self_test_is_of_moving_clips_and_passes_on_the_device(x3d_built: Built) -> None:
    bundle = Bundle.load(x3d_built.path)
    pixels = bundle.vectors["pixels"]
    assert pixels.shape == (3, max(FRAMES), 64, 64, 3)
    assert all((clip[1:] != clip[:-1]).any((1, 2, 3)).all() for clip in pixels)
    assert len(bundle.content(str(bundle.manifest.vectors and bundle.manifest.vectors.file))) < pixels[:, 0].nbytes * 2
    require_passed(verify_bundle(bundle))


def test_a_stream_gets_the_answer_of_its_last_frames(x3d_built: Built, clips: CameraMoves) -> None:
    bundle, step_s = Bundle.load(x3d_built.path), CLIP_MS / 1000 / max(FRAMES)
    clip = clips.picture(clips.splits(7, 7)["test"].names[2])
    still = np.zeros((24, 24, 3), np.uint8)
    with Runtime.load(x3d_built.path, budget=Budget(1000.0), sensors=NoSensors()) as runtime:
        assert runtime.wait_ready(60)
        for frames in FRAMES:
            point = bundle.point(f"w1.00-f{frames:02d}-r024-fp32")
            runtime.pin(point.name)
            runtime.forget()
            for index, pixels in enumerate([still, still, *clip]):
                result = runtime.infer(Frame(pixels, index, media_s=index * step_s))
            assert result.clip_frames == frames
            np.testing.assert_allclose(result.outputs[0], run_point(bundle, point, [clip]), rtol=1e-4, atol=1e-4)
            backwards = run_point(bundle, point, [clip[::-1]])
            assert worst(backwards, result.outputs[0]) > 0.01  # order tells


def test_a_clip_bundle_becomes_a_checkpoint_again(x3d_built: Built, x3d: Checkpoint) -> None:
    recipe = Recipe.from_dict({**x3d.recipe, "frames": [8], "resolutions": [24], "clip_ms": 100})
    back = checkpoint_from_bundle(Bundle.load(x3d_built.path), recipe)
    assert Recipe.from_dict(back.recipe) == Recipe.from_dict(x3d.recipe)
    assert {(r["frames"], r["resolution"], r["temperature"]) for r in back.accuracy} == {
        (r["frames"], r["resolution"], r["temperature"]) for r in x3d.accuracy
    }
    before, after = x3d.build(), back.build()
    torch.manual_seed(0)
    for width, size in recipe.points():
        x = torch.randn(2, *(3, *size))  # type: ignore[misc]
        with torch.no_grad(), before.at(width, size), after.at(width, size):
            assert worst(after(x).numpy(), before(x).numpy()) < 0.05  # the tables round the statistics
    for (name, expected), found in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(found, expected), name


def test_clips_and_pictures_are_not_taken_for_each_other(x3d_built: Built, x3d: Checkpoint, built: Built) -> None:
    with pytest.raises(ConversionError, match="it reads clips, and the recipe is of pictures; give the recipe"):
        checkpoint_from_bundle(Bundle.load(x3d_built.path), Recipe())
    with pytest.raises(ConversionError, match="it reads pictures, and the recipe is of clips; give the recipe"):
        checkpoint_from_bundle(Bundle.load(built.path), Recipe.from_dict(x3d.recipe))


def test_points_of_some_frames_are_selected_with_what_they_need(x3d_built: Built, tmp_path: Path) -> None:
    path, count = select_points(x3d_built.path, tmp_path / "few.bundle", pattern="w1.00-f04-*", precision="int8")
    bundle = Bundle.load(path)
    assert (count, {p.frames for p in bundle.manifest.points}) == (2, {4})
    assert bundle.manifest.clip == Bundle.load(x3d_built.path).manifest.clip
    assert [p.name for p in bundle.manifest.programs] == ["w1.00-f04-int8"]
    assert not any("f08" in name for name in bundle.tables)
    require_passed(verify_bundle(bundle))


def test_a_bundle_of_pictures_says_nothing_of_clips(built: Built) -> None:
    manifest = json.loads((built.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema_version"] == 2
    assert "clip" not in manifest
    assert not any("frames" in point for point in manifest["points"])


def test_the_command_opens_the_clips_of_the_recipe(
    x3d: Checkpoint, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[BuildRequest] = []

    def note(request: BuildRequest, report: object) -> tuple[Path, list[object]]:
        requests.append(request)
        return tmp_path, []

    monkeypatch.setattr(command, "build", note)
    save_checkpoint(tmp_path / "model.pt", x3d)
    arguments = ["--checkpoint", str(tmp_path / "model.pt"), "--data", str(views), "--out", str(tmp_path / "a.bundle")]
    done = CliRunner().invoke(command.main, ["build", *arguments])
    assert done.exit_code == 0, done.output
    [request] = requests
    assert isinstance(request.source, CameraMoves)
    name = request.source.splits(7, 7)["test"].names[0]
    assert request.source.picture(name).shape == (max(FRAMES), 24, 24, 3)


@pytest.mark.usefixtures("_one_size")
def test_a_network_of_folded_frames_runs_in_float_and_in_integers(stm: Checkpoint, views: Path, tmp_path: Path) -> None:
    source = open_source(Recipe.from_dict(stm.recipe), views)
    path, checks = build(BuildRequest(stm, source, tmp_path / "stm.bundle", "stm", ("fp32", "int8"), QUANT))
    bundle = Bundle.load(path)
    assert [p.name for p in bundle.manifest.points] == ["w1.00-f04-r024-fp32", "w1.00-f04-r024-int8"]
    integers = {name for name, a in bundle.weights.items() if name.endswith("/int8")}
    assert any("mix.weight" in name for name in integers)  # over time
    assert any("motion.local.weight" in name for name in integers)
    assert len(integers) == sum(p.dim() == 4 for p in stm.build().parameters())  # every convolution
    assert [c.max_relative_error < limit for c, limit in zip(checks, (1e-4, INTEGER_ERROR), strict=True)] == [True] * 2
    with Runtime.load(path, budget=Budget(1000.0), sensors=NoSensors()) as runtime:
        answers = [runtime.infer(Frame(np.full((30, 40, 3), 40 * k, np.uint8), k, media_s=0.2 * k)) for k in range(5)]
    assert np.isfinite(answers[-1].outputs).all()
    assert {label for label, _ in answers[-1].answer.top} <= set(MOVES)


def test_int8_of_three_dimensional_convolutions_is_refused_for_executorch(x3d: Checkpoint) -> None:
    pytest.importorskip("executorch")
    pytest.importorskip("torchao")
    plain = materialise(x3d.build(), width=1.0, resolution=(4, 16, 16))
    job = SimpleNamespace(precisions=("fp32", "int8"), subnets=[SimpleNamespace(by_size={(4, 16, 16): plain})])
    with pytest.raises(
        ConversionError, match=r"stem\.space is a 3-d convolution.*; give --precision fp32, or --backend"
    ):
        add_executorch(job)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_graph_of_folded_frames_takes_every_resolution(views: Path, tmp_path: Path) -> None:
    recipe = clip_recipe("stm50_8f", widths=(0.5, 1.0))
    checkpoint, source = train_clips(recipe, views, tmp_path / "run"), open_source(recipe, views)
    path, _ = build(BuildRequest(checkpoint, source, tmp_path / "stm.bundle", "stm", ("fp32", "int8"), QUANT))
    bundle = Bundle.load(path)
    assert len(bundle.manifest.points) == 16
    assert len(bundle.manifest.programs) == 8  # two widths, two numbers of frames, two precisions
    require_passed(verify_bundle(bundle))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["x3d_xs", "stm50_8f"])
@pytest.mark.usefixtures("_one_size")
def test_both_engines_give_the_same_logits(model: str, views: Path, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    pytest.importorskip("torchao")
    recipe = clip_recipe(model, resolutions=(16,))
    checkpoint, source = train_clips(recipe, views, tmp_path / "run"), open_source(recipe, views)
    request = BuildRequest(
        checkpoint, source, tmp_path / "both.bundle", "both", ("fp32", "int8"), QUANT,
        backends=("onnxruntime", "executorch"), cache_folder=tmp_path / "cache",
    )  # fmt: skip
    path, _ = build(request)
    bundle = Bundle.load(path)
    pte = [p for p in bundle.manifest.points if p.method is not None]
    precisions = ("fp32", "int8") if model == "stm50_8f" else ("fp32",)
    assert {p.name for p in pte} == {f"w1.00-f{t:02d}-r016-{q}-et" for t in FRAMES for q in precisions}
    assert {p.method for p in pte} == {"w1_00_f04_r016", "w1_00_f08_r016"}
    for point in pte:
        found, expected = (bundle.vectors[f"logits/{name}"] for name in (point.name, point.name.removesuffix("-et")))
        assert worst(found, expected) < (1e-4 if "fp32" in point.name else 0.02)  # the same integers
    assert any("3-d convolution" in note for note in bundle.manifest.notes) == (model == "x3d_xs")
    require_passed(verify_bundle(bundle))
    few, count = select_points(path, tmp_path / "few.bundle", pattern="w1.00-f04-*-et")
    assert count == len(precisions)
    smaller = Bundle.load(few)
    require_passed(verify_bundle(smaller))
    sizes = [len(b.content("programs/all-fp32.pte")) for b in (smaller, bundle)]
    assert sizes[0] < sizes[1]
