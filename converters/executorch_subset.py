"""Take methods out of a lowered ExecuTorch program, with the constants that only they used.

Nothing is lowered again and nothing in a method changes: plans are dropped, references renumbered, and ExecuTorch's own
writer lays out what is left. Every method that stays then has to answer bit for bit as before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from converters.errors import ConversionError
from converters.executorch_export import quiet
from edge_runtime.backends.executorch import LoadedProgram, import_engine
from edge_runtime.manifest import OperatingPoint, Program

Report = Callable[[str], None]


def thin_programs(
    programs: Sequence[Program],
    points: Sequence[OperatingPoint],
    read: Callable[[str], bytes],
    report: Report = lambda line: None,
) -> dict[str, bytes]:
    """Smaller contents for the .pte files that hold more methods than these points use.

    Args:
        programs: all of a bundle's; those of other engines are passed over.
        points: all of a bundle's; a program may serve several.
        read: the verified content of a file of the bundle.
        report: receives a line for each file that becomes smaller.
    Returns:
        file -> content; files that hold nothing superfluous are absent.
    Raises:
        ConversionError: a file is damaged, lacks a method, or answers differently afterwards.
        BackendError: ExecuTorch is not installed.
    """
    used: dict[str, set[str]] = {}
    for program in programs:
        if program.backend == "executorch":
            methods = {p.method or "forward" for p in points if p.program == program.name}
            used.setdefault(program.file, set()).update(methods)
    thinned = {}
    for file, methods in used.items():
        content = read(file)
        held = _load(content, file).methods
        if set(held) == methods:
            continue
        thinned[file] = keep_methods(content, methods, file)
        report(
            f"{file}: keeps {len(methods)} of {len(held)} methods, {len(content) / 1e6:.2f} MB become "
            f"{len(thinned[file]) / 1e6:.2f} MB; each answers bit for bit as before"
        )
    return thinned


def keep_methods(content: bytes, wanted: Collection[str], where: str) -> bytes:
    """The program with these methods alone, verified.

    Args:
        content: a .pte whose hash was checked: ExecuTorch's loader notices damage, but does not survive every forgery.
        wanted: names of methods; at least one.
        where: the file's name, for errors.
    Raises:
        ConversionError: the program is damaged, lacks a method, or a method would answer differently.
        BackendError: ExecuTorch is not installed.
    """
    held = _load(content, where).methods  # first: the engine checks the file's structure, the reader below does not
    missing = sorted(set(wanted) - set(held))
    if missing or not wanted:
        raise ConversionError(
            f"{where}: has no method {', '.join(missing) or '(none was named)'}; it has {', '.join(held[:20])}; "
            "make the bundle again"
        )
    try:
        with quiet():
            from executorch.exir._serialize import _deserialize_pte_binary, _serialize_pte_binary

            file = _deserialize_pte_binary(content)
            _drop_plans(file.program, wanted)
            _drop_constants(file)
            smaller = bytes(_serialize_pte_binary(file, extract_delegate_segments=True))
    except Exception as error:  # ExecuTorch's reader raises many kinds, from struct.error to AssertionError
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"{where}: ExecuTorch cannot take methods out of it: {first}; build it anew") from error
    require_same_answers(content, smaller, wanted, where)
    return smaller


def require_same_answers(before: bytes, after: bytes, methods: Collection[str], where: str) -> None:
    """Run methods of two programs on the same made-up float32 input, and compare the bytes of what they give.

    Raises:
        ConversionError: the methods of `after` are not exactly these, or an answer differs.
    """
    old, new = _load(before, where), _load(after, where)
    if set(new.methods) != set(methods):
        raise ConversionError(f"{where}: has methods {', '.join(new.methods)}, expected {', '.join(sorted(methods))}")
    for method in sorted(methods):
        if _answers(old, method, where) != _answers(new, method, where):
            raise ConversionError(
                f"{where}: method {method!r} answers differently once other methods are taken out; build the bundle "
                "without them, and report this"
            )


def _load(content: bytes, where: str) -> LoadedProgram:
    _, engine = import_engine()
    try:
        return LoadedProgram(engine, content)
    except RuntimeError as error:
        raise ConversionError(
            f"{where}: ExecuTorch refuses this program: {error}; the file is damaged, or was made by a newer version: "
            "make it again"
        ) from error


def _answers(loaded: LoadedProgram, method: str, where: str) -> list[tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of each output for an input that depends on its shape alone."""
    torch, _ = import_engine()
    draw = np.random.default_rng(2026)
    try:
        meta = loaded.module.method_meta(method)
        shapes = [tuple(meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]
        inputs = tuple(torch.from_numpy(draw.standard_normal(shape, np.float32)) for shape in shapes)
        found = [output.numpy() for output in loaded.module.run_method(method, inputs, clone_outputs=True)]
    except RuntimeError as error:
        raise ConversionError(f"{where}: ExecuTorch cannot run method {method!r}: {error}; make it again") from error
    return [(output.shape, output.tobytes()) for output in found]


def _drop_plans(program: Any, wanted: Collection[str]) -> None:
    """Keep the plans of these methods and their delegates' data, in the old order."""
    program.execution_plan = [plan for plan in program.execution_plan if plan.name in wanted]
    data = []
    for plan in program.execution_plan:
        for delegate in plan.delegates:  # the reader has put every delegate's data inline
            data.append(program.backend_delegate_data[delegate.processed.index])
            delegate.processed.index = len(data) - 1
    program.backend_delegate_data = data


def _drop_constants(file: Any) -> None:
    """Empty constants that no plan names, and leave out named data whose name stands in no delegate's data.

    Constants keep their places, since they are referred to by number. A name that occurs by chance costs a few bytes.
    """
    from executorch.exir.schema import Buffer, Tensor

    program = file.program
    tensors = [v.val for plan in program.execution_plan for v in plan.values if isinstance(v.val, Tensor)]
    numbers = {tensor.data_buffer_idx for tensor in tensors}
    program.constant_buffer = [b if i in numbers else Buffer(b"") for i, b in enumerate(program.constant_buffer)]
    if file.named_data is None:
        return
    outside = {t.extra_tensor_info.fully_qualified_name for t in tensors if t.extra_tensor_info is not None}
    blobs = [found.data for found in program.backend_delegate_data]
    kept = {
        name: entry
        for name, entry in file.named_data.pte_data.items()
        if name in outside or any(name.encode() in blob for blob in blobs)
    }
    file.named_data.pte_data = kept  # the writer lays out the buffers of these names and no others
