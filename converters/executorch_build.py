"""Add ExecuTorch programs to a bundle in the making: export, quantize, lower, verify each point in the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from converters.delegation import MIN_DELEGATED
from converters.errors import ConversionError
from converters.executorch_cache import LoweredCache, default_cache
from converters.executorch_export import export_point, lower, method_name, quiet, require_executorch
from converters.executorch_quantize import quantize_point
from converters.int8 import Int8Subnet
from converters.int8_graph import QuantSpec
from converters.subnets import Subnet, float_point, table_key
from converters.verification import PointCheck, compare, engine_logits, require_parity, torch_logits
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import OperatingPoint, Program
from zoo.clip_taps import UnsupportedClipLayerError, two_dimensional
from zoo.slim_net import Size


@dataclass(frozen=True)
class ExecutorchJob:
    """What to add, and the bundle's side of it."""

    subnets: list[Subnet]
    precisions: tuple[str, ...]
    quant: QuantSpec
    quantize: Callable[[Subnet, dict[Size, float]], Int8Subnet]
    """(width, size -> float accuracy on select) -> the integers and ranges that both engines use."""
    tensors_of: Callable[[Int8Subnet, Size], dict[str, np.ndarray]]
    """(width, size) -> the point's tensors, as a device makes them for ONNX Runtime."""
    pictures: dict[str, list[np.ndarray]]
    """Split -> pictures (H, W, 3) or clips (T, H, W, 3) uint8 RGB; select is among them."""
    labels: dict[str, np.ndarray]
    write: Callable[[str, bytes], str]
    """Adds a file to the bundle."""
    open_bundle: Callable[[list[Program], list[OperatingPoint]], Bundle]
    """The bundle with these programs and points alone."""
    finish_point: Callable[[OperatingPoint, PointCheck], OperatingPoint]
    """Adds the accuracy and the checkpoint's confidence calibration."""
    report: Callable[[str], None]
    threads: int = 1
    min_delegated: float = MIN_DELEGATED
    cache_folder: Path | None = None
    """None takes the user's cache folder."""


@dataclass
class ExecutorchPart:
    """What was added."""

    programs: list[Program]
    points: list[OperatingPoint]
    checks: list[PointCheck]
    notes: list[str]


def add_executorch(job: ExecutorchJob) -> ExecutorchPart:
    """Make, write and verify the programs.

    Raises:
        ConversionError: a package is missing, XNNPACK takes too little, a float point differs from torch, or int8 is
            wanted of 3-d convolutions.
    """
    require_executorch(job.precisions)
    if "int8" in job.precisions:
        _require_flat(job.subnets)
    part = ExecutorchPart([], [], [], [])
    accuracy = _add_floats(job, part)
    if "int8" in job.precisions:
        _add_int8(job, part, accuracy)
    if "fp32" not in job.precisions:  # a float point stays where its int8 one was left out
        done = {(p.width, p.size) for p in part.points if p.name.endswith("-int8-et")}
        part.points = [p for p in part.points if p.name.endswith("-int8-et") or (p.width, p.size) not in done]
        kept = {p.program for p in part.points}
        part.programs = [p for p in part.programs if p.name in kept]
    for program in part.programs:
        part.notes.append(f"{program.file}: ExecuTorch, XNNPACK; every method has a fixed input size")
    return part


def _require_flat(subnets: list[Subnet]) -> None:
    """Refuse 3-d convolutions: in two dimensions each is a sum of several, whose parts have no ranges of their own."""
    for subnet in subnets:
        deep = [n for n, m in next(iter(subnet.by_size.values())).named_modules() if isinstance(m, nn.Conv3d)]
        if deep:
            raise ConversionError(
                f"{deep[0]} is a 3-d convolution, which ExecuTorch runs as a sum of 2-d ones, in float alone; give "
                "--precision fp32, or --backend onnxruntime for int8"
            )


def _points(job: ExecutorchJob, precision: str) -> list[tuple[Subnet, Size, OperatingPoint]]:
    found = []
    for subnet in job.subnets:
        for size in subnet.by_size:
            key, method = table_key(subnet.width, size), method_name(subnet.width, size)
            point = replace(
                float_point(subnet, size), name=f"{key}-{precision}-et", program=f"all-{precision}-et", table=None,
                method=method,
            )  # fmt: skip
            found.append((subnet, size, point))
    return found


