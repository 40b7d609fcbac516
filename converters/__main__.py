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
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For verification and timing.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def build_command(checkpoint: Path, data: str, out: Path, threads: int, force: bool) -> None:
    """Export, verify and pack a checkpoint."""
    torch.set_num_threads(threads)
    provenance = {
        "commit": _commit(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": f"converters build --checkpoint {checkpoint.name} --data {Path(data).name} --out {out.name}",
    }
    request = BuildRequest(
        load_checkpoint(checkpoint), PictureSource(data), out, out.stem, threads, force, provenance
    )  # fmt: skip
    path, checks = build(request, click.echo)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}: {len(checks)} points, {size / 1e6:.2f} MB")


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
