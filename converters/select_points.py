"""A smaller bundle out of a larger one: some of its points, with what they need and no more."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converters.bundle_writer import BundleWriter
from converters.errors import ConversionError
from converters.executorch_subset import thin_programs
from edge_runtime.bundle import Bundle
from edge_runtime.exit_records import EarlyExits, LookParts
from edge_runtime.manifest import OperatingPoint, Program
from edge_runtime.tensor_recipe import read_recipe

Report = Callable[[str], None]


def select_points(
    source: Path,
    target: Path,
    *,
    precision: str | None = None,
    pattern: str = "*",
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> tuple[Path, int]:
    """Write the points of one precision, or whose names match, as a bundle of their own.

    Nothing is computed again: ONNX programs, weights, tables and vectors are copied as they are, and methods that no
    point uses are taken out of ExecuTorch programs. Points with early exits keep all programs that they look
    with, float ones too.

    Args:
        source: an existing bundle.
        target: the new one.
        precision: "fp32" or "int8"; None for both.
        pattern: of point names, as in a shell: "w0.50-*".
        report: receives a line for each program that becomes smaller.
    Returns:
        the new bundle and its number of points.
    Raises:
        ConversionError: no point is left, a program cannot be made smaller, or the target cannot be written.
        BundleError: the source is damaged.
        BackendError: a point runs an ExecuTorch program, and ExecuTorch is not installed.
    """
    bundle = Bundle.load(source)
    manifest = bundle.manifest

    def wanted(point: OperatingPoint) -> bool:
        return fnmatch.fnmatchcase(point.name, pattern) and precision in (None, bundle.program(point).precision)

    points = tuple(p for p in manifest.points if wanted(p))
    if not points:
        raise ConversionError(f"{source}: no point has precision {precision or 'any'} and a name like {pattern!r}")
    exits = _exits_of(manifest.exits, points)
    in_parts = set() if exits is None else {name for parts in exits.parts for name in _programs_of(parts)}
    used = {p.program for p in points} | in_parts
    programs = tuple(p for p in manifest.programs if p.name in used)
    with BundleWriter(target, overwrite) as writer:
        shares_weights = _copy(bundle, points, programs, writer)
        of_methods = [p for p in programs if p.name not in in_parts]  # a part is the only method of its file
        for file, content in thin_programs(of_methods, points, bundle.content, report).items():
            writer.write(file, content)
        smaller = replace(
            manifest, name=target.stem, programs=programs, points=points, files={}, exits=exits,
            weights=manifest.weights if shares_weights else None, tables=manifest.tables if shares_weights else None,
            provenance={**manifest.provenance, "selected_from": manifest.name},
        )  # fmt: skip
        return writer.finish(smaller), len(points)


def _programs_of(parts: LookParts) -> tuple[str, ...]:
    return (parts.glance, parts.policy, parts.focus, *parts.classifiers)


def _exits_of(exits: EarlyExits | None, points: tuple[OperatingPoint, ...]) -> EarlyExits | None:
    """The sets of programs and the settings that these points look with; None where none looks several times."""
    looking = [p for p in points if p.exit is not None]
    if exits is None or not looking:
        return None
    glances, settings = {p.program for p in looking}, {p.exit for p in looking}
    return replace(
        exits,
        parts=tuple(parts for parts in exits.parts if parts.glance in glances),
        settings=tuple(setting for setting in exits.settings if setting.name in settings),
    )


def _copy(
    bundle: Bundle, points: tuple[OperatingPoint, ...], programs: tuple[Program, ...], writer: BundleWriter
) -> bool:
    """Copy what these points need; says whether they make their weights from shared ones."""
    manifest = bundle.manifest
    for program in programs:
        for name in filter(None, (program.file, program.tensors)):
            writer.write(name, bundle.content(name))
    recipes = [read_recipe(bundle.content(p.tensors), p.tensors) for p in programs if p.tensors is not None]
    if recipes and manifest.weights is not None and manifest.tables is not None:
        sources = {name for recipe in recipes for name in recipe.sources}
        groups = {str(p.table) for p in points} | {r.norms.group for r in recipes if r.norms is not None}
        writer.write_npz(manifest.weights, {k: v for k, v in bundle.weights.items() if k in sources})
        writer.write_npz(manifest.tables, {k: v for k, v in bundle.tables.items() if k.partition("/")[0] in groups})
    if manifest.vectors is not None:
        kept = {f"logits/{p.name}" for p in points}
        vectors = {k: v for k, v in bundle.vectors.items() if not k.startswith("logits/") or k in kept}
        writer.write_npz(manifest.vectors.file, vectors, compressed=True)
    return bool(recipes)
