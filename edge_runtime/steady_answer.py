"""Steadier answers for video: the calibrated probabilities of the last moments count beside those of this frame.

Exponential smoothing over time, in seconds, so that it does not depend on the frame rate; it begins anew where the
picture changes at once (a cut). Probabilities of different operating points can be averaged because each point has its
own temperature; the threshold below which the answer is "unsure" is averaged in the same way.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BudgetError
from edge_runtime.frame import Frame
from edge_runtime.manifest import Manifest
from edge_runtime.postprocess import answer_of, calibrated
from edge_runtime.result import Classification

CUT_DIFFERENCE = 25.0
"""Mean difference of two thumbnails, in levels of 0-255, that is taken for a cut (benchmarks/steady_labels.py)."""
VIDEO_SMOOTH_S = 0.2
"""What the camera application takes: a frame of 30 a second counts 15 %; chosen by benchmarks/steady_labels.py."""
THUMBNAIL = 16
"""Side of a thumbnail in pixels."""


class SteadyAnswer:
    """Remembers what was said of a video so far.

    Args:
        labels: class names.
        smooth_s: time constant in seconds; 0 gives the answer of each frame alone.
    Raises:
        BudgetError: smooth_s is negative or not finite.
    """

    def __init__(self, labels: tuple[str, ...], smooth_s: float) -> None:
        if not 0.0 <= smooth_s < math.inf:
            raise BudgetError(f"smooth_s: {smooth_s} is not a time in seconds; choose 0 or more, such as 0.25")
        self._labels, self._smooth_s = labels, smooth_s
        self.forget()

    @staticmethod
    def of_bundle(manifest: Manifest, smooth_s: float) -> SteadyAnswer:
        """For the answers of a bundle.

        Raises:
            BudgetError: as the class, or the bundle is a detector, whose boxes move and are not averaged.
        """
        if manifest.boxes is not None and smooth_s != 0.0:
            raise BudgetError(
                f"smooth_s: {smooth_s} s, but {manifest.name!r} is a detector, whose boxes are not averaged; choose 0"
            )
        return SteadyAnswer(manifest.labels, smooth_s)

    def forget(self) -> None:
        """Another video begins."""
        self._mean: npt.NDArray[np.float64] | None = None
        self._unsure_below, self._at_s = 0.0, 0.0
        self._last: npt.NDArray[np.float32] | None = None

    def take(
        self, frame: Frame, live: bool, logits: npt.NDArray[np.float32], temperature: float, unsure_below: float
    ) -> Classification:
        """The answer for a frame.

        Args:
            frame: its picture and time.
            live: it comes from a camera or stream. A frame that is neither live nor has a position in a file is a
                picture of its own.
            logits: (1, classes) float32; not changed.
            temperature, unsure_below: of the operating point.
        """
        probabilities = calibrated(logits, temperature)
        if probabilities is None or self._smooth_s == 0.0 or not (live or frame.media_s is not None):
            self.forget()
            return answer_of(probabilities, self._labels, unsure_below)
        at_s = frame.captured_s if frame.media_s is None else frame.media_s
        share = self._share_of_now(at_s, thumbnail(frame.pixels))
        if self._mean is not None and share < 1.0:
            probabilities = share * probabilities + (1.0 - share) * self._mean
            unsure_below = share * unsure_below + (1.0 - share) * self._unsure_below
        self._mean, self._unsure_below, self._at_s = probabilities, unsure_below, at_s
        return answer_of(probabilities, self._labels, unsure_below)

    def _share_of_now(self, at_s: float, small: npt.NDArray[np.float32]) -> float:
        """How much this frame counts, 0-1; 1 after a cut, at the beginning, and when time goes back."""
        last, self._last = self._last, small
        past_s = at_s - self._at_s
        if last is None or past_s <= 0.0 or float(np.abs(small - last).mean()) > CUT_DIFFERENCE:
            return 1.0
        return -math.expm1(-past_s / self._smooth_s)


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(THUMBNAIL, THUMBNAIL, 3) float32; of a few rows and columns alone, so that a large picture costs no more."""
    import cv2

    rows, columns = (max(1, side // (4 * THUMBNAIL)) for side in pixels.shape[:2])
    few = np.ascontiguousarray(pixels[::rows, ::columns])
    return cv2.resize(few, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
