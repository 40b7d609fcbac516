"""python -m zoo focus and scenes: train Glance and Focus, and what it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from zoo.checkpoint import load_checkpoint
from zoo.focus_scene_source import SceneSource
from zoo.focus_scenes import SceneSpec
from zoo.gfnet_recipe import GlanceRecipe
from zoo.gfnet_train import train_gfnet
from zoo.pictures import PictureSource
from zoo.plain_report import PlainReport
from zoo.recipe import Recipe
from zoo.train import train


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
    path = train_gfnet(
        GlanceRecipe.from_dict(values), PictureSource(data), out, device=device, progress=PlainReport(_epoch_line)
    )
    click.echo(f"wrote {path}")
    for row in load_checkpoint(path).accuracy:
        splits = "  ".join(f"{k[:-9]} {v:.3f}" for k, v in row.items() if k.endswith("_accuracy"))
        click.echo(f"{row['patches']:9s} look {row['step']}  {row['madds'] / 1e6:8.2f} MMAdds  {splits}")


@click.command("scenes")
@click.option("--recipe", "recipe_path", type=click.Path(), required=True, help="As for train.")
@click.option("--data", type=click.Path(), required=True, help="ImageFolder tree, or a zip of one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and the log.")
@click.option("--canvas", type=click.IntRange(16), default=128, show_default=True, help="Side of a scene, pixels.")
@click.option("--objects", type=(int, int), default=(36, 60), show_default=True, help="Sides of the labelled picture.")
@click.option("--copies", type=click.IntRange(1), default=2, show_default=True, help="Scenes of a training picture.")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
def scenes_command(
    recipe_path: str, data: str, out: Path, canvas: int, objects: tuple[int, int], copies: int, threads: int | None
) -> None:
    """Train any network of the zoo on cluttered scenes: what Glance and Focus is compared with."""
    if threads:
        torch.set_num_threads(threads)
    source = SceneSource(data, SceneSpec(canvas, objects), copies)
    path = train(Recipe.from_file(recipe_path), source, out, progress=_report_plain)
    click.echo(f"wrote {path}")


def _report_plain(event: dict[str, Any]) -> None:
    if event["event"] == "epoch":
        click.echo(f"epoch {event['epoch']}: loss {event['loss']:.3f}, train accuracy {event['train_accuracy']:.3f}")


def _epoch_line(event: dict[str, Any]) -> str:
    looks = " ".join(f"{accuracy:.3f}" for accuracy in event["train_accuracy_by_look"])
    return (
        f"epoch {event['epoch']}, stage {event['stage']}: loss {event['loss']:.3f}, "
        f"train accuracy by look {looks}, {event['duration_s']:.0f} s"
    )
