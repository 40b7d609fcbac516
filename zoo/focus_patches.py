"""Patches of a picture: cutting them out, and ways to choose where.

A place is the corner of a patch: row and column, 0-1 of the room that the patch has (0: top or left edge, 1: bottom or
right edge).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.gfnet_parts import Encoder, PatchPolicy

Chooser = Callable[[Tensor], Tensor]
"""Feature map (N, C, h, w) of the last look -> places (N, 2) of the next. One chooser serves one run of looks."""


def cut_patches(pictures: Tensor, places: Tensor, side: int) -> Tensor:
    """Whole pixels: the corner is rounded down, as the runtime does.

    Args:
        pictures: (N, C, H, W).
        places: (N, 2) in 0-1.
        side: of the patch in pixels.
    Returns:
        (N, C, side, side), a copy.
    """
    room = torch.tensor([pictures.shape[-2] - side, pictures.shape[-1] - side])
    corners = (places.detach().cpu().double() * room).floor().long().tolist()
    cut = [
        picture[:, top : top + side, left : left + side] for picture, (top, left) in zip(pictures, corners, strict=True)
    ]
    return torch.stack(cut)


def sample_patches(pictures: Tensor, places: Tensor, side: int) -> Tensor:
    """As `cut_patches`, but bilinear between pixels, so that the places receive a gradient.

    After AdaFocus V2 (Wang et al. 2021, arXiv:2112.14238). At whole pixels both give the same patch.
    """
    height, width = pictures.shape[-2:]
    axis = torch.arange(side, device=pictures.device, dtype=pictures.dtype)
    rows = places[:, :1] * (height - side) + axis  # (N, side), in pixels
    columns = places[:, 1:] * (width - side) + axis
    rows, columns = (2.0 * rows + 1.0) / height - 1.0, (2.0 * columns + 1.0) / width - 1.0
    count = pictures.shape[0]
    grid = torch.stack(
        [columns[:, None, :].expand(count, side, side), rows[:, :, None].expand(count, side, side)], dim=-1
    )
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


class RandomPlaces:
    """Uniform places from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __call__(self, feature_map: Tensor) -> Tensor:
        return torch.rand(feature_map.shape[0], 2, generator=self._generator).to(feature_map.device)


class CentrePlaces:
    """The middle first, then the corners of the inner half in a fixed order: what looking costs without a policy."""

    ORDER = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25))

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, feature_map: Tensor) -> Tensor:
        place = self.ORDER[self._count % len(self.ORDER)]
        self._count += 1
        return torch.tensor(place, device=feature_map.device).expand(feature_map.shape[0], 2)


class PolicyPlaces:
    """The policy's mean place; `detach` keeps the encoders out of its gradient (AdaFocus V2)."""

    def __init__(self, policy: PatchPolicy, detach: bool = True) -> None:
        self._policy, self._detach, self._memory = policy, detach, None

    def __call__(self, feature_map: Tensor) -> Tensor:
        state = feature_map.detach() if self._detach else feature_map
        place, _, self._memory = self._policy.step(state, self._memory)
        return place


class WithoutGradient:
    """A chooser whose places carry no gradient."""

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose

    @torch.no_grad()
    def __call__(self, feature_map: Tensor) -> Tensor:
        return self._choose(feature_map)


class SaliencyPlaces:
    """The glance's class activation: patches where its own head sees its best class most, each place once.

    Every cell of the glance's map is classified on its own; for a head that is average and linear, that is the class
    activation map of Zhou et al. 2015 (arXiv:1512.04150).

    Args:
        encoder: the glance.
        picture, patch: sides in pixels.
        glances: (N, 3, patch, patch); needed where the policy reads another map than the last one.
    """

    def __init__(self, encoder: Encoder, picture: int, patch: int, glances: Tensor | None = None) -> None:
        self._encoder, self._picture, self._patch, self._glances = encoder, picture, patch, glances
        self._scores: Tensor | None = None

    def __call__(self, feature_map: Tensor) -> Tensor:
        if self._scores is None:
            last = feature_map if self._glances is None else self._encoder.last_map(self._glances)
            self._scores = self._activation(last)
        side = self._scores.shape[-1]
        best = self._scores.flatten(1).argmax(1)
        centres = torch.stack([best // side, best % side], 1).double().add(0.5) / side * self._picture
        room = self._picture - self._patch
        places = ((centres - self._patch / 2.0) / room).clamp(0.0, 1.0)
        axis = (torch.arange(side, device=best.device) + 0.5) / side * self._picture
        corner = places * room
        seen_rows = (axis >= corner[:, :1]) & (axis < corner[:, :1] + self._patch)
        seen_columns = (axis >= corner[:, 1:]) & (axis < corner[:, 1:] + self._patch)
        self._scores = self._scores.masked_fill(seen_rows[:, :, None] & seen_columns[:, None, :], -torch.inf)
        return places.float()

    @torch.no_grad()
    def _activation(self, feature_map: Tensor) -> Tensor:
        """(N, h, w): each cell's score of the class that the whole map is taken for."""
        count, channels, height, width = feature_map.shape
        whole = self._encoder.map_logits(feature_map).argmax(1)
        cells = feature_map.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        scores = self._encoder.map_logits(cells).view(count, height, width, -1)
        return scores.gather(3, whole.view(-1, 1, 1, 1).expand(count, height, width, 1)).squeeze(3)
