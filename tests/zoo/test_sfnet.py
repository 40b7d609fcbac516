"""SFNet and SFNet-Lite: recorded facts of the authors' code, flow and loss against slow loops, training, export.

The fingerprints of whole networks and all counts are of the shared facts; those of the other backbones ("features")
come from a second version, typed after the layer lists of the authors' repository (lxtGH/SFSegNets, commit 22c5669) and
not from running it: they tell a slip in one of the two, not a misreading common to both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted, differences, fill_parameters, fill_statistics, fingerprint
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.calibrate import point_statistics
from zoo.export_form import FixedSizeError, export_form
from zoo.madds import count_madds
from zoo.sfnet import VARIANTS, SFNet, supervised_loss
from zoo.sfnet_backbones import dfnet_backbone, resnet_d_backbone, stdc_backbone
from zoo.sfnet_parts import (
    FlowAlignment,
    FlowPyramid,
    GatedDualFlow,
    LiteHead,
    PyramidPooling,
    base_grid,
    hard_pixel_loss,
    resize,
    warp,
)
from zoo.slim_layers import Channels, SlimLayer

FACTS = json.loads((Path(__file__).parent / "facts" / "sfnet.json").read_text("utf-8"))
CLASSES = 5

# Parameters of the authors' modules that no pass reads; ours do not exist.
STDC_CLASSIFIER = 2 * 1024 * 1024 + 2 * 2 * 1024 + 1024 * 1000  # 1x1 conv and linear, a norm each, class scores
THIRD_LATERAL = 512 * 128 + 128 + 2 * 128
UNREAD = {
    "SFNet-Lite-R18": THIRD_LATERAL,
    **dict.fromkeys(("SFNet-STDC1", "SFNet-STDC2", "SFNet-Lite-STDC1", "SFNet-Lite-STDC2"), STDC_CLASSIFIER),
}

_SMALL_GROUPS = ((), ((64, 1, 2),), ((128, 1, 2), (256, 1, 1)), ((512, 1, 2),))
BACKBONES = {
    "resnet": partial(resnet_d_backbone, depths=(1, 1, 1, 1)),
    "bottleneck": partial(resnet_d_backbone, depths=(1, 1, 1, 1), bottleneck=True),
    "stdc": partial(stdc_backbone, depths=(1, 2, 1)),
    "dfnet": partial(dfnet_backbone, groups=_SMALL_GROUPS, strides=(8, 16, 32)),
}
SMALL = {
    "pyramid of resnet": partial(SFNet, backbone=BACKBONES["resnet"], head=FlowPyramid, channels=64),
    "pyramid of bottlenecks": partial(SFNet, backbone=BACKBONES["bottleneck"], head=FlowPyramid, channels=64),
    "pyramid of dfnet": partial(SFNet, backbone=BACKBONES["dfnet"], head=FlowPyramid, channels=64),
    "lite of resnet": partial(SFNet, backbone=BACKBONES["resnet"], head=LiteHead, channels=64),
    "lite of stdc": partial(SFNet, backbone=BACKBONES["stdc"], head=LiteHead, channels=64),
}
EACH_SMALL = pytest.mark.parametrize("name", SMALL)
EACH_HEAD = pytest.mark.parametrize("name", ["pyramid of resnet", "lite of stdc"])


def small(name: str, **options: object) -> SFNet:
    torch.manual_seed(0)
    return SMALL[name](CLASSES, width_mult=0.25, **options)


# Facts of the reference


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(VARIANTS[name](), FACTS["fingerprints"][name], used=True)


@pytest.mark.parametrize("name", FACTS["features"])
def test_a_backbone_gives_the_features_of_the_reference(name: str) -> None:
    facts = FACTS["features"][name]
    with torch.device("meta"):
        model = VARIANTS[name]()
    model.head, model.forward = nn.Identity(), model.forward_features
    model.to_empty(device="cpu")
    fill_parameters(model)
    fill_statistics(model)
    assert differences(fingerprint(model, facts["inputs"]), facts["outputs"]) == []


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    make = partial(VARIANTS[name], deep_supervision="Lite" in name)  # the reference counts its scores, unused
    parameters, madds = counted(make, *facts["inputs"])
    assert (parameters + UNREAD.get(name, 0), madds) == (facts["params"], facts["madds"])


def test_the_variants_are_those_of_the_facts() -> None:
    assert set(VARIANTS) == set(FACTS["counts"])
    assert set(FACTS["fingerprints"]) | set(FACTS["features"]) <= set(VARIANTS)


@EACH_SMALL
@torch.no_grad()
def test_features_have_the_channels_and_strides_that_the_network_states(name: str) -> None:
    model = small(name).eval()
    features = model.forward_features(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (info.channels, 64 // info.stride, 96 // info.stride) for info in model.feature_info
    ]
    assert model(torch.zeros(1, 3, 61, 90)).shape == (1, CLASSES, 61, 90)


# Flow


def gathered(feature: Tensor, flow: Tensor) -> Tensor:
    """`warp` in plain loops: for each output pixel, the four neighbours of the place where it reads."""
    count, channels, rows, columns = feature.shape
    height, width = flow.shape[-2:]
    output = torch.zeros(count, channels, height, width)
    for n, i, j in np.ndindex(count, height, width):
        x = (-1 + 2 * j / (width - 1) + float(flow[n, 0, i, j]) / width + 1) / 2 * (columns - 1)
        y = (-1 + 2 * i / (height - 1) + float(flow[n, 1, i, j]) / height + 1) / 2 * (rows - 1)
        for r in (math.floor(y), math.floor(y) + 1):
            for c in (math.floor(x), math.floor(x) + 1):
                if 0 <= r < rows and 0 <= c < columns:
                    output[n, :, i, j] += (1 - abs(x - c)) * (1 - abs(y - r)) * feature[n, :, r, c]
    return output


@pytest.mark.parametrize("size", [(4, 7), (3, 5), (9, 6)])
def test_warp_equals_a_loop_over_pixels_also_outside_of_the_map(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    feature, flow = torch.randn(2, 3, 4, 7), 4 * torch.randn(2, 2, *size)
    expected = gathered(feature, flow)
    assert (expected == 0).any()  # some places lie outside
    torch.testing.assert_close(warp(feature, flow), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(warp(feature, flow, base_grid(*size)), expected, rtol=1e-4, atol=1e-4)


def test_without_flow_warp_is_a_resize() -> None:
    feature = torch.randn(1, 3, 5, 8)
    torch.testing.assert_close(warp(feature, torch.zeros(1, 2, 10, 13)), resize(feature, (10, 13)))


def test_the_first_flow_channel_moves_along_the_width() -> None:
    feature = torch.randn(1, 2, 5, 9)
    flow = torch.zeros(1, 2, 5, 9)
    flow[:, 0] = 2 * 2 * 9 / 8  # two pixels: the grid from -1 to 1 has eight steps
    torch.testing.assert_close(warp(feature, flow)[..., :7], feature[..., 2:])


def test_half_precision_reads_the_right_pixel_of_a_wide_map() -> None:
    feature = torch.randn(1, 1, 2, 1024).bfloat16()
    moved = warp(feature, torch.zeros(1, 2, 2, 1024, dtype=torch.bfloat16))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved, feature, rtol=1e-2, atol=1e-2)


def test_gradients_reach_the_feature_and_the_flow() -> None:
    torch.manual_seed(0)
    feature = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = torch.randn(1, 2, 5, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(warp, (feature, flow))


@torch.no_grad()
def test_flow_alignment_compares_coarse_then_fine_and_reads_the_whole_coarse_map() -> None:
    align = FlowAlignment(Channels(8))
    fine, coarse = torch.randn(2, 8, 6, 10), torch.randn(2, 8, 3, 5)
    seen = [resize(F.conv2d(coarse, align.reduce_coarse.weight), (6, 10)), F.conv2d(fine, align.reduce_fine.weight)]
    flow = F.conv2d(torch.cat(seen, 1), align.flow.weight, padding=1)
    torch.testing.assert_close(align(fine, coarse), gathered(coarse, flow), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_gate_chooses_between_the_coarse_and_the_fine_map() -> None:
    align = GatedDualFlow(Channels(8))
    fine, coarse = torch.randn(1, 8, 6, 10), torch.randn(1, 8, 3, 5)
    flow, _ = align.compare(fine, coarse)
    warped = [gathered(coarse, flow[:, :2]), gathered(fine, flow[:, 2:])]
    nn.init.zeros_(align.gate.weight)
    torch.testing.assert_close(align(fine, coarse), (warped[0] + warped[1]) / 2, rtol=1e-3, atol=1e-4)
    align.gate.weight[:, 3, 1, 1] = 1e4  # the maximum of the fine map, here positive everywhere
    fine[:, 0] = 9.0
    flow, _ = align.compare(fine, coarse)
    torch.testing.assert_close(align(fine, coarse), gathered(coarse, flow[:, :2]), rtol=1e-3, atol=1e-4)
    align.gate.weight.neg_()
    torch.testing.assert_close(align(fine, coarse), gathered(fine, flow[:, 2:]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_pyramid_pooling_averages_overlapping_parts() -> None:
    pool = PyramidPooling((Channels(8), Channels(8)), Channels(8)).eval()
    x = torch.randn(1, 16, 7, 5)
    branches = []
    for size, branch in zip((1, 2, 3, 6), pool.branches, strict=True):
        parts = torch.zeros(1, 16, size, size)
        for i, j in np.ndindex(size, size):
            rows = slice(i * 7 // size, math.ceil((i + 1) * 7 / size))
            columns = slice(j * 5 // size, math.ceil((j + 1) * 5 / size))
            parts[..., i, j] = x[..., rows, columns].mean((2, 3))
        branches.append(resize(branch[2](F.conv2d(parts, branch[1].weight)), (7, 5)))
    torch.testing.assert_close(pool(x), pool.join(torch.cat([*branches, x], 1)), rtol=1e-4, atol=1e-5)


# Training


def kept_by_loop(logits: Tensor, labels: Tensor, min_kept: int) -> float:
    """OHEM in plain loops."""
    losses = []
    for n, i, j in np.ndindex(*labels.shape):
        if labels[n, i, j] != 255:
            losses.append(-float(logits[n, :, i, j].softmax(0)[labels[n, i, j]].log()))
    losses.sort(reverse=True)
    hard = [loss for loss in losses if math.exp(-loss) <= 0.7]
    return float(np.mean(max(hard, losses[:min_kept], key=len)))


def test_the_loss_keeps_hard_pixels_and_at_least_so_many() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(2, 4, 5, 7), torch.randint(0, 4, (2, 5, 7))
    logits.scatter_add_(1, labels[:, None], torch.full((2, 1, 5, 7), 4.0))  # mostly right, so that pixels are easy
    labels[0, :2] = 255
    counts = (1, 40, 1000)
    found = [float(hard_pixel_loss(logits, labels, min_kept=count)) for count in counts]
    assert found == pytest.approx([kept_by_loop(logits, labels, count) for count in counts], rel=1e-4)
    assert found[0] > 1.2 * found[1] > 1.2 * found[2]  # by probability, by number, all


def test_a_batch_without_labels_gives_a_loss_of_zero_and_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = hard_pixel_loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(logits.grad.abs().sum()) == 0.0


@EACH_SMALL
def test_a_small_network_learns_a_batch(name: str) -> None:
    model = small(name, deep_supervision=True).train()
    x = torch.randn(2, 3, 4, 6).repeat_interleave(16, 2).repeat_interleave(16, 3)  # 24 squares of one colour each
    labels = (x.mean(1) > 0).long() + 2 * (torch.arange(96) > 50)
    labels[:, :8] = 255
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for step in range(12):
        optimizer.zero_grad()
        loss = supervised_loss(model.forward_supervised(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step == 0:
            missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert set(missing) <= biases_before_a_norm(model)
            assert all(p.grad.isfinite().all() for p in model.parameters())
    assert losses[-1] < 0.6 * losses[0]


def biases_before_a_norm(model: SFNet) -> set[str]:
    """A batch norm takes such a bias out again: its gradient is zero to rounding, sometimes exactly."""
    return {name for name, p in model.named_parameters() if name.endswith("0.bias") and p.dim() == 1}


@EACH_HEAD
def test_the_first_loss_is_that_of_a_guess(name: str) -> None:
    model = small(name).train()
    logits = model(torch.randn(2, 3, 64, 64))
    loss = F.cross_entropy(logits, torch.randint(0, CLASSES, (2, 64, 64)))
    assert float(loss.detach()) == pytest.approx(math.log(CLASSES), rel=0.05)


@pytest.mark.parametrize(("name", "levels"), [("pyramid of resnet", 3), ("pyramid of dfnet", 2), ("lite of stdc", 1)])
def test_deep_supervision_adds_scores_and_changes_nothing_else(name: str, levels: int) -> None:
    x = torch.randn(2, 3, 64, 96)
    model = small(name, deep_supervision=True)
    outputs = model.train().forward_supervised(x)
    assert [tuple(output.shape) for output in outputs] == [(2, CLASSES, 64, 96)] * (1 + levels)
    plain = small(name)
    missing = plain.load_state_dict(model.state_dict(), strict=False)
    assert {key.split(".")[1] for key in missing.unexpected_keys} == {"supervision"}
    assert missing.missing_keys == []
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), model.eval()(x))
    with torch.device("meta"):
        counts = [count_madds(small(name, deep_supervision=flag), (2, 3, 64, 96)) for flag in (False, True)]
    assert counts[0] == counts[1]


# Widths


@EACH_SMALL
@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point(name: str) -> None:
    model = small(name)
    nn.init.normal_(model.head.classifier[-1].weight)
    size_hw, outputs = (64, 96), []
    for width in (1.0, 0.5):
        batches = [torch.randn(2, 3, *size_hw) for _ in range(2)]
        model.norm_bank.entries[model.point_key(width, size_hw)] = point_statistics(model, width, batches)
    x = torch.randn(2, 3, *size_hw)
    for width in (1.0, 0.5):
        plain = zoo.materialise(model, width=width, resolution=size_hw)
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        outputs.append(plain(x))
        torch.testing.assert_close(outputs[-1], model(x, width), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x), outputs[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-2)


@EACH_SMALL
def test_a_narrow_subnet_holds_fewer_parameters_and_trains_only_them(name: str) -> None:
    model = small(name).train()
    full, narrow = (sum(p.numel() for p in zoo.materialise(model, width=width).parameters()) for width in (1.0, 0.5))
    assert narrow < 0.4 * full == 0.4 * sum(p.numel() for p in model.parameters())
    model(torch.randn(2, 3, 64, 64), 0.5).square().mean().backward()
    touched = sum(int((p.grad != 0).sum()) for p in model.parameters() if p.grad is not None)
    assert 0.5 * narrow < touched <= narrow


# Export


@pytest.mark.slow
@EACH_SMALL
@torch.no_grad()
def test_onnxruntime_equals_torch(name: str) -> None:
    model = small(name, deep_supervision=True)
    fill_parameters(model)
    fill_statistics(model)
    plain = zoo.materialise(model, width=1.0)
    x = torch.randn(1, 3, 96, 160)
    form = export_form(plain, (96, 160))
    assert torch.equal(form(x), plain(x))
    assert_onnx_equals(plain, x, torch.randn(1, 3, 96, 160), form=form)


def test_a_graph_for_any_size_is_refused() -> None:
    with pytest.raises(FixedSizeError, match="one picture size only"):
        export_form(zoo.materialise(small("lite of stdc"), width=1.0), None)


# Wrong arguments


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: SMALL["lite of stdc"](0), "num_classes is 0"),
        (lambda: SMALL["lite of stdc"](5, in_channels=0), "in_channels 0, expected at least 1"),
        (lambda: SMALL["lite of stdc"](5, width_mult=0), "width_mult is 0, expected a positive factor"),
        (lambda: SFNet(backbone=BACKBONES["dfnet"], head=LiteHead, channels=64), "3 features, expected 4; choose"),
        (lambda: small("lite of stdc").train().forward_supervised(torch.zeros(2, 3, 64, 64)), "deep_supervision=True"),
        (
            lambda: small("lite of stdc", deep_supervision=True).eval().forward_supervised(torch.zeros(2, 3, 64, 64)),
            r"call train\(\) first",
        ),
        (lambda: warp(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)), r"expected \(2, 2, H, W\)"),
        (lambda: warp(torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 4, 4)), r"expected \(2, 2, H, W\)"),
        (lambda: hard_pixel_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8).long()), "resize the logits"),
        (lambda: hard_pixel_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long(), certain=1.0), "certain is 1.0"),
        (lambda: hard_pixel_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long(), min_kept=0), "min_kept 0"),
        (lambda: small("lite of resnet").train()(torch.zeros(2, 3, 64, 64), 1.5), "expected 0 < width <= 1"),
        (lambda: supervised_loss([], torch.zeros(1, 4, 4).long()), "no outputs"),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
