"""python -m converters focus: a bundle of a Glance and Focus network."""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch

from converters.build_choices import needs_reduced_range
from converters.glance_focus import CONVERSIONS
from converters.glance_focus_build import FocusRequest, build_focus
from converters.glance_focus_scores import HELD_OUT_SCENES
from converters.int8_graph import QuantSpec
from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource


@click.command("focus")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of python -m zoo focus.")
@click.option("--data", type=click.Path(), required=True, help="The pictures that it was trained on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option("--backend", "backends", multiple=True, type=click.Choice(list(CONVERSIONS)), help="Repeat for both.")
@click.option("--budgets", type=click.IntRange(0, 20), default=4, show_default=True, help="Points between the ends.")
@click.option(
    "--max-loss", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.02, show_default=True,
    help="Accuracy that the point \"safe\" may lose, with 95 % confidence.",
)  # fmt: skip
@click.option(
    "--unsure-share", type=click.FloatRange(0, 1), default=0.02, show_default=True,
    help="Share of held-out pictures that a point may answer \"unsure\".",
)  # fmt: skip
@click.option(
    "--held-out-scenes", type=click.IntRange(1), default=HELD_OUT_SCENES, show_default=True,
    help="Scenes of each held-out picture that exits are solved on; for a network of cluttered scenes.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["fp32", "int8"]), help="Repeat for both.  [fp32]"
)
@click.option(
    "--max-drop", type=click.FloatRange(0, 1), default=0.01, show_default=True,
    help="Accuracy on select that int8 may lose at any look or exit; else parts stay float.",
)  # fmt: skip
@click.option("--reduce-range/--full-range", default=None, help="7-bit int8 weights.  [default: on x86 without VNNI]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def focus_command(
    checkpoint: Path, data: str, out: Path, backends: tuple[str, ...], budgets: int, max_loss: float,
    unsure_share: float, held_out_scenes: int, precisions: tuple[str, ...], max_drop: float,
    reduce_range: bool | None, threads: int, force: bool,
) -> None:  # fmt: skip
    """Export the step parts, solve the exits, verify and pack."""
    torch.set_num_threads(threads)
    provenance = {
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": f"converters focus --checkpoint {checkpoint.name} --data {Path(data).name} --out {out.name}",
    }
    request = FocusRequest(
        load_checkpoint(checkpoint), PictureSource(data), out, backends or ("onnxruntime",), precisions or ("fp32",),
        QuantSpec(needs_reduced_range() if reduce_range is None else reduce_range, max_drop=max_drop), budgets,
        max_loss, unsure_share, held_out_scenes, threads, force, provenance,
    )  # fmt: skip
    path = build_focus(request, click.echo)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}, {size / 1e6:.2f} MB")
