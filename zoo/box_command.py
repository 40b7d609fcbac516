"""python -m zoo boxes: train a detector of boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from zoo.box_recipe import BoxRecipe
from zoo.box_train import train_boxes
from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource
from zoo.plain_report import PlainReport


@click.command("boxes")
@click.option("--recipe", "recipe_path", type=click.Path(), required=True, help="TOML file; fields: zoo/box_recipe.py.")
@click.option("--data", type=click.Path(), required=True, help="ImageFolder tree, or a zip of one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and the log.")
@click.option("--device", default="cpu", show_default=True, help="A torch device: cpu, cuda, cuda:1.")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Override the recipe's epochs.")
@click.option("--seed", type=int, default=None, help="Override the recipe's seed.")
@click.option("--init", default=None, help="Weights of the backbone: a package of zoo/pretrained.py, or a checkpoint.")
@click.option(
    "--shared-norms/--own-norms", default=True, show_default=True, help="Several processes: whose statistics."
)
def boxes_command(
    recipe_path: str, data: str, out: Path, device: str, threads: int | None, epochs: int | None, seed: int | None,
    init: str | None, shared_norms: bool,
) -> None:  # fmt: skip
    """Train a detector on cluttered scenes by a recipe; run it again to resume. Several: torchrun -m zoo boxes ..."""
    if threads:
        torch.set_num_threads(threads)
    values = BoxRecipe.from_file(recipe_path).to_dict()
    overrides = {"epochs": epochs, "seed": seed, "init": init}
    values.update({key: value for key, value in overrides.items() if value is not None})
    path = train_boxes(
        BoxRecipe.from_dict(values), PictureSource(data), out, device=device, synchronised_norms=shared_norms,
        progress=PlainReport(_epoch_line),
    )  # fmt: skip
    click.echo(f"wrote {path}")
    for row in load_checkpoint(path).accuracy:
        figures = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key.endswith(("_ap50", "_ap")))
        place = f"width {row['width']:.2f}  {row['resolution']:4d} px"
        click.echo(f"{place}  {row['madds'] / 1e6:8.2f} MMAdds  {figures}")


def _epoch_line(event: dict[str, Any]) -> str:
    return (
        f"epoch {event['epoch']}: loss {event['loss']:.3f}, full net's classes {event['class_loss']:.3f} and "
        f"boxes {event['box_loss']:.4f}, {event['duration_s']:.0f} s"
    )
