"""Points that look several times, on any engine: opens the part programs and hands out early-exit runners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import Backend, BackendOptions, Runner
from edge_runtime.backends.ort_options import open_session
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import Array, EarlyExitRunner
from edge_runtime.errors import BackendError
from edge_runtime.exit_records import EarlyExits, LookParts
from edge_runtime.look_clock import LookClock
from edge_runtime.manifest import OperatingPoint, Program

Call = Callable[..., list[Array]]
"""Runs one program: arrays in, arrays out, in the program's own order."""


class ProgramParts:
    """The part programs of one engine behind `edge_runtime.early_exit.Parts`.

    Args:
        glance, policy, focus: programs.
        classifiers: one for each look.
        concatenating: the classifier reads all vectors so far; otherwise it has a memory of its own.
    """

    def __init__(
        self, glance: Call, policy: Call, focus: Call, classifiers: tuple[Call, ...], concatenating: bool
    ) -> None:
        self._encoders, self._policy = (glance, focus), policy
        self._classifiers, self._concatenating = classifiers, concatenating

    def encode(self, look: int, image: Array) -> tuple[Array, Array]:
        """Vector and feature map."""
        vector, feature_map = self._encoders[look > 0](image)
        return vector, feature_map

    def place(self, feature_map: Array, memory: Array) -> tuple[Array, Array]:
        """Place of the next patch, and memory."""
        place, memory = self._policy(feature_map, memory)
        return place, memory

    def answer(self, look: int, vector: Array, memory: Array) -> tuple[Array, Array]:
        """Scores and memory."""
        if self._concatenating:
            memory = np.concatenate([memory, vector], 1)
            return self._classifiers[look](memory)[0], memory
        scores, memory = self._classifiers[look](vector, memory)
        return scores, memory

    def close(self) -> None:
        """Let go of the engine's programs."""
        self._encoders, self._policy, self._classifiers = (_closed, _closed), _closed, ()


def _closed(*arrays: Array) -> list[Array]:
    raise BackendError("the programs of this point are closed; load the point again")


class EarlyExitBackend:
    """A backend whose points may look several times; points without exits are the engine's own.

    Args:
        inner: the opened engine.
        bundle: has `exits`.
        options: threads and pools.
    """

    def __init__(self, inner: Backend, bundle: Bundle, options: BackendOptions) -> None:
        self.name = inner.name
        self._inner, self._bundle, self._options = inner, bundle, options
        self._opened: dict[str, tuple[ProgramParts, LookClock]] = {}
        self._loading = threading.Lock()

    def load(self, point: OperatingPoint) -> Runner:
        """A runner that has run all its looks some times.

        Raises:
            BackendError: the engine refuses a program, or a program has other inputs or outputs than its part.
        """
        exits = self._bundle.manifest.exits
        if point.exit is None or exits is None or self.name == "null":
            return self._inner.load(point)
        parts, look_clock = self._shared(exits, point.program)
        classes = len(self._bundle.manifest.labels)
        runner = EarlyExitRunner(
            parts, exits, exits.setting(point.exit), point.size_hw, classes, look_clock=look_clock
        )  # fmt: skip
        try:
            runner.warm_up()
        except (ValueError, TypeError) as error:  # a program that gives other arrays than its part should
            raise BackendError(
                f"{self._bundle.root}: point {point.name!r}: its programs do not fit together: {error}; "
                "make the bundle again"
            ) from error
        return runner

    def memory_bytes(self, point: OperatingPoint) -> int | None:
        """As edge_runtime.backends.MemoryAware; unknown for points that look several times."""
        tell = getattr(self._inner, "memory_bytes", None)
        known: int | None = None if tell is None or point.exit is not None else tell(point)
        return known

    def settle(self) -> None:
        """As edge_runtime.backends.MemoryAware."""
        settle = getattr(self._inner, "settle", None)
        if settle is not None:
            settle()

    def close(self) -> None:
        """Close the part programs and the engine."""
        for parts, _ in self._opened.values():
            parts.close()
        self._opened = {}
        self._inner.close()

    def parts(self, glance: str) -> ProgramParts:
        """The opened part programs whose glance is this program."""
        exits = self._bundle.manifest.exits
        assert exits is not None
        return self._shared(exits, glance)[0]

    def _shared(self, exits: EarlyExits, glance: str) -> tuple[ProgramParts, LookClock]:
        with self._loading:  # points share their programs, and what is known of their times
            if glance not in self._opened:
                self._opened[glance] = (self._open(exits, exits.parts_of(glance)), LookClock())
            return self._opened[glance]

    def _open(self, exits: EarlyExits, parts: LookParts) -> ProgramParts:
        opened: dict[str, Call] = {}

        def call(name: str) -> Call:
            if name not in opened:
                program = next(p for p in self._bundle.manifest.programs if p.name == name)
                opened[name] = OPENERS[self.name](self._bundle, program, self._options)
            return opened[name]

        return ProgramParts(
            call(parts.glance), call(parts.policy), call(parts.focus), tuple(map(call, parts.classifiers)),
            exits.classifier == "concatenating",
        )  # fmt: skip


def _open_ort(bundle: Bundle, program: Program, options: BackendOptions) -> Call:
    """A session of ONNX Runtime as a call."""
    import onnxruntime

    settings: Any = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.enable_cpu_mem_arena = options.memory_arena
    if not options.spinning:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.global_thread_pool:
        settings.use_per_session_threads = False
    else:
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
    where = f"{bundle.root}: {program.file!r}"
    try:
        session = open_session(onnxruntime, bundle.content(program.file), settings)
        names = [entry.name for entry in session.get_inputs()]
    except Exception as error:
        raise BackendError(f"{where}: ONNX Runtime {onnxruntime.__version__} refuses it: {error}") from error

    def run(*arrays: Array) -> list[Array]:
        try:
            found: list[Array] = session.run(None, dict(zip(names, arrays, strict=True)))
        except Exception as error:  # onnxruntime raises its own kinds, all plain
            raise BackendError(f"{where}: ONNX Runtime failed: {error}") from error
        return found

    return run


def _open_executorch(bundle: Bundle, program: Program, options: BackendOptions) -> Call:
    """Method `forward` of a .pte as a call."""
    from edge_runtime.backends.executorch import LoadedProgram, import_engine

    torch, engine = import_engine()
    where = f"{bundle.root}: {program.file!r}"
    try:
        loaded = LoadedProgram(engine, bundle.read(program.file))
    except RuntimeError as error:
        raise BackendError(f"{where}: the installed ExecuTorch refuses it: {error}; update executorch") from error

    def run(*arrays: Array) -> list[Array]:
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        try:
            with loaded.lock:
                found = loaded.module.run_method("forward", tensors, clone_outputs=True)
        except Exception as error:  # executorch raises RuntimeError with an error number
            raise BackendError(f"{where}: ExecuTorch failed: {error}") from error
        return [_array(tensor) for tensor in found]

    return run


def _array(tensor: Any) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.numpy()
    return array


OPENERS: dict[str, Callable[[Bundle, Program, BackendOptions], Call]] = {
    "onnxruntime": _open_ort,
    "executorch": _open_executorch,
}
