"""EfficientDet against recorded facts, its parts against slow references, training and export."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn

from zoo.calibrate import point_statistics
from zoo.efficientdet import SETTINGS, VARIANTS, EfficientDet, FixedSum, SamePool, Settings, WeightedSum
from zoo.efficientdet_boxes import Target, anchor_boxes, detection_loss, find_boxes, flatten_maps, pairwise_iou
from zoo.efficientnet import Scaling
from zoo.slim_layers import SlimBatchNorm, SlimLayer
from zoo.slim_net import materialise

FACTS = json.loads((Path(__file__).parent / "facts" / "efficientdet.json").read_text("utf-8"))
SMALL = Settings(Scaling(0.25, 0.25, 256), channels=24, cells=2, head_depth=1)
CLASSES, SIDE = 3, 256
BOXES = ((20.0, 30.0, 90.0, 110.0), (150.0, 60.0, 230.0, 130.0))
LABELS = (2, 0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _small(settings: Settings = SMALL) -> EfficientDet:
    """A small detector whose every parameter matters: fusion weights and norms are drawn, predictors are not tiny."""
    model = EfficientDet(CLASSES, settings=settings)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.0)
    for head in (model.class_head, model.box_head):
        nn.init.kaiming_uniform_(head.predictor.pointwise.weight, a=1.0)
    return model.eval()


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(VARIANTS[name](), FACTS["fingerprints"][name], exact=True)


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    assert counted(VARIANTS[name], facts["input"]) == (facts["params"], facts["madds"])


def test_the_facts_hold_every_variant_and_its_side() -> None:
    assert set(FACTS["counts"]) == set(VARIANTS) == set(SETTINGS)
    published = {name: row["input"][2] for name, row in FACTS["counts"].items() if name.startswith("tf_")}
    assert published == {name: SETTINGS[name].backbone.resolution for name in published}


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (2, 1), (5, 4), (1, 1)])
def test_same_pool_equals_a_loop_over_the_windows_that_tensorflow_takes(height: int, width: int) -> None:
    x = torch.randn(1, 2, height, width) - 5.0  # below zero, so that a padding of zeros would show
    tops = [max(0, (math.ceil(side / 2) - 1) * 2 + 3 - side) // 2 for side in (height, width)]
    expected = torch.stack([
        torch.stack([
            x[:, :, max(0, i - tops[0]) : i - tops[0] + 3, max(0, j - tops[1]) : j - tops[1] + 3].amax((2, 3))
            for j in range(0, width, 2)
        ], -1)
        for i in range(0, height, 2)
    ], -2)  # fmt: skip
    assert torch.equal(SamePool()(x), expected)


def test_only_the_published_variants_pool_as_tensorflow_does() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1, 1] = 1.0  # in one window that starts at the border, in four where a row lies before it
    for tensorflow, windows in ((True, 1), (False, 4)):
        model = _small(replace(SMALL, tensorflow=tensorflow))
        pools = [model.reduce_p6[-1], model.reduce_p7, *(cell.pool for cell in model.cells)]
        assert [int(pool(x).sum()) for pool in pools] == [windows] * 4


def test_every_norm_has_the_epsilon_of_the_published_weights() -> None:
    norms = [module for module in _small().modules() if isinstance(module, SlimBatchNorm)]
    assert {norm.eps for norm in norms} == {1e-3}


@torch.no_grad()
def test_a_weighted_sum_ignores_negative_weights_and_gives_shares_of_nearly_one() -> None:
    maps = torch.randn(3, 2, 4, 5, 5)
    fuse = WeightedSum(3)
    fuse.weights.copy_(torch.tensor([1.0, -2.0, 3.0]))
    expected = (maps[0] + 3.0 * maps[2]) / (4.0 + 1e-4)
    torch.testing.assert_close(fuse(*maps), expected)
    torch.testing.assert_close(fuse.materialise(1.0)(*maps), expected)
    torch.testing.assert_close(FixedSum([1.0] * 3)(*maps), maps.sum(0))


@torch.no_grad()
def test_a_cell_passes_information_from_every_level_to_every_level() -> None:
    cell = _small().cells[1].double()
    maps = [torch.randn(1, 24, side, side, dtype=torch.float64) for side in (32, 16, 8, 4, 2)]
    before = cell(maps)
    for changed in range(5):
        others = [x + 1.0 if level == changed else x for level, x in enumerate(maps)]
        assert not any(torch.equal(a, b) for a, b in zip(before, cell(others), strict=True))


def test_p4_and_p5_are_projected_twice_in_the_first_cell_only() -> None:
    model = _small()
    counts = [[len(list(edges.parameters())) for edges in (c.down_edges, c.up_edges)] for c in model.cells]
    assert counts == [[4 * 3, 4 * 2], [0, 0]]  # weight, bias and the norm's two


@torch.no_grad()
def test_levels_have_norms_of_their_own_and_share_all_else() -> None:
    head = _small().class_head
    x = torch.randn(1, 24, 4, 4)
    outputs = head([x] * 5)
    assert not any(torch.equal(outputs[0], other) for other in outputs[1:])
    for norms in head.norms:
        for norm in norms:
            norm.load_state_dict(norms[0].state_dict())
    assert all(torch.equal(head([x] * 5)[0], other) for other in head([x] * 5)[1:])


@torch.no_grad()
def test_before_training_every_class_has_a_score_of_about_one_percent() -> None:
    logits, codes = flatten_maps(EfficientDet(CLASSES, settings=SMALL).eval()(torch.randn(1, 3, 128, 128)))
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), rtol=0.3, atol=0.0)
    assert float(codes.abs().max()) < 0.3


@torch.no_grad()
@pytest.mark.parametrize("size", [(128, 256), (320, 320), (200, 136)])
def test_the_maps_have_the_cells_of_the_anchors_at_any_size(size: tuple[int, int]) -> None:
    maps = _small()(torch.randn(2, 3, *size))
    assert [tuple(m.shape[2:]) for m in maps] == [tuple(math.ceil(s / 2**k) for s in size) for k in range(3, 8)] * 2
    logits, codes = flatten_maps(maps)
    anchors = anchor_boxes(size)
    assert (logits.shape, codes.shape) == ((2, len(anchors), CLASSES), (2, len(anchors), 4))
    cell, anchor, label = (3, 1), 7, 2  # channel order: anchor by anchor, the classes of each behind each other
    assert logits[1, (3 * maps[0].shape[3] + 1) * 9 + anchor, label] == maps[0][(1, anchor * CLASSES + label, *cell)]


@torch.no_grad()
def test_features_have_the_channels_and_strides_that_the_network_states() -> None:
    model = _small()
    features = model.forward_features(torch.randn(1, 3, 128, 128))
    stated = [(info.channels, 128 // info.stride) for info in model.feature_info]
    assert [(f.shape[1], f.shape[2]) for f in features] == stated
    assert [stated[i][1] for i in (2, 4, 6)] == [16, 8, 4]


@torch.no_grad()
@pytest.mark.parametrize("published", [True, False])
def test_a_materialised_subnet_equals_the_supernet_at_its_point(published: bool) -> None:
    model = _small(SMALL if published else replace(SMALL, tensorflow=False, weighted=False))
    batches = [torch.randn(4, 3, 128, 128) for _ in range(2)]
    model.norm_bank.entries = {model.point_key(w, 128): point_statistics(model, w, batches) for w in (1.0, 0.5)}
    x = torch.randn(2, 3, 128, 128)
    full = sum(p.numel() for p in model.parameters())
    sums = sum(m.weights.numel() for m in model.modules() if isinstance(m, WeightedSum))
    for width in (1.0, 0.5):
        plain = materialise(model, width=width, resolution=128)
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        count = sum(p.numel() for p in plain.parameters())
        assert count == full - sums if width == 1.0 else count < 0.7 * full
        for found, expected in zip(plain(x), model(x, width), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x), model(x, 1.0))


def _picture() -> Tensor:
    """Two bright rectangles on a dark, noisy ground, (1, 3, 256, 256)."""
    picture = 0.1 * torch.randn(1, 3, SIDE, SIDE)
    for (x1, y1, x2, y2), channel in zip(BOXES, (0, 2), strict=True):
        picture[:, channel, int(y1) : int(y2), int(x1) : int(x2)] += 2.0
    return picture


def test_a_small_detector_learns_two_boxes_of_one_picture_and_finds_them() -> None:
    model = EfficientDet(CLASSES, settings=SMALL).train()
    picture, anchors = _picture(), anchor_boxes((SIDE, SIDE))
    targets = [Target(torch.tensor(BOXES), torch.tensor(LABELS))]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[tuple[float, float]] = []
    for _ in range(35):
        optimizer.zero_grad()
        loss = detection_loss(model(picture), anchors, targets)
        losses.append((loss.classes.item(), loss.boxes.item()))
        loss.total.backward()
        optimizer.step()
    assert all(last < 0.2 * first for first, last in zip(losses[0], losses[-1], strict=True))
    model.norm_bank.entries = {model.point_key(1.0, SIDE): point_statistics(model, 1.0, [picture])}
    (found,) = find_boxes(model(picture), anchors, (SIDE, SIDE), score_min=0.5)
    assert sorted(found.labels.tolist()) == [0, 2]
    for box, label in zip(found.boxes_xyxy, found.labels, strict=True):
        wanted = torch.tensor([BOXES[LABELS.index(label)]])
        assert float(pairwise_iou(torch.from_numpy(box)[None], wanted)) > 0.7


def test_every_parameter_gets_a_finite_gradient_but_the_biases_that_a_norm_cancels() -> None:
    model = _small().train()
    anchors = anchor_boxes((SIDE, SIDE))
    sizes = (anchors[:, 2:] - anchors[:, :2]).mean(1)
    objects = torch.stack([anchors[sizes.sub(side).abs().argmin()] for side in (32, 64, 128, 256, 512)])
    targets = [Target(objects + 1.0, torch.arange(5) % CLASSES)]  # one for each level, none just at its anchor
    detection_loss(model(_picture()), anchors, targets).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        redundant = name.endswith("bias") and ".excite." not in name and not _feeds_no_norm(name)
        assert redundant or float(parameter.grad.abs().sum()) > 0, name


def _feeds_no_norm(name: str) -> bool:
    """Biases of predictors and of the norms themselves."""
    return "predictor" in name or "pointwise" not in name


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["tf_efficientdet_d0", "tf_efficientdet_lite0", "efficientdet_d0"])
def test_onnxruntime_equals_torch_and_fusion_weights_are_constants(name: str) -> None:
    settings = replace(SETTINGS[name], channels=16, cells=2, head_depth=1)
    lite = settings.backbone.lite
    settings = replace(settings, backbone=Scaling(0.25, 0.25, 128, lite=lite))
    plain = materialise(_small(settings), width=1.0)
    assert not any(isinstance(m, WeightedSum) for m in plain.modules())
    assert len(plain(torch.zeros(1, 3, 128, 128))) == 10
    assert_onnx_equals(plain, torch.randn(1, 3, 128, 128))


def test_wrong_arguments_of_the_network_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="num_classes is 0, expected 1 or more"):
        EfficientDet(0, settings=SMALL)
    with pytest.raises(ValueError, match="cells is 0, expected 1 or more"):
        EfficientDet(settings=replace(SMALL, cells=0))
    with pytest.raises(ValueError, match="channels is 60, expected a multiple of 8"):
        EfficientDet(settings=replace(SMALL, channels=60))
    with pytest.raises(ValueError, match=r"H, W\); give it RGB pictures"):
        _small()(torch.zeros(1, 1, 128, 128))
    with pytest.raises(ValueError, match="take several pictures or a side above 128"):
        _small().train()(torch.zeros(1, 3, 128, 128))
