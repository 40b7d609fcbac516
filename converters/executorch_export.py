"""Lower points to one ExecuTorch program for XNNPACK: a method for each (width, size).

Not one method with dynamic height and width per width: the statistics of batch normalisation belong to a (width,
size) and are folded into the convolutions, so each point has constants of its own. Fixed shapes also let the
memory of a method be planned exactly.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from converters.delegation import MIN_DELEGATED, Delegation, delegation_of, require_delegated
from converters.errors import ConversionError
from converters.executorch_cache import FORMAT, LoweredCache
from converters.subnets import table_key
from zoo.sizes import input_shape, size_text
from zoo.slim_net import Size

Report = Callable[[str], None]


@dataclass(frozen=True)
class Lowered:
    """A program and what is in it."""

    program: bytes
    """The .pte."""
    delegation: list[Delegation]
    """One for each method."""
    from_cache: bool
    seconds: float


def method_name(width: float, size: Size) -> str:
    """Name of a point's method: w0_50_r048, of clips w0_50_f08_r048."""
    return table_key(width, size).replace(".", "_").replace("-", "_")


def export_point(module: Any, size: Size) -> Any:
    """The point as torch.export.ExportedProgram, for one picture or clip of this size.

    Raises:
        ConversionError: torch cannot export the network.
    """
    example = torch.zeros(input_shape(size))
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, (example,))
    except Exception as error:  # the exporter raises many kinds; the first line says which operator
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"{type(module).__name__} at {size_text(size)} cannot be exported: {first}") from error


def lower(
    methods: dict[str, Any],
    cache: LoweredCache | None,
    report: Report,
    min_delegated: float = MIN_DELEGATED,
) -> Lowered:
    """Lower exported points together, so that equal constants are stored once.

    Args:
        methods: method -> ExportedProgram.
        cache: earlier results; None keeps nothing.
        report: receives a line before and after the long step.
    Raises:
        ConversionError: ExecuTorch refuses the program, or XNNPACK takes too little of it.
    """
    started = time.monotonic()
    key = content_key(methods)
    held = None if cache is None else cache.get(key)
    if held is None:
        report(f"lowering {len(methods)} methods for ExecuTorch; this takes minutes the first time")
        program, delegation = _lower(methods)
    else:
        program, delegation = held
    for found in delegation:
        require_delegated(found, min_delegated)
    if held is None and cache is not None and (fault := cache.put(key, program, delegation)):
        report(fault)
    lowered = Lowered(program, delegation, held is not None, time.monotonic() - started)
    report(describe(lowered))
    return lowered


def describe(lowered: Lowered) -> str:
    """One line: methods, size, time, share delegated and fallbacks."""
    worst = min(lowered.delegation, key=lambda d: d.share)
    left = sorted({name for d in lowered.delegation for name in d.fallbacks})
    source = "from the cache" if lowered.from_cache else f"in {lowered.seconds:.0f} s"
    return (
        f"{len(lowered.delegation)} methods {source}, {len(lowered.program) / 1e6:.2f} MB; XNNPACK runs at least "
        f"{worst.delegated} of {worst.total} operators ({worst.share:.1%}); left to portable kernels: "
        f"{', '.join(left) or 'none'}"
    )


def content_key(methods: dict[str, Any]) -> str:
    """Hash of everything that the lowered program depends on: graphs, constants, versions."""
    digest = hashlib.sha256()
    versions = {name: _version(name) for name in ("torch", "executorch", "torchao")}
    digest.update(json.dumps({"format": FORMAT, "versions": versions}, sort_keys=True).encode())
    for name, program in sorted(methods.items()):
        digest.update(f"\n{name}\n{program.graph}\n".encode())
        for kind in (program.state_dict, program.constants):
            for key, value in sorted(kind.items()):
                digest.update(key.encode())
                if isinstance(value, torch.Tensor):
                    digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
                    digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def require_executorch(precisions: Sequence[str]) -> None:
    """Say early that a package is missing.

    Raises:
        ConversionError: naming the extra to install.
    """
    for package in ("executorch", *(("torchao",) if "int8" in precisions else ())):
        if _version(package) is None:
            raise ConversionError(
                f"{package} is not installed; it is needed to make ExecuTorch programs: "
                "pip install 'edge-runtime[convert]'"
            )


def _lower(methods: dict[str, Any]) -> tuple[bytes, list[Delegation]]:
    try:
        with quiet(), torch.no_grad():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            edge = to_edge_transform_and_lower(methods, partitioner=[XnnpackPartitioner()])
            delegation = [delegation_of(m, edge.exported_program(m).graph_module) for m in methods]
            return bytes(edge.to_executorch().buffer), delegation
    except Exception as error:  # many kinds here, too
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"ExecuTorch cannot lower {', '.join(methods)}: {first}") from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """ExecuTorch and torchao warn on import of APIs that will change and of GPU kernels that cannot be loaded here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