def _lowerable(subnet: Subnet, size: Size) -> nn.Module:
    """One point in the form that ExecuTorch runs: networks for clips in two dimensions."""
    folded = subnet.folded(size).eval()
    if isinstance(size, int):
        return folded
    try:
        return two_dimensional(folded).eval()
    except UnsupportedClipLayerError as error:
        raise ConversionError(f"ExecuTorch: {error}; or build with --backend onnxruntime") from error


def _add_program(job: ExecutorchJob, part: ExecutorchPart, precision: str, methods: dict[str, object]) -> None:
    lowered = lower(methods, LoweredCache(job.cache_folder or default_cache()), job.report, job.min_delegated)
    file = job.write(f"programs/all-{precision}.pte", lowered.program)
    part.programs.append(Program(f"all-{precision}-et", "executorch", precision, file))
    worst = min(lowered.delegation, key=lambda d: d.share)
    left = sorted({name for found in lowered.delegation for name in found.fallbacks})
    part.notes.append(
        f"{file}: XNNPACK runs at least {worst.delegated} of {worst.total} operators of a method; "
        f"not {', '.join(left) or 'one is left'}"
    )


def _add_floats(job: ExecutorchJob, part: ExecutorchPart) -> dict[tuple[float, Size], float]:
    """The float points; returns (width, size) -> accuracy on select."""
    listed = _points(job, "fp32")
    methods = {str(p.method): export_point(_lowerable(s, size), size) for s, size, p in listed}
    _add_program(job, part, "fp32", methods)
    bundle = job.open_bundle(part.programs, [p for _, _, p in listed])
    backend = open_backend("executorch", bundle, BackendOptions(job.threads))
    pictures = [picture for found in job.pictures.values() for picture in found]
    accuracy = {}
    for subnet, size, point in listed:
        reference = torch_logits(subnet.by_size[size], bundle, point.size, pictures)
        check = compare(point.name, reference, engine_logits(backend, bundle, point, pictures), job.labels)
        require_parity(check)
        _accept(job, part, point, check)
        accuracy[subnet.width, size] = check.accuracy["select"]
    backend.close()
    return accuracy


def _accept(job: ExecutorchJob, part: ExecutorchPart, point: OperatingPoint, check: PointCheck) -> None:
    part.checks.append(check)
    part.points.append(job.finish_point(point, check))
    job.report(check.summary())


def _add_int8(job: ExecutorchJob, part: ExecutorchPart, accuracy: dict[tuple[float, Size], float]) -> None:
    """The int8 points that lose no more than the spec allows."""
    listed = _points(job, "int8")
    methods: dict[str, object] = {}
    for subnet in job.subnets:
        started = time.monotonic()
        found = job.quantize(subnet, {size: accuracy[subnet.width, size] for size in subnet.by_size})
        for size in subnet.by_size:
            exported = export_point(_lowerable(subnet, size), size)
            with quiet():
                quantized = quantize_point(exported, found.graph.proto, job.tensors_of(found, size))
            methods[method_name(subnet.width, size)] = export_point(quantized, size)
        job.report(f"{subnet.name}: int8 for ExecuTorch in {time.monotonic() - started:.0f} s")
        if found.spec.float_layers:
            part.notes.append(f"{subnet.name} int8, ExecuTorch: {', '.join(found.spec.float_layers)} stay float")
    _add_program(job, part, "int8", methods)
    floats = list(part.points)
    bundle = job.open_bundle(part.programs, floats + [p for _, _, p in listed])
    backend = open_backend("executorch", bundle, BackendOptions(job.threads))
    pictures = [picture for found in job.pictures.values() for picture in found]
    for (subnet, size, point), reference_point in zip(listed, floats, strict=True):
        reference = engine_logits(backend, bundle, reference_point, pictures)
        check = compare(point.name, reference, engine_logits(backend, bundle, point, pictures), job.labels)
        drop = accuracy[subnet.width, size] - check.accuracy["select"]
        if drop > job.quant.max_drop:
            part.notes.append(f"{point.name} is left out: it loses {drop:.2%} on select")
            job.report(part.notes[-1])
            continue
        _accept(job, part, point, check)
    backend.close()
    if not any(p.program == "all-int8-et" for p in part.points):
        part.programs = [p for p in part.programs if p.precision != "int8"]
