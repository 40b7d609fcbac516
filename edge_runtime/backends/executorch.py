"""ExecuTorch: one loaded module per .pte, shared by the runners of its methods; a method is an operating point."""

from __future__ import annotations

import importlib
import importlib.util
import threading
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, missing_package
from edge_runtime.manifest import OperatingPoint

FLOAT32 = 6  # ScalarType::Float of ExecuTorch's scalar_type.h; the metadata gives the number alone


class LoadedProgram:
    """A module with the bytes that it borrows: they must outlive it."""

    def __init__(self, engine: Any, content: bytes) -> None:
        self._content = content
        self.module: Any = engine._load_for_executorch_from_buffer(content)
        self.methods: tuple[str, ...] = tuple(sorted(self.module.method_names()))  # reads the file's header
        self.lock = threading.Lock()
        """The methods of a module share its memory, and neighbours are built in the background."""


class ExecutorchRunner:
    """A method of a module, its input buffer shared with the engine and its output copied out."""

    def __init__(self, loaded: LoadedProgram, torch: Any, method: str, point: OperatingPoint, labels: int) -> None:
        self._loaded: LoadedProgram | None = loaded
        self._method, self._name = method, point.name
        self.input: npt.NDArray[np.float32] = np.zeros(point.input_shape, np.float32)
        self._output = np.zeros(point.output_shape(labels), np.float32)
        self._tensors: tuple[Any, ...] = (torch.from_numpy(self.input),)  # contiguous: the engine misreads the rest

    def run(self) -> npt.NDArray[np.float32]:
        """As `OperatingPoint.output_shape`; the runner's own buffer."""
        if self._loaded is None:
            raise BackendError(f"{self._name}: the runner is closed; load the point again")
        try:
            with self._loaded.lock:
                # Not cloned: the result borrows the module's memory until its next run, so it is copied under the lock.
                found = self._loaded.module.run_method(self._method, self._tensors, clone_outputs=False)[0].numpy()
                np.copyto(self._output, found)
        except Exception as error:  # executorch raises RuntimeError with an error number
            raise BackendError(f"{self._name}: ExecuTorch failed: {error}") from error
        return self._output

    def close(self) -> None:
        """Let go of the module; its memory is freed when no runner and no backend holds it."""
        self._loaded = None
        self._tensors = ()


class ExecutorchBackend:
    """Loads a bundle's .pte files; their bytes are the verified ones."""

    name = "executorch"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        self._torch, self._engine = import_engine()
        self._bundle, self._options = bundle, options
        self._programs: dict[str, LoadedProgram] = {}
        self._loading = threading.Lock()
        if self._engine._threadpool_get_thread_count() != options.threads:
            # Unsafe while another thread runs a method: the pool is the process's own, so it is set before any load.
            self._engine._unsafe_reset_threadpool(options.threads)

    def load(self, point: OperatingPoint) -> ExecutorchRunner:
        """The runner of a point's method.

        Raises:
            BackendError: the program is of another version, or has no such method or another input or output.
        """
        program = self._bundle.program(point)
        where = f"{self._bundle.root}: point {point.name!r}"
        with self._loading:
            if program.file not in self._programs:
                self._programs[program.file] = self._load(program.file, where)
            loaded = self._programs[program.file]
        method = point.method or "forward"
        labels = len(self._bundle.manifest.labels)
        if method not in loaded.methods:
            raise BackendError(
                f"{where}: {program.file!r} has no method {method!r}; it has {', '.join(loaded.methods[:20])}; "
                "make the bundle again"
            )
        try:
            with loaded.lock:
                meta = loaded.module.method_meta(method)
        except RuntimeError as error:
            raise BackendError(f"{where}: ExecuTorch cannot read method {method!r}: {error}") from error
        _require_shapes(meta, point, labels, f"{where}: method {method!r}")
        runner = ExecutorchRunner(loaded, self._torch, method, point, labels)
        runner.run()  # the method is planned and its weights are packed in its first run, which no frame should pay
        return runner

    def _load(self, file: str, where: str) -> LoadedProgram:
        content = self._bundle.read(file)
        try:
            return LoadedProgram(self._engine, content)
        except RuntimeError as error:
            raise BackendError(
                f"{where}: the installed ExecuTorch refuses {file!r}: {error}; the file is damaged, or was made by a "
                "newer version: update executorch, or make the bundle again with this one"
            ) from error

    def close(self) -> None:
        """Let go of the modules; runners keep theirs."""
        self._programs = {}


def open_backend(bundle: Bundle, options: BackendOptions) -> ExecutorchBackend:
    """Open ExecuTorch.

    Raises:
        BackendError: it is not installed.
    """
    return ExecutorchBackend(bundle, options)


def import_engine() -> tuple[Any, Any]:
    """torch and ExecuTorch's bindings.

    ExecuTorch's Python API takes and gives torch tensors alone, so this backend, and nothing else on the device, needs
    torch. The bindings are imported directly: the package's own `runtime` module imports its whole compiler.
    """
    for package in ("executorch", "torch"):
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, "executorch", "run this bundle's .pte programs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "This API is experimental", on every import and on no use
            torch = importlib.import_module("torch")  # first: the bindings are linked to its libraries
            return torch, importlib.import_module("executorch.extension.pybindings._C")
    except ImportError as error:
        raise BackendError(f"executorch is installed but cannot be used: {error}; reinstall it") from error


def _require_shapes(meta: Any, point: OperatingPoint, labels: int, where: str) -> None:
    wanted = {"input": point.input_shape, "output": point.output_shape(labels)}
    if (meta.num_inputs(), meta.num_outputs()) != (1, 1):
        raise BackendError(
            f"{where} has {meta.num_inputs()} inputs and {meta.num_outputs()} outputs, expected one of each; "
            "make the bundle again"
        )
    for kind, info in (("input", meta.input_tensor_meta(0)), ("output", meta.output_tensor_meta(0))):
        found = tuple(info.sizes())
        if found != wanted[kind] or info.dtype() != FLOAT32:
            raise BackendError(
                f"{where}: its {kind} is {found} of scalar type {info.dtype()}, expected {wanted[kind]} float32; "
                "make the bundle again"
            )
