"""The recent frames of a video, for networks that read several of them at once."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from edge_runtime.frame import Frame
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import TensorSpec, fitted, resize_rgb, write_normalised

FINEST_STEP = 4
"""Frames that come faster than this many in the smallest step between two frames of a clip are thinned out."""

Size = tuple[int, int]


@dataclass
class _Kept:
    """One frame, reduced to the sizes at which it was read so far."""

    time_s: float
    reduced: dict[Size, npt.NDArray[np.uint8]] = field(default_factory=dict)


class ClipBuffer:
    """Keeps the frames of one stream for as long as a clip lasts, and fills the inputs of the points with them.

    Frames are kept at the largest input size of their shape, and smaller ones are made of that: a switch of the point
    finds the past at its own size, at the cost of resizing a clip of small pictures once. At most FINEST_STEP times the
    frames of the longest clip, and a few, are kept.

    Args:
        spec: how pictures are cut, resized and normalised.
        points: of the bundle, all with frames.
        duration_s: of a clip.
    """

    def __init__(self, spec: TensorSpec, points: Iterable[OperatingPoint], duration_s: float) -> None:
        self._spec, self._duration_s = spec, duration_s
        self._largest: dict[Fraction, Size] = {}
        most = 2
        for point in points:
            shape = Fraction(*point.size_hw)
            self._largest[shape] = max(self._largest.get(shape, (0, 0)), point.size_hw)
            most = max(most, point.frames or 0)
        self._shortest_s = duration_s / most / FINEST_STEP
        self._kept: list[_Kept] = []

    def forget(self) -> None:
        """Another stream begins."""
        self._kept.clear()

    def fill(self, frame: Frame, point: OperatingPoint, out: npt.NDArray[np.float32]) -> int:
        """Take a stream's next frame and write the clip that ends with it.

        Slot k, counted back from the newest, gets the frame that lies nearest to k steps before it. Where the stream
        is younger than a clip, its oldest frame stands for what came before. A stream that goes back in time, or pauses
        for longer than a clip, begins anew.

        Args:
            frame: later than the one before, by `media_s` if it has one, else by `captured_s`.
            point: which frames and size are read.
            out: (1, 3, frames, rows, columns) float32, written.
        Returns:
            how many different frames are in the clip.
        Raises:
            FrameError: the picture is empty.
        """
        self._add(frame)
        count, times_s = out.shape[2], [kept.time_s for kept in self._kept]
        step_s, rows = self._duration_s / count, []
        for slot in range(count):
            row = _nearest(times_s, times_s[-1] - (count - 1 - slot) * step_s)
            rows.append(row)
            write_normalised(self._reduced(self._kept[row], point.size_hw), self._spec, out[0, :, slot])
        return len(set(rows))

    def _add(self, frame: Frame) -> None:
        time_s = frame.captured_s if frame.media_s is None else frame.media_s
        kept = self._kept
        if kept and not kept[-1].time_s <= time_s <= kept[-1].time_s + self._duration_s:
            kept.clear()
        if len(kept) > 1 and time_s - kept[-2].time_s < self._shortest_s:
            kept.pop()
        reduced = {size: fitted(frame.pixels, self._spec, size) for size in self._largest.values()}
        kept.append(_Kept(time_s, {size: np.ascontiguousarray(small) for size, small in reduced.items()}))
        while kept[1:] and kept[1].time_s <= time_s - self._duration_s:
            kept.pop(0)

    def _reduced(self, kept: _Kept, size: Size) -> npt.NDArray[np.uint8]:
        found = kept.reduced.get(size)
        if found is None:
            largest = kept.reduced[self._largest[Fraction(*size)]]
            found = kept.reduced[size] = resize_rgb(largest, size, self._spec.resize)
        return found


def _nearest(times_s: list[float], wanted_s: float) -> int:
    """Row of the time that is nearest, of two as near the later; the times rise."""
    after = bisect.bisect_left(times_s, wanted_s)
    if after == 0:
        return 0
    if after == len(times_s) or wanted_s - times_s[after - 1] < times_s[after] - wanted_s:
        return after - 1
    return after
