"""Inference engines. A backend builds runners; a runner is one operating point, ready to run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError
from edge_runtime.manifest import OperatingPoint

BACKENDS = {
    "onnxruntime": "edge_runtime.backends.ort",
    "executorch": "edge_runtime.backends.executorch",
    "null": "edge_runtime.backends.null",
}
"""Name -> module with a function `open_backend(bundle, options) -> Backend`."""


@dataclass(frozen=True)
class BackendOptions:
    """Choices that the device profile or the application makes."""

    threads: int = 2
    precision: str | None = None
    """None takes whatever each point's program has."""
    global_thread_pool: bool = False
    """One pool for the whole process. Process-wide: the application's own sessions must join it too."""
    memory_arena: bool = True
    spinning: bool = False
    """Let idle threads of the pool spin: a little faster alone, 20-100 ms slower when cores are shared."""


class Runner(Protocol):
    """One operating point, resident: its buffers are allocated and its engine is ready."""

    input: npt.NDArray[np.float32]
    """(1, 3, H, W) float32, or (1, 3, T, H, W) for clips; write the picture here before `run`."""

    def run(self) -> npt.NDArray[np.float32]:
        """Logits (1, classes) float32, or rows (1, anchors, 4 + labels) of a detector (`OperatingPoint.output_shape`).

        A buffer of the runner, valid until the next run.
        """

    def close(self) -> None:
        """Release the engine's memory."""


class Backend(Protocol):
    """An opened engine."""

    name: str

    def load(self, point: OperatingPoint) -> Runner:
        """Build the runner of a point. Slow; never called in the frame path.

        Raises:
            BackendError: the engine refuses the program.
        """

    def close(self) -> None:
        """Release what the backend itself holds."""


@runtime_checkable
class MemoryAware(Protocol):
    """A backend that knows what its points take and can give back what building them took."""

    def memory_bytes(self, point: OperatingPoint) -> int | None:
        """About what a point takes while it is resident, beside what all points share; None: unknown."""

    def settle(self) -> None:
        """Nothing is to be built for now: give back what only building needs."""


def open_backend(name: str, bundle: Bundle, options: BackendOptions) -> Backend:
    """Open an engine for a bundle.

    Raises:
        BackendError: unknown, or its package is not installed.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    try:
        module: Any = importlib.import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        raise BackendError(f"backend {name!r} is not part of this version: {error}; update edge-runtime") from error
    open_it: Callable[[Bundle, BackendOptions], Backend] = module.open_backend
    backend = open_it(bundle, options)
    if bundle.manifest.exits is None:
        return backend
    from edge_runtime.early_exit_backend import EarlyExitBackend  # it imports this module

    return EarlyExitBackend(backend, bundle, options)
