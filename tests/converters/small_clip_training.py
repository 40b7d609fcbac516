"""Very small networks for clips, trained by the zoo for a few steps on camera moves over made-up pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from zoo.checkpoint import Checkpoint, load_checkpoint
from zoo.models import create
from zoo.recipe import Recipe
from zoo.slim_layers import SlimBatchNorm
from zoo.sources import open_source
from zoo.train import train

FRAMES, RESOLUTIONS, CLIP_MS = (8, 4), (24, 16), 800
SHORT = {"depths": (1, 1, 1, 1), "width_mult": 0.25}


def write_views(root: Path) -> Path:
    """`train/any/*.png` and `test/any/*.png`: soft spots, so that a moving camera can be seen."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 18), ("test", 7)):
        folder = root / part / "any"
        folder.mkdir(parents=True)
        for index in range(count):
            coarse = draw.integers(0, 256, (8, 8, 3), np.uint8)
            assert cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(coarse, (64, 64)))
    return root


def clip_recipe(model: str, **changes: Any) -> Recipe:
    """A few steps at two numbers of frames and two resolutions."""
    values: dict[str, Any] = {
        "model": model, "model_options": SHORT, "widths": (1.0,), "resolutions": RESOLUTIONS, "clips": "camera-moves",
        "frames": FRAMES, "clip_ms": CLIP_MS, "epochs": 1, "batch_size": 7, "random_widths": 0, "learning_rate": 0.02,
        "calib_pictures": 7, "select_pictures": 7, "norm_pictures": 14,
    }  # fmt: skip
    return Recipe(**{**values, **changes})


def train_clips(recipe: Recipe, pictures: Path, out: Path) -> Checkpoint:
    """By the zoo's own training, from norms of both signs and a classifier that tells something at once."""
    torch.manual_seed(0)
    source = open_source(recipe, pictures)
    net = create(recipe.model, num_classes=len(source.classes), **recipe.model_options)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, SlimBatchNorm):
                module.weight.copy_(torch.randn(module.weight.shape))
                module.bias.copy_(torch.randn(module.bias.shape))
        net.classifier.weight.normal_(std=0.2)
    return load_checkpoint(train(recipe, source, out, initial_weights=net.state_dict()))
