"""A calibrated checkpoint of a very small network and the made-up pictures that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from zoo.calibrate import calibrate
from zoo.checkpoint import Checkpoint
from zoo.models import MODELS
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLinear
from zoo.slim_net import FeatureInfo, SlimNet

CLASSES = ["disc", "square", "stripes"]
WIDTHS, RESOLUTIONS = (0.5, 1.0), (16, 24)


class SmallNet(SlimNet):
    """Stem, a depthwise stage with a shortcut, a dense stage, a linear head: each kind of layer once."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        narrow, wide = Channels(16), Channels(32)
        self.stem = _block(SlimConv(3, narrow, 3), narrow)
        self.stages = nn.ModuleList(
            [
                _Shortcut(_block(SlimConv(narrow, narrow, 3, groups=narrow), narrow)),
                _block(SlimConv(narrow, wide, 3, stride=2), wide),
            ]
        )
        self.feature_info = [FeatureInfo(16, 1), FeatureInfo(32, 2)]
        self.classifier = SlimLinear(wide, num_classes)
        self.name_norms()

    def forward_head(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


class _Shortcut(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _block(conv: SlimConv, channels: Channels) -> nn.Sequential:
    return nn.Sequential(conv, SlimBatchNorm(channels), nn.ReLU())


@contextmanager
def small_net_in_the_zoo() -> Iterator[None]:
    """Recipes may name "small" inside."""
    MODELS["small"] = SmallNet
    try:
        yield
    finally:
        del MODELS["small"]


def write_pictures(root: Path) -> Path:
    """`train/<class>/*.png` and `test/<class>/*.png` of several sizes."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for kind, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = [(24, 24), (20, 29), (33, 24)][index % 3]
                picture = draw.integers(0, 120, (height, width, 3), np.uint8)
                picture[..., kind] += 100
                assert cv2.imwrite(str(folder / f"{index}.png"), picture[..., ::-1])
    return root


def make_checkpoint(
    source: PictureSource, widths: tuple[float, ...] = WIDTHS, resolutions: tuple[int, ...] = RESOLUTIONS
) -> Checkpoint:
    """Random weights, norms of both signs, statistics of the pictures; call it inside small_net_in_the_zoo."""
    torch.manual_seed(0)
    recipe = Recipe(
        model="small", widths=widths, resolutions=resolutions, calib_pictures=6, select_pictures=9,
        mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0),
    )  # fmt: skip
    model = SmallNet().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SlimBatchNorm):
                module.weight.copy_(torch.randn(module.weight.shape))
                module.bias.copy_(torch.randn(module.bias.shape))
    points = [(w, r) for w in widths for r in resolutions]
    calibrate(model, source, source.splits(6, 9)["calib"], points, recipe.mean, recipe.std)
    rows = [{"width": w, "resolution": r, "temperature": 1.0 + w, "unsure_below": 0.25} for w, r in points]
    return Checkpoint(model.state_dict(), recipe.to_dict(), CLASSES, accuracy=rows)
