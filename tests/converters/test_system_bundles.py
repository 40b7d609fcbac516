"""A bundle of every image system of the zoo: built and verified by the converter, then answered by the runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import CLASSES
from torch import Tensor, nn

import zoo
from converters.build import BuildRequest, build
from converters.int8_graph import QuantSpec
from edge_runtime import Budget, Runtime
from edge_runtime.bundle import Bundle
from edge_runtime.self_check import require_passed, verify_bundle
from edge_runtime.sensor_loop import NoSensors
from zoo.calibrate import calibrate
from zoo.checkpoint import Checkpoint
from zoo.export_form import ExportForm
from zoo.models import MODELS
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

RESOLUTIONS = (32, 24)
_RESNET = {"width_mult": 0.25, "depths": (1, 2, 1, 1)}
_ONE_EACH = {"width_mult": 0.25, "depths": (1, 1, 1, 1)}
# name -> options, and graphs of a width
SYSTEMS: dict[str, tuple[dict[str, Any], int]] = {
    "res2net50_26w_4s": (_RESNET, 1),
    "SDA-ResNet-86": ({"width_mult": 0.25, "depths": (2, 2, 2, 2)}, 2),  # a norm follows its pooling, not a convolution
    "od_resnet18_4x": (_ONE_EACH, 2),
    "dcdc_resnet50": ({"width_mult": 0.5, "depths": (1, 1, 1, 1)}, 2),
    "hornet_tiny_7x7": (_ONE_EACH, 1),
    "hornet_tiny_gf": (_ONE_EACH, 2),
    "resformer_tiny_patch16": ({"depth": 4}, 1),
}


class Doubled(ExportForm):
    """A module whose export form knows the size of its map."""

    needs_size = True

    def forward(self, x: Tensor) -> Tensor:
        return x + x.shape[-1] / 100.0

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        assert size_hw is not None
        return _Added(size_hw[1] / 100.0)


class _Added(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class OddNet(SlimNet):
    """A norm in front of its convolution, a module of one size, a matrix that the exporter may rewrite."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        channels = Channels(16)
        self.stem = nn.Sequential(SlimConv(3, channels, 3, stride=2), SlimBatchNorm(channels), nn.ReLU(), Doubled())
        before = nn.Sequential(SlimBatchNorm(channels), nn.ReLU(), SlimConv(channels, channels, 3))
        self.stages = nn.ModuleList([before])
        self.feature_info = [FeatureInfo(16, 2)]
        self.classifier = SlimLinear(channels, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


@pytest.fixture
def _odd_net() -> Iterator[None]:
    MODELS["odd"] = OddNet
    try:
        yield
    finally:
        del MODELS["odd"]


def trained(name: str, options: dict[str, Any], source: PictureSource, widths: tuple[float, ...]) -> Checkpoint:
    """Calibrated, with weights drawn by a seed."""
    torch.manual_seed(0)
    recipe = Recipe(
        model=name, model_options=options, widths=widths, resolutions=RESOLUTIONS, calib_pictures=6, select_pictures=9,
        norm_pictures=24,
    )  # fmt: skip
    model = zoo.create(name, num_classes=len(CLASSES), **options).eval()
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    calibrate(model, source, splits["train"], recipe.points(), recipe.mean, recipe.std)
    return Checkpoint(model.state_dict(), recipe.to_dict(), source.classes, accuracy=[])


def check_bundle(request: BuildRequest, graphs: int) -> Bundle:
    """Build, verify on the device's side, and run."""
    path, _ = build(request)
    bundle = Bundle.load(path)
    require_passed(verify_bundle(bundle))
    engines = {p.name: p.backend for p in bundle.manifest.programs}
    floats = {p.program for p in bundle.manifest.points if "-fp32" in p.name and engines[p.program] == "onnxruntime"}
    widths = {p.width for p in bundle.manifest.points}
    assert len(floats) == (graphs * len(widths) if "onnxruntime" in request.backends else 0)
    with Runtime.load(path, budget=Budget(1000.0), sensors=NoSensors()) as runtime:
        answer = runtime.infer(np.zeros((40, 50, 3), np.uint8)).answer
    assert {label for label, _ in answer.top} == set(CLASSES)
    return bundle


@pytest.mark.usefixtures("_odd_net")
def test_a_network_whose_graphs_belong_to_one_size_gets_one_for_each_and_shares_its_weights(
    source: PictureSource, tmp_path: Path
) -> None:
    checkpoint = trained("odd", {}, source, (0.5, 1.0))
    request = BuildRequest(
        checkpoint, source, tmp_path / "odd.bundle", "odd", ("fp32", "int8"), QuantSpec(max_drop=1.0)
    )
    bundle = check_bundle(request, 2)
    assert {p.name for p in bundle.manifest.programs if p.precision == "fp32"} == {
        f"w{width:.2f}-r{resolution:03d}-fp32" for width in (0.5, 1.0) for resolution in RESOLUTIONS
    }
    stored = [a for name, a in bundle.weights.items() if name.endswith("stages.0.2.weight")]
    assert [a.shape for a in stored] == [(16, 16, 3, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_becomes_a_bundle_in_both_precisions(name: str, source: PictureSource, tmp_path: Path) -> None:
    options, graphs = SYSTEMS[name]
    checkpoint = trained(name, {"small_input": True, **options}, source, (0.5, 1.0))
    request = BuildRequest(
        checkpoint, source, tmp_path / "system.bundle", "system", ("fp32", "int8"), QuantSpec(max_drop=1.0)
    )
    bundle = check_bundle(request, graphs)
    assert {bundle.program(p).precision for p in bundle.manifest.points} == {"fp32", "int8"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_runs_on_executorch(name: str, source: PictureSource, tmp_path: Path) -> None:
    options, _ = SYSTEMS[name]
    checkpoint = trained(name, {"small_input": True, **options}, source, (1.0,))
    checkpoint = dataclasses.replace(checkpoint, recipe={**checkpoint.recipe, "resolutions": [32]})
    request = BuildRequest(
        checkpoint, source, tmp_path / "system.bundle", "system", backends=("executorch",), min_delegated=0.0,
        cache_folder=tmp_path / "cache",
    )  # fmt: skip
    bundle = check_bundle(request, 1)
    assert [p.name for p in bundle.manifest.points] == ["w1.00-r032-fp32-et"]
