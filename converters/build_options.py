"""What `build` and `boxes` have in common on the command line: their options, and the request that these make."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from converters.build import BuildRequest
from converters.build_choices import BuildChoices, choose
from converters.int8_graph import QuantSpec
from converters.norm_rounding import TABLE_STEP
from converters.verification import PointCheck
from zoo.checkpoint import Checkpoint
from zoo.clip_source import ClipSource
from zoo.pictures import PictureSource

OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of a finished training."
    ),
    click.option(
        "--data", type=click.Path(), required=True,
        help="What it was trained on: verification needs the pictures or clips.",
    ),
    click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder."),
    click.option("--profile", help="Device profile (name or file): engine, precision and threads from there."),
    click.option("--backend", help="onnxruntime, executorch, or onnxruntime,executorch; default: onnxruntime."),
    click.option("--precision", help="fp32, int8, or fp32,int8; default: fp32."),
    click.option(
        "--reduce-range/--full-range", default=None, help="7-bit weights for x86 without VNNI; default: by this CPU."
    ),
    click.option(
        "--max-drop", type=float, default=0.01, show_default=True,
        help="Accuracy, of detectors AP at IoU 0.5, that an int8 point may lose.",
    ),
    click.option("--threads", type=click.IntRange(1), help="For verification and timing; default: 1."),
    click.option(
        "--max-points", type=click.IntRange(2), help="Of each engine; default: the profile's, else no limit."
    ),
    click.option(
        "--drop-dominated/--keep-dominated", default=None,
        help="Leave out points that another one beats on this machine; default: if --profile is this machine's.",
    ),
    click.option(
        "--table-step", type=click.FloatRange(1 / 1024, 1.0), default=TABLE_STEP, show_default=True,
        help="What normalisation statistics are rounded to; smaller is more exact and larger on disk.",
    ),
    click.option("--force", is_flag=True, help="Replace an existing bundle."),
)  # fmt: skip


@dataclass(frozen=True)
class BuildOptions:
    """The values of OPTIONS, by the names that click gives them."""

    checkpoint: Path
    data: str
    out: Path
    profile: str | None
    backend: str | None
    precision: str | None
    reduce_range: bool | None
    max_drop: float
    threads: int | None
    max_points: int | None
    drop_dominated: bool | None
    table_step: float
    force: bool

    def choices(self) -> BuildChoices:
        """With the profile's say.

        Raises:
            ConversionError, ProfileError: as `choose`.
        """
        return choose(
            self.profile, self.backend, self.precision, self.threads, self.reduce_range, self.max_points,
            self.drop_dominated,
        )  # fmt: skip

    def request(
        self, command: str, checkpoint: Checkpoint, source: PictureSource | ClipSource, choices: BuildChoices,
        **more: Any,
    ) -> BuildRequest:  # fmt: skip
        """What to build.

        Args:
            command: its name, for the provenance.
            more: further fields of BuildRequest.
        """
        files = f"--checkpoint {self.checkpoint.name} --data {Path(self.data).name} --out {self.out.name}"
        provenance = {
            "commit": _commit(),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": f"converters {command} {files}",
        }
        quant = QuantSpec(reduce_range=choices.reduce_range, max_drop=self.max_drop)
        return BuildRequest(
            checkpoint, source, self.out, self.out.stem, choices.precisions, quant, choices.threads, self.force,
            provenance, choices.backends, table_step=self.table_step, drop_dominated=choices.drop_dominated,
            max_points=choices.max_points, **more,
        )  # fmt: skip


def with_build_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command OPTIONS, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def say_written(path: Path, checks: Sequence[PointCheck]) -> None:
    """The last line of a command."""
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}: {len(checks)} points, {size / 1e6:.2f} MB")


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
