"""A moving test picture: a source that needs no camera and no file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edge_runtime.frame import Frame

CYCLE_FRAMES = 240
"""The picture comes back after so many frames."""


class PatternSource:
    """Drifting colour waves with a moving disc. Frame n is a function of n alone, so that runs can be compared."""

    live = False
    dropped = 0

    def __init__(
        self,
        name: str = "pattern",
        *,
        frame_count: int | None = None,
        size_hw: tuple[int, int] = (480, 640),
        fps: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the source.

        Args:
            name: for messages.
            frame_count: how many frames; None: without end.
            size_hw: rows and columns.
            fps: frames per second of media time.
            clock: stamps `captured_s`.
        """
        self.name, self.size_hw, self._clock = name, size_hw, clock
        self.fps: float | None = fps
        self._period_s = 1.0 / fps
        self._frame_count = frame_count
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        """Frames in order, until the count is reached or `close`."""
        index = 0
        while not self._closed and (self._frame_count is None or index < self._frame_count):
            pixels = pattern_picture(index, self.size_hw)
            yield Frame(pixels, index, self._clock(), index * self._period_s)
            index += 1

    def close(self) -> None:
        """Stop after the current frame."""
        self._closed = True

    def __enter__(self) -> PatternSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pattern_picture(index: int, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Frame `index` of the pattern, (H, W, 3) uint8 RGB."""
    rows, columns = size_hw
    phase = 2.0 * np.pi * (index % CYCLE_FRAMES) / CYCLE_FRAMES
    y, x = np.linspace(0.0, 1.0, rows), np.linspace(0.0, 1.0, columns)
    picture = np.empty((rows, columns, 3), np.uint8)
    for channel, (down, across) in enumerate(((2.0, 3.0), (3.0, 1.0), (1.0, 2.0))):
        rise = (48.0 + 40.0 * np.sin(2.0 * np.pi * down * y + phase)).astype(np.uint8)
        run = (48.0 + 40.0 * np.sin(2.0 * np.pi * across * x - (channel + 1) * phase)).astype(np.uint8)
        np.add(rise[:, None], run[None, :], out=picture[..., channel])
    radius = max(1, int(0.12 * min(rows, columns)))
    top = int((0.5 + 0.3 * np.sin(2.0 * phase)) * rows) - radius
    left = int((0.5 + 0.3 * np.cos(phase)) * columns) - radius
    reach = np.arange(2 * radius + 1) - radius
    disc = reach[:, None] ** 2 + reach[None, :] ** 2 <= radius**2
    box = picture[max(0, top) : top + 2 * radius + 1, max(0, left) : left + 2 * radius + 1]
    box[disc[: box.shape[0], : box.shape[1]]] = (250, 204, 90)
    return picture
