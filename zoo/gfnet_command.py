"""python -m zoo focus: train Glance and Focus."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import torch

from zoo.checkpoint import load_checkpoint
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_train import train_gfnet
from zoo.pictures import PictureSource


@click.command("focus")
@click.option("--recipe", "recipe_path", type=click.Path(), required=True, help="TOML file; see docs.")
@click.option("--data", type=click.Path(), required=True, help="ImageFolder tree, or a zip of one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and the log.")
@click.option("--device", default="cpu", show_default=True, help="A torch device: cpu, cuda, cuda:1.")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
@click.option("--seed", type=int, default=None, help="Override the recipe's seed.")
def focus_command(recipe_path: str, data: str, out: Path, device: str, threads: int | None, seed: int | None) -> None:
    """Train Glance and Focus by a recipe; run it again to resume. Several processes: torchrun -m zoo focus ..."""
    if threads:
        torch.set_num_threads(threads)
    values = GlanceRecipe.from_file(recipe_path).to_dict()
    if seed is not None:
        values["seed"] = seed
    path = train_gfnet(GlanceRecipe.from_dict(values), PictureSource(data), out, device=device, progress=_Report())
    click.echo(f"wrote {path}")
    for row in load_checkpoint(path).accuracy:
        splits = "  ".join(f"{k[:-9]} {v:.3f}" for k, v in row.items() if k.endswith("_accuracy"))
        click.echo(f"{row['patches']:9s} look {row['step']}  {row['madds'] / 1e6:8.2f} MMAdds  {splits}")


class _Report:
    """A line for each epoch, and one a minute in between."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            looks = " ".join(f"{accuracy:.3f}" for accuracy in event["train_accuracy_by_look"])
            click.echo(
                f"epoch {event['epoch']}, stage {event['stage']}: loss {event['loss']:.3f}, "
                f"train accuracy by look {looks}, {event['duration_s']:.0f} s"
            )
        elif event["event"] == "step" and time.monotonic() - self._last_s > 60.0:
            self._last_s = time.monotonic()
            click.echo(f"step {event['done']} of {event['total']}: loss {event['loss']:.3f}")
