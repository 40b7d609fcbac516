"""The table of all models: name -> constructor."""

from __future__ import annotations

from collections.abc import Callable

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


def create(name: str, **options: object) -> SlimNet:
    """Build a model of the table with fresh weights.

    Args:
        name: a key of `MODELS`.
        options: the constructor's own (num_classes, small_input, width_mult, ...).
    Raises:
        ValueError: the name is unknown, or the model does not take such an option.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; the zoo has {', '.join(sorted(MODELS))}")
    try:
        return MODELS[name](**options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: {error}") from error
