"""Small versions of every image system, for tests that run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

import zoo
from zoo.calibrate import point_statistics
from zoo.slim_net import SlimNet


@dataclass(frozen=True)
class Small:
    """One system as the tests build it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    narrow: float = 0.5
    """A width below 1.0 that the system's channel rule allows."""
    unreached: tuple[str, ...] = ()
    """Parameters that cannot influence the class scores."""
    dynamic: bool = True
    """The exported graph takes any height and width."""
    exported: bool = True
    """The export test runs it; its relatives that add no operator are left out, since exporting takes seconds."""


_RESNET = {"width_mult": 0.25, "depths": (1, 2, 1, 1)}
_DEEP = {"width_mult": 0.25, "depths": (2, 2, 2, 2)}  # an attention over one block would have nothing to choose
_HORNET = {"width_mult": 0.25, "depths": (1, 1, 1, 1)}
# the class token has left when the last block mixes its patches
_LAST_LOCAL = ("stages.3.0.attention.local.weight", "stages.3.0.attention.local.bias")
SYSTEMS = (
    Small("mobilenet_v2", {"width_mult": 0.25}, exported=False),
    Small("mobilenetv3_large_100", {"width_mult": 0.25}),
    Small("efficientnet_b0", {"width_mult": 0.25}, exported=False),
    Small("regnety_600m", {"width_mult": 0.5, "depths": (1, 1, 1, 1)}),
    Small("densenet121", {"width_mult": 0.5, "depths": (1, 1, 2, 1)}),
    Small("resnet50", _RESNET, exported=False),
    Small("se_resnet50", _RESNET, exported=False),
    Small("pyconv_resnet50", _RESNET),
    Small("res2net50_26w_4s", _RESNET),
    Small("res2net50_v1b_26w_4s", _RESNET, exported=False),
    Small("res2next50", _RESNET, exported=False),
    Small("SDA-ResNet-86", _DEEP),
    Small("SDA-Res2Net-86", _DEEP, exported=False),
    Small("SDA-SENet-86", _DEEP, exported=False),
    Small("SDA-PyConv-86", _DEEP, exported=False),
    Small("od_resnet18_4x", {"width_mult": 0.25, "depths": (1, 1, 1, 1)}),
    Small("od_resnet50_1x", _RESNET, exported=False),
    Small("od_mobilenetv2_050_4x", {"width_mult": 0.25}, exported=False),
    Small("dcdc_resnet50", {"width_mult": 0.5, "depths": (1, 1, 1, 1)}),
    Small("hornet_tiny_7x7", _HORNET),
    Small("hornet_tiny_gf", _HORNET, dynamic=False),
    Small("resformer_tiny_patch16", {"depth": 4}, unreached=_LAST_LOCAL),
)
CLASSES, SIDE = 5, 32


def build(small: Small) -> SlimNet:
    """The network with seeded weights; one-dimensional parameters are drawn too, so that each of them matters."""
    torch.manual_seed(0)
    model = zoo.create(small.name, num_classes=CLASSES, small_input=True, **small.options)
    for parameter in model.parameters():
        if parameter.dim() <= 1 or not parameter.any():
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
        elif float(parameter.detach().std()) < 0.03:  # a transformer's start, from which all pictures look alike
            torch.nn.init.kaiming_uniform_(parameter, a=1.0)
    return model.eval()


def calibrated(small: Small, widths: tuple[float, ...], sides: tuple[int, ...] = (SIDE,)) -> SlimNet:
    """The network with statistics of random pictures at each width and side."""
    model = build(small)
    entries = {}
    for side in sides:
        batches = [torch.randn(4, 3, side, side) for _ in range(2)]
        for width in widths:
            entries[model.point_key(width, side)] = point_statistics(model, width, batches)
    model.norm_bank.entries = entries
    return model
