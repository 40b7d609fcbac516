"""The zoo's image systems as docs/zoo.md lists them: what is written by hand, and where the rest is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo import (
    dcdc,
    densenet,
    efficientnet,
    hornet,
    mobilenet_v3,
    odconv,
    pyconv,
    regnet,
    res2net,
    resformer,
    sda,
    squeeze_excitation,
)

ABS = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class System:
    """One row."""

    title: str
    files: tuple[str, ...]
    papers: tuple[str, ...]
    """arXiv numbers."""
    brings: str
    variants: Mapping[str, object]
    """As in `zoo.models.MODELS`."""
    width_knob: str
    resolution_knob: str
    parity: str
    recipe: str | None = None
    """Of the small version that is trained: zoo/recipes/<recipe>.toml, runs/<recipe>/model.pt, runs/<recipe>.bundle."""


SYSTEMS = (
    System(
        "ResNet-50, MobileNetV1, V2", ("resnet.py", "mobilenet_v1.py", "mobilenet_v2.py"),
        ("1512.03385", "1704.04861", "1801.04381", "1909.12978"), "the plain networks",
        dict.fromkeys(("resnet50", "mobilenet_v1", "mobilenet_v2")), "multiples of 8 channels", "any", "exact",
        "system-resnet-20",
    ),
    System(
        "Res2Net, Res2NeXt", ("res2net.py",), ("1904.01169",), "several receptive fields inside a block",
        res2net.VARIANTS, "each scale keeps a prefix of its channels", "any", "exact", "system-res2net-20",
    ),
    System(
        "SDA-xNet", ("sda.py",), ("2209.10327",), "attention over the blocks of a stage, on any block", sda.VARIANTS,
        "follows the block (ResNet: 8 groups; PyConv: quarters)", "any", "exact", "system-sda-20",
    ),
    System(
        "ODConv-ResNet, -MobileNetV2", ("odconv.py",), ("2209.07947",), "kernels mixed anew for each picture",
        odconv.VARIANTS, "channels, and the number of kernels in the set", "any", "exact", "system-odconv-20",
    ),
    System(
        "DCDC-ResNet", ("dcdc.py",), ("2211.06163",), "a kernel per position plus a kernel per picture", dcdc.VARIANTS,
        "groups of 16 channels", "any", "none exists; **after the abstract**, checked by properties", "system-dcdc-20",
    ),
    System(
        "HorNet", ("hornet.py", "global_filter.py"), ("2207.14284",),
        "interactions of high order by recursive gating", hornet.VARIANTS,
        "units of C / 4 channels, times a power of two by stage", "any; one graph a size with global filters", "exact",
        "system-hornet-20",
    ),
    System(
        "ResFormer", ("resformer.py",), ("2212.00776",), "a transformer that takes any resolution", resformer.VARIANTS,
        "whole heads of 64 channels", "whole patches", "exact", "system-resformer-20",
    ),
    System(
        "PyConv-ResNet", ("pyconv.py",), ("2006.11538",), "kernels of 3 to 9 pixels side by side", pyconv.VARIANTS,
        "whole groups: quarters", "any", "through SDA-PyConv-86",
    ),
    System(
        "SE-ResNet", ("squeeze_excitation.py",), ("1709.01507",), "one gate per channel from the whole picture",
        squeeze_excitation.VARIANTS, "as ResNet", "any", "through SDA-SENet-86",
    ),
    System(
        "MobileNetV3-Large, EfficientNet, RegNetY, DenseNet",
        ("mobilenet_v3.py", "efficientnet.py", "regnet.py", "densenet.py"),
        ("1905.02244", "1905.11946", "2003.13678", "1608.06993"), "backbones of the default model and Glance and Focus",
        {**mobilenet_v3.VARIANTS, **efficientnet.VARIANTS, **regnet.VARIANTS, **densenet.VARIANTS},
        "channels; groups in RegNetY", "any", "through GFNet",
    ),
    System(
        "GFNet (Glance and Focus)", ("gfnet.py",), ("2010.05300",), "a look at the whole, then at patches, until sure",
        {}, "of each encoder", "of glance and patches", "by component; see [glance and focus](glance-and-focus.md)",
    ),
)  # fmt: skip
RESFORMER = "system-resformer-20"
PLAIN_TRANSFORMER = "system-vit-20"
"""ResFormer's network without its recipe."""
