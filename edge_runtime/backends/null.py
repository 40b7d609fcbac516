"""A backend without an engine: right shapes, scripted latency, made-up answers. For tests of everything around it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint

LATENCY_PER_MADD_MS = 1e-7  # 10 GMAdds/s, about one core of a laptop
SURE, ABSENT = 5.0, -10.0
"""Logits of what a made-up detector finds, and of all else."""


class NullRunner:
    """Waits as long as it is told and gives an answer that depends on the picture's mean colour."""

    def __init__(self, point: OperatingPoint, labels: int, wait: Callable[[OperatingPoint], None]) -> None:
        self.input: npt.NDArray[np.float32] = np.zeros(point.input_shape, np.float32)
        self._point, self._wait = point, wait
        self._output, self._labels = np.zeros(point.output_shape(labels), np.float32), labels

    def run(self) -> npt.NDArray[np.float32]:
        """One class is ahead, or one or two boxes are sure, chosen by the picture."""
        self._wait(self._point)
        chosen = int(abs(float(self.input.mean())) * 1000)
        if self._point.anchors is None:
            self._output[:] = 0.0
            self._output[0, chosen % self._labels] = SURE
        else:
            self._draw_boxes(self._output[0], chosen)
        return self._output

    def _draw_boxes(self, rows: npt.NDArray[np.float32], chosen: int) -> None:
        """A box a third of the picture high and wide, in one of nine places, and with odd numbers a second one."""
        height, width = self._point.size_hw
        rows[:, :4], rows[:, 4:] = 0.0, ABSENT
        for row in range(min(len(rows), 1 + chosen % 2)):
            y, x = divmod((chosen + 4 * row) % 9, 3)
            rows[row, :4] = y * height / 3, x * width / 3, (y + 1) * height / 3, (x + 1) * width / 3
            rows[row, 4 + (chosen + row) % self._labels] = SURE - row

    def close(self) -> None:
        """Nothing to release."""


class NullBackend:
    """Runs every point of any bundle.

    Args:
        bundle: gives the labels.
        wait: called in each run; the default sleeps in proportion to the multiply-adds.
    """

    name = "null"

    def __init__(self, bundle: Bundle, wait: Callable[[OperatingPoint], None] | None = None) -> None:
        self._labels = len(bundle.manifest.labels)
        self._wait = wait or (lambda point: time.sleep(point.madds * LATENCY_PER_MADD_MS / 1000.0))

    def load(self, point: OperatingPoint) -> NullRunner:
        """A runner at once."""
        return NullRunner(point, self._labels, self._wait)

    def close(self) -> None:
        """Nothing to release."""


def open_backend(bundle: Bundle, options: BackendOptions) -> NullBackend:
    """Open; the options do not matter."""
    return NullBackend(bundle)
