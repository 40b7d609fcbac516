"""What Glance and Focus sees of a picture: the picture at full size, and the glance shrunk from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from zoo.augment import augmented_batch, shrink_batch
from zoo.calibrate import to_tensor
from zoo.focus_scenes import evaluation_scenes, training_scenes
from zoo.gfnet_recipe import GlanceRecipe
from zoo.pictures import PictureSource, Split, evaluation_batch


class Views:
    """Makes batches after a recipe.

    Args:
        recipe: which data, and how it is augmented.
        source: the pictures.
        pool: names that the pieces of scenes are cut from; of the training split, also in evaluation.
    """

    def __init__(self, recipe: GlanceRecipe, source: PictureSource, pool: Sequence[str]) -> None:
        self.recipe, self.source, self.pool = recipe, source, pool
        self.design, self.spec = recipe.build_design(), recipe.scene_spec

    def training(self, names: Sequence[str], rows: Sequence[int], epoch: int) -> np.ndarray:
        """Augmented pictures (N, S, S, 3) uint8; every draw depends on seed, epoch and row."""
        kind, seed = self.recipe.augmentation, self.recipe.seed
        if self.spec is None:
            return augmented_batch(self.source, names, rows, self.design.picture, kind, seed, epoch)
        return training_scenes(self.source, names, rows, self.pool, self.spec, kind, seed, epoch)

    def variants(self, scenes: int) -> range:
        """The variants that give so many scenes of each picture; a picture that is shown as it is has only one."""
        return range(1 if self.spec is None else scenes)

    def evaluation(self, names: Sequence[str], variant: int = 0) -> np.ndarray:
        """Pictures as deployment sees them (N, S, S, 3) uint8.

        A scene depends on its picture's name and the variant alone; results are reported on variant 0. Pictures that
        are shown as they are look the same in every variant.
        """
        if self.spec is None:
            return evaluation_batch(self.source, names, self.design.picture)
        return evaluation_scenes(self.source, names, self.pool, self.spec, self.recipe.seed, variant)[0]

    def tensors(self, batch: np.ndarray, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Glances (N, 3, patch, patch) and pictures (N, 3, S, S), normalised, on the device."""
        mean, std = self.recipe.mean, self.recipe.std
        small = shrink_batch(batch, self.design.patch)
        return to_tensor(small, mean, std, device), to_tensor(batch, mean, std, device)

    def batches(
        self, split: Split, device: torch.device | str = "cpu", batch_size: int = 100, variant: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Glances, pictures and labels of a split in evaluation, batch by batch."""
        for at in range(0, len(split), batch_size):
            names = split.names[at : at + batch_size]
            glances, pictures = self.tensors(self.evaluation(names, variant), device)
            yield glances, pictures, torch.from_numpy(split.labels[at : at + batch_size]).to(device)
