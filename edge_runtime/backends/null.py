"""A backend without an engine: right shapes, scripted latency, made-up scores. For tests of everything around it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint

LATENCY_PER_MADD_MS = 1e-7  # 10 GMAdds/s, about one core of a laptop


class NullRunner:
    """Waits as long as it is told and gives scores that depend on the picture's mean colour."""

    def __init__(self, point: OperatingPoint, classes: int, wait: Callable[[OperatingPoint], None]) -> None:
        self.input: npt.NDArray[np.float32] = np.zeros(point.input_shape, np.float32)
        self._point, self._wait = point, wait
        self._scores = np.zeros((1, classes), np.float32)

    def run(self) -> npt.NDArray[np.float32]:
        """Scores (1, classes): one class is ahead, chosen by the picture."""
        self._wait(self._point)
        self._scores[:] = 0.0
        self._scores[0, int(abs(float(self.input.mean())) * 1000) % self._scores.shape[1]] = 5.0
        return self._scores

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
        self._classes = len(bundle.manifest.labels)
        self._wait = wait or (lambda point: time.sleep(point.madds * LATENCY_PER_MADD_MS / 1000.0))

    def load(self, point: OperatingPoint) -> NullRunner:
        """A runner at once."""
        return NullRunner(point, self._classes, self._wait)

    def close(self) -> None:
        """Nothing to release."""


def open_backend(bundle: Bundle, options: BackendOptions) -> NullBackend:
    """Open; the options do not matter."""
    return NullBackend(bundle)
