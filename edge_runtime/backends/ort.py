"""ONNX Runtime: one session per resident operating point, buffers bound once, one thread pool for the process.

A session copies or repacks its weights while it is made and needs ours no longer (onnxruntime_c_api.h,
AddExternalInitializers: "the user provided buffers can then be deallocated"), so a resident point holds them once.
The sessions' activations share one arena: only one of them runs at a time.
"""

from __future__ import annotations

import contextlib
import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import BackendOptions
from edge_runtime.backends.ort_options import open_session
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, missing_package
from edge_runtime.freed_memory import give_back
from edge_runtime.manifest import OperatingPoint, Program
from edge_runtime.tensor_recipe import GraphTensors, build_tensors, read_recipe

_global_pool_threads: list[int] = []
"""The size of the process-wide pool once it is set; ONNX Runtime allows setting it only once."""
_shared_arena: list[bool] = []
"""Filled once the process-wide arena is registered; only sessions that ask for it use it."""
SESSION_BYTES, BYTES_PER_GRAPH_BYTE = 1_000_000, 13
"""What a session takes beside its weights, by the size of its graph; docs/bundle.md has the measurement."""
FLOAT_BYTES = 4  # of a float and of an int32 bias


class OrtRunner:
    """A session with its input and output bound to preallocated arrays."""

    def __init__(
        self,
        session: Any,
        program: Program,
        point: OperatingPoint,
        labels: int,
    ) -> None:
        self.input: npt.NDArray[np.float32] = np.zeros(point.input_shape, np.float32)
        self._output = np.zeros(point.output_shape(labels), np.float32)
        self._session, self._name = session, point.name
        self._binding = session.io_binding()
        for bind, name, array in (
            (self._binding.bind_input, program.input, self.input),
            (self._binding.bind_output, program.output, self._output),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def run(self) -> npt.NDArray[np.float32]:
        """As `OperatingPoint.output_shape`; the runner's own buffer."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime raises its own kinds, all plain
            raise BackendError(f"{self._name}: ONNX Runtime failed: {error}") from error
        return self._output

    def close(self) -> None:
        """Drop the session."""
        self._binding = self._session = None


class OrtBackend:
    """Builds sessions from a bundle's graphs and weights."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package("onnxruntime", "camera", "run this bundle") from error
        self._ort: Any = onnxruntime
        self._bundle, self._options = bundle, options
        self._recipes: dict[str, GraphTensors] = {}
        self._sizes: dict[str, int] = {}  # program -> bytes of a session
        if options.global_thread_pool:
            self._join_global_pool()
        if options.memory_arena and not _shared_arena:
            self._register_arena()

    def _join_global_pool(self) -> None:
        threads = self._options.threads
        if not _global_pool_threads:
            self._ort.set_global_thread_pool_sizes(threads, 1)
            _global_pool_threads.append(threads)
        elif _global_pool_threads[0] != threads:
            raise BackendError(
                f"onnxruntime: this process has a pool of {_global_pool_threads[0]} threads, {threads} asked for; "
                "use the same number everywhere in one process"
            )

    def _register_arena(self) -> None:
        """One arena that the sessions of this process may share; the application may have registered its own."""
        ort = self._ort
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        with contextlib.suppress(Exception):  # onnxruntime raises a plain error when there is one already
            ort.create_and_register_allocator(place, ort.OrtArenaCfg(0, -1, -1, -1))  # all as usual
        _shared_arena.append(True)

    @cached_property
    def _labels(self) -> int:
        return len(self._bundle.manifest.labels)

    def load(self, point: OperatingPoint) -> OrtRunner:
        """A session for this point."""
        program = self._bundle.program(point)
        graph = self._bundle.content(program.file)
        tensors = {} if program.tensors is None else self._tensors(program, point)
        options = self._session_options(point, tensors)
        try:
            session = open_session(self._ort, graph, options)
            return OrtRunner(session, program, point, self._labels)
        except Exception as error:
            raise BackendError(
                f"{self._bundle.root}: point {point.name!r}: ONNX Runtime {self._ort.__version__} refuses "
                f"{program.file!r}: {error}"
            ) from error

    def _session_options(self, point: OperatingPoint, tensors: dict[str, npt.NDArray[Any]]) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = self._options.memory_arena
        if self._options.memory_arena:
            options.add_session_config_entry("session.use_env_allocators", "1")
            # weights outside the arena, which would keep them when the session is gone
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        if not self._options.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_free_dimension_override_by_name("height", point.size_hw[0])
        options.add_free_dimension_override_by_name("width", point.size_hw[1])
        if self._options.global_thread_pool:
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads = self._options.threads
            options.inter_op_num_threads = 1
        if tensors:
            values = [self._ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
            options.add_external_initializers(list(tensors), values)
        return options

    def memory_bytes(self, point: OperatingPoint) -> int:
        """Weights as the engine holds them, and what a session takes beside them; activations are shared."""
        program = self._bundle.program(point)
        if program.name not in self._sizes:
            self._sizes[program.name] = self._program_bytes(program)
        return self._sizes[program.name]

    def _program_bytes(self, program: Program) -> int:
        graph_bytes = len(self._bundle.content(program.file))
        if program.tensors is None:  # its weights are inside
            return SESSION_BYTES + graph_bytes
        recipe, weights = self._recipe(str(program.tensors)), self._bundle.weights
        count = 0
        for tensor in recipe.tensors:
            stored = None if tensor.source is None else weights.get(tensor.source)
            one = stored.itemsize if stored is not None and stored.dtype == np.int8 else FLOAT_BYTES
            count += one * math.prod(tensor.shape)
        count += FLOAT_BYTES * sum(scale.channels for scale in recipe.scales)
        count += FLOAT_BYTES * sum(math.prod(bias.value.shape) for bias in recipe.biases)
        return SESSION_BYTES + BYTES_PER_GRAPH_BYTE * graph_bytes + count

    def settle(self) -> None:
        """Forget the stored weights until the next point is built."""
        self._bundle.release()
        self._recipes.clear()
        give_back()

    def _recipe(self, name: str) -> GraphTensors:
        if name not in self._recipes:
            self._recipes[name] = read_recipe(self._bundle.content(name), f"{self._bundle.root}: {name!r}")
        return self._recipes[name]

    def _tensors(self, program: Program, point: OperatingPoint) -> dict[str, npt.NDArray[Any]]:
        table = point.table or point.name
        return build_tensors(self._recipe(str(program.tensors)), self._bundle.weights, self._bundle.tables, table)

    def close(self) -> None:
        """Sessions belong to their runners; nothing is left here."""


def open_backend(bundle: Bundle, options: BackendOptions) -> OrtBackend:
    """Open ONNX Runtime.

    Raises:
        BackendError: it is not installed.
    """
    return OrtBackend(bundle, options)
