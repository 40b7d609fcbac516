"""A very small detector, trained by the zoo for some steps on scenes of plain colours."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from zoo.box_recipe import BoxRecipe
from zoo.box_train import train_boxes
from zoo.checkpoint import Checkpoint, load_checkpoint
from zoo.pictures import PictureSource

COLOURS_RGB = {"blue": (30, 40, 230), "green": (30, 200, 40), "red": (230, 40, 30)}
SIDE = 48
RECIPE = BoxRecipe(
    model_options={
        "channels": 16, "cells": 1, "head_depth": 1, "backbone_width": 0.25, "backbone_depth": 0.25,
        "anchor_scale": 2.0,
    },
    widths=(0.5, 1.0), resolutions=(SIDE,), canvas=SIDE, object_counts=(1, 2), object_sides=(16, 24),
    distractors=(0, 0), random_widths=0, epochs=7, batch_size=10, optimizer="adamw", learning_rate=0.04, momentum=0.8,
    warmup_steps=2, augmentation="none", calib_pictures=3, select_pictures=6, norm_pictures=20,
)  # fmt: skip
FLIPPED = "class_head.norms.0.4.weight"
"""The norm of the coarsest level: the convolution before it cannot share its integers with the other levels."""


def write_plain_colours(root: Path) -> Path:
    """`train/<class>/*.png` and `test/<class>/*.png`, 32 pixels wide, each with a shade of its own."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6)):
        for name, colour in COLOURS_RGB.items():
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                shade = np.clip(np.array(colour) + draw.integers(-20, 21, 3), 0, 255)
                assert cv2.imwrite(
                    str(root / part / name / f"{index:03d}.png"), np.full((32, 32, 3), shade[::-1], np.uint8)
                )
    return root


def train_detector(source: PictureSource, out: Path, recipe: BoxRecipe = RECIPE) -> Checkpoint:
    """By the zoo's own training; then every other gamma of FLIPPED changes its sign, which training never does here."""
    held = load_checkpoint(train_boxes(recipe, source, out))
    with torch.no_grad():
        held.model[FLIPPED][::2] *= -1.0
    return held
