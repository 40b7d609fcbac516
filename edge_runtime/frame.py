"""A frame: the pixels of one picture and when they were taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import FrameError


@dataclass(frozen=True)
class Frame:
    """One picture from a source. The pixels belong to the frame; nobody writes into them."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB."""
    index: int = 0
    """Position in the source, counted from 0; frames that were dropped leave gaps."""
    captured_s: float = 0.0
    """When it was taken, on the pipeline's clock (time.monotonic)."""
    media_s: float | None = None
    """Position in a file, seconds; None for a live source."""
    decode_ms: float | None = None
    """What decoding it took after it was captured; None when the source does not say."""

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise FrameError(
                f"frame {self.index}: pixels are {self.pixels.dtype} {shape}, expected uint8 (H, W, 3) RGB"
            )
