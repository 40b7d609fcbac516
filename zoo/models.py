"""The tables of all models, name -> constructor, by what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from zoo import (
    dcdc,
    densenet,
    ean,
    efficientdet,
    efficientnet,
    hornet,
    mobilenet_v3,
    mvit,
    odconv,
    pyconv,
    regnet,
    res2net,
    resformer,
    rsbnet,
    s3d,
    sda,
    sfnet,
    slowfast,
    squeeze_excitation,
    stm,
    x3d,
)
from zoo.mobilenet_v1 import MobileNetV1
from zoo.mobilenet_v2 import MobileNetV2
from zoo.resnet import resnet50
from zoo.slim_net import SlimNet

MODELS: dict[str, Callable[..., SlimNet]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "resnet50": resnet50,
    **mobilenet_v3.VARIANTS,
    **efficientnet.VARIANTS,
    **regnet.VARIANTS,
    **densenet.VARIANTS,
    **res2net.VARIANTS,
    **pyconv.VARIANTS,
    **squeeze_excitation.VARIANTS,
    **sda.VARIANTS,
    **odconv.VARIANTS,
    **dcdc.VARIANTS,
    **hornet.VARIANTS,
    **resformer.VARIANTS,
}
"""Classes of a picture (N, 3, H, W): what `python -m zoo train` trains and the converters put into bundles."""

CLIP_MODELS: dict[str, Callable[..., nn.Module]] = {
    **slowfast.VARIANTS,
    **x3d.VARIANTS,
    **s3d.VARIANTS,
    **ean.VARIANTS,
    **mvit.VARIANTS,
    **stm.VARIANTS,
}
"""Classes of a clip (N, 3, T, H, W); mvit_b_16_in1k alone takes pictures."""

DENSE_MODELS: dict[str, Callable[..., nn.Module]] = {**efficientdet.VARIANTS, **sfnet.VARIANTS}
"""Boxes, or a class for each pixel, of a picture."""

PATH_MODELS: dict[str, Callable[..., nn.Module]] = {**rsbnet.VARIANTS}
"""Supernets of which a path is chosen (zoo.path_search)."""


def all_models() -> dict[str, Callable[..., nn.Module]]:
    """All tables together."""
    return {**MODELS, **CLIP_MODELS, **DENSE_MODELS, **PATH_MODELS}


def create(name: str, **options: object) -> nn.Module:
    """Build a model of the tables with fresh weights.

    Args:
        name: a key of `all_models()`.
        options: the constructor's own (num_classes, small_input, width_mult, ...).
    Raises:
        ValueError: the name is unknown, or the model does not take such an option.
    """
    models = all_models()
    if name not in models:
        raise ValueError(f"model {name!r} is unknown; the zoo has {', '.join(sorted(models))}")
    try:
        return models[name](**options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: {error}") from error
