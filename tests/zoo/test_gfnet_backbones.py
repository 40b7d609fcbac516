"""MobileNetV3-Large, RegNetY and DenseNet: published sizes, and what a narrow subnet keeps of them."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.madds import count_madds
from zoo.regnet import DESIGNS, GroupBottleneck
from zoo.slim_layers import Joined, SlimConv

# parameters and multiply-adds at 224 pixels. MobileNetV3 1.0, RegNetY-1.6GF and the DenseNets: the published files'
# parameters; RegNetY-600MF and -800MF: the paper's 6.1 and 6.3 million, 0.6 and 0.8 G; 1.25: by its channel rule
SIZES = {
    "mobilenetv3_large_100": (5_483_032, 216_589_760),
    "mobilenetv3_large_125": (7_551_976, 355_221_920),
    "regnety_600m": (6_055_160, 601_220_992),
    "regnety_800m": (6_263_168, 797_176_832),
    "regnety_1.6g": (11_202_430, 1_612_076_160),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
}


@pytest.mark.parametrize("name", SIZES)
def test_each_backbone_has_the_published_size(name: str) -> None:
    with torch.device("meta"):
        model = zoo.create(name).eval()
        assert (sum(p.numel() for p in model.parameters()), count_madds(model, (1, 3, 224, 224))) == SIZES[name]


def test_regnet_stages_follow_from_four_numbers() -> None:
    assert DESIGNS["600m"].stages() == [(48, 1), (112, 3), (256, 7), (608, 4)]
    assert DESIGNS["800m"].stages()[-1][0] == 768
    assert DESIGNS["1.6g"].stages()[-1][0] == 888


@pytest.mark.parametrize("width", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_narrow_regnet_block_keeps_whole_groups(width: float) -> None:
    blocks = [m for m in zoo.create("regnety_600m").modules() if isinstance(m, GroupBottleneck)]
    assert len(blocks) == 15
    for block in blocks:
        grouped = block.body[3]
        assert isinstance(grouped, SlimConv)
        assert grouped.outputs.at(width) == 16 * grouped.groups.at(width)


def test_a_narrow_dense_layer_keeps_a_prefix_of_what_each_layer_before_gave() -> None:
    torch.manual_seed(0)
    model = zoo.create("densenet121", num_classes=3, width_mult=0.5, depths=(2, 1, 1, 1), small_input=True).eval()
    second = model.stages[0][1]
    assert isinstance(second.body[2].inputs, Joined)
    plain = zoo.materialise(model, width=0.5)
    narrow, full = plain.stages[0][1].body[2].weight, second.body[2].weight
    assert narrow.shape[1] == 16 + 8  # half of the stem's 32 and of the first layer's 16
    torch.testing.assert_close(narrow, torch.cat([full[:32, :16], full[:32, 32:40]], 1))


def test_an_unknown_regnet_is_named() -> None:
    with pytest.raises(ValueError, match=r"design is '9g', expected one of 600m, 800m, 1\.6g"):
        zoo.regnet.RegNet(design="9g")
