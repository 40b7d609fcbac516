"""python -m converters: checkpoint -> bundle."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import torch

from converters.build import BuildRequest, build
from converters.errors import ConversionError
from converters.int8_graph import QuantSpec
from edge_runtime.errors import EdgeRuntimeError
from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.pictures import DataError, PictureSource
from zoo.slim_layers import SlimError

ERRORS = (ConversionError, CheckpointError, DataError, EdgeRuntimeError, SlimError, OSError)


@click.group()
def main() -> None:
    """Convert trained models into bundles."""


@main.command("build")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of a finished training.")
@click.option(
    "--data", type=click.Path(), required=True, help="The pictures it was trained on: verification needs them."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, int8, or fp32,int8.")
@click.option(
    "--reduce-range/--full-range", default=None, help="7-bit weights for x86 without VNNI; default: by this CPU."
)
@click.option("--max-drop", type=float, default=0.01, show_default=True, help="Accuracy that an int8 point may lose.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For verification and timing.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def build_command(
    checkpoint: Path,
    data: str,
    out: Path,
    precision: str,
    reduce_range: bool | None,
    max_drop: float,
    threads: int,
    force: bool,
) -> None:
    """Export, verify and pack a checkpoint."""
    torch.set_num_threads(threads)
    provenance = {
        "commit": _commit(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": f"converters build --checkpoint {checkpoint.name} --data {Path(data).name} --out {out.name}",
    }
    precisions = tuple(precision.split(","))
    if not set(precisions) <= {"fp32", "int8"}:
        raise ConversionError(f"--precision is {precision!r}, expected fp32, int8, or fp32,int8")
    quant = QuantSpec(reduce_range=_needs_reduced_range() if reduce_range is None else reduce_range, max_drop=max_drop)
    request = BuildRequest(
        load_checkpoint(checkpoint), PictureSource(data), out, out.stem, precisions, quant, threads, force, provenance
    )  # fmt: skip
    path, checks = build(request, click.echo)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}: {len(checks)} points, {size / 1e6:.2f} MB")


def _needs_reduced_range() -> bool:
    """x86 without VNNI adds products of uint8 and int8 in 16 bits, which saturate."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx2" in flags and "vnni" not in flags


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


if __name__ == "__main__":
    try:
        main()
    except ERRORS as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
