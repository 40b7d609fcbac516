"""Clips (N, C, T, H, W) and their frames (N*T, C, H, W), and what networks of folded frames compare between frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

_frames: ContextVar[int | None] = ContextVar("frames of the clips that a network is running on", default=None)


@contextlib.contextmanager
def clips_of(frames: int) -> Iterator[None]:
    """Folded frames that modules meet inside are of clips of so many; each thread and task has its own."""
    token = _frames.set(frames)
    try:
        yield
    finally:
        _frames.reset(token)


def frames_of_clips(otherwise: int) -> int:
    """How many frames the clips of the network that is running have; `otherwise` outside of any `clips_of`."""
    found = _frames.get()
    return otherwise if found is None else found


def fold(clip: Tensor) -> Tensor:
    """Clips (N, C, T, H, W) as a batch of frames (N*T, C, H, W), frame after frame of each clip."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold(frames: Tensor, per_clip: int) -> Tensor:
    """Frames (N*T, ...) as (N, T, ...), T = `per_clip`."""
    return frames.unflatten(0, (-1, per_clip))


def change_to_next(before: Tensor, after: Tensor, per_clip: int) -> Tensor:
    """What the next frame of each clip has more than this one; zeros for the last frame, which has no next.

    Args:
        before: frames (N*T, C, H, W) that are subtracted.
        after: the same frames as they are compared with, for example behind a convolution of their own.
        per_clip: T.
    Returns:
        after[t + 1] - before[t], (N*T, C, H, W).
    """
    earlier, later = unfold(before, per_clip)[:, :-1], unfold(after, per_clip)[:, 1:]
    change = later - earlier
    return torch.cat([change, torch.zeros_like(change[:, :1])], 1).flatten(0, 1)
