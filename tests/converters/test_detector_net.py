"""The form in which a detector is exported: the same numbers, decoded, with a folded norm for each level."""

from __future__ import annotations

import pytest
import torch
from small_box_training import FLIPPED, RECIPE
from torch import nn

from converters.detector_net import RowDecoder, RowDetector
from converters.norm_folding import find_norm_pairs, fold_norms
from converters.shared_weights import full_store
from zoo import materialise
from zoo.calibrate import point_statistics
from zoo.efficientdet import EfficientDet
from zoo.efficientdet_boxes import anchor_boxes, decode_boxes, flatten_maps
from zoo.export_form import export_form, has_fixed_size
from zoo.slim_layers import SlimBatchNorm

SIDE = 40


@pytest.fixture
def detector() -> EfficientDet:
    """Random norms, the coarsest level's with signs of its own, and statistics of noise at one point."""
    torch.manual_seed(0)
    net = RECIPE.build_model(3)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, SlimBatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
        for parameter in (net.class_head.predictor.pointwise.weight, net.box_head.predictor.pointwise.weight):
            parameter.normal_(std=0.3)
        net.get_submodule(FLIPPED.rpartition(".")[0]).weight[::3] *= -1.0
    statistics = point_statistics(net, 0.5, [torch.randn(4, 3, SIDE, SIDE)])
    net.norm_bank.entries = {net.point_key(0.5, SIDE): statistics}
    return net.eval()


def expected_rows(plain: nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits, codes = flatten_maps(plain(x))
    boxes = decode_boxes(codes, anchor_boxes((x.shape[-2], x.shape[-1]), plain.settings.anchor_scale))
    return torch.cat((boxes[..., [1, 0, 3, 2]], logits), -1)


@torch.no_grad()
def test_rows_are_decoded_as_the_zoo_does(detector: EfficientDet) -> None:
    rows, x = RowDetector(detector), torch.randn(2, 3, SIDE, SIDE)
    plain = materialise(rows, width=0.5, resolution=SIDE)
    expected = expected_rows(materialise(detector, width=0.5, resolution=SIDE), x)
    assert expected[..., 4:].std() > 0.1
    torch.testing.assert_close(plain(x), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(rows(x, 0.5), expected, rtol=1e-5, atol=1e-4)
    assert has_fixed_size(plain)
    torch.testing.assert_close(export_form(plain, SIDE)(x), expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_every_norm_is_folded_into_a_convolution_of_its_own(detector: EfficientDet) -> None:
    plain, x = materialise(RowDetector(detector), width=0.5, resolution=SIDE), torch.randn(1, 3, SIDE, SIDE)
    pairs = find_norm_pairs(plain, x)
    norms = [name for name, module in plain.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(pair.norm for pair in pairs) == sorted(norms)
    assert len({pair.convolution for pair in pairs}) == len(pairs)
    torch.testing.assert_close(fold_norms(plain, pairs, x)(x), plain(x), rtol=1e-4, atol=1e-3)


def test_levels_share_their_parameters_but_for_norms_of_other_signs(detector: EfficientDet) -> None:
    rows = RowDetector(detector)
    store = full_store(rows)
    own = "class_head.levels.3.0.pointwise.weight"
    assert set(store.arrays) - {n for n, _ in detector.named_parameters()} == {own}
    assert store.aliases["class_head.levels.2.0.pointwise.weight"] == "class_head.convolutions.0.pointwise.weight"
    assert store.aliases["box_head.levels.3.1.depthwise.weight"] == "box_head.predictor.depthwise.weight"
    narrow = store.arrays["class_head.convolutions.0.depthwise.weight"][:8]
    name = "class_head.levels.1.0.depthwise.weight"
    assert store.source_of(name, narrow, "w0.50") == "class_head.convolutions.0.depthwise.weight"
    assert store.source_of(name, narrow + 1, "w0.50") == f"w0.50/{name}"
    for name in rows.class_predictors():
        assert store.aliases.get(f"{name}.weight", f"{name}.weight") == "class_head.predictor.pointwise.weight"
    assert len(rows.class_predictors()) == 5


def test_anchors_follow_pictures_that_are_not_square() -> None:
    anchors = len(anchor_boxes((32, 48), 2.0))
    maps = [torch.zeros(1, 9 * k, -(-32 // s), -(-48 // s)) for k in (3, 4) for s in (8, 16, 32, 64, 128)]
    rows = RowDecoder(2.0)(torch.zeros(1, 3, 32, 48), *maps)
    assert rows.shape == (1, anchors, 7)
    torch.testing.assert_close(rows[0, :, :4], anchor_boxes((32, 48), 2.0)[:, [1, 0, 3, 2]])
    with pytest.raises(ValueError, match="for one size, and none is given"):
        RowDecoder(2.0).to_export_form(None)
