"""python -m zoo: train and inspect models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import torch

from zoo.box_command import boxes_command
from zoo.checkpoint import CheckpointError, load_checkpoint
from zoo.clip_source import ClipSource
from zoo.gfnet_command import focus_command, scenes_command
from zoo.mix import mix_checkpoints
from zoo.models import MODELS, all_models
from zoo.pictures import DataError, PictureSource
from zoo.pretrained import PretrainedError
from zoo.recipe import Recipe, RecipeError
from zoo.refit import refit_confidence, tune_checkpoint
from zoo.sizes import size_of, size_text
from zoo.slim_layers import SlimError
from zoo.sources import open_source
from zoo.train import TrainError, train

ERRORS = (DataError, RecipeError, CheckpointError, PretrainedError, TrainError, SlimError, OSError)


@click.group()
def main() -> None:
    """Architectures and training."""


@main.command("list")
@click.option(
    "--all", "everything", is_flag=True, help="Also what zoo.create alone accepts: for clips, boxes, pixels, paths."
)
def list_models(everything: bool) -> None:
    """Names that zoo.create and recipes accept."""
    for name in sorted(all_models() if everything else MODELS):
        click.echo(name)


@main.command("train")
@click.option("--recipe", "recipe_path", type=click.Path(), required=True, help="TOML file; see docs/training.md.")
@click.option("--data", type=click.Path(), required=True, help="ImageFolder tree, or a zip of one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and the log.")
@click.option("--device", default="cpu", show_default=True, help="A torch device: cpu, cuda, cuda:1.")
@click.option("--amp/--no-amp", default=False, show_default=True, help="Mixed precision (GPU).")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Override the recipe's epochs.")
@click.option("--seed", type=int, default=None, help="Override the recipe's seed.")
@click.option("--init", default=None, help="Weights to start from: a package of zoo/pretrained.py, or a checkpoint.")
@click.option("--teacher", default=None, help="Checkpoint whose full net teaches, with init_teacher; default: --init.")
@click.option("--sort-channels/--no-sort-channels", default=None, help="Order the channels of --init by importance.")
@click.option("--strangers", default=None, help="Pictures of none of the classes, for a recipe that asks for them.")
@click.option(
    "--shared-norms/--own-norms", default=True, show_default=True, help="Several processes: whose statistics."
)
def train_command(
    recipe_path: str,
    data: str,
    out: Path,
    device: str,
    amp: bool,
    threads: int | None,
    epochs: int | None,
    seed: int | None,
    init: str | None,
    teacher: str | None,
    sort_channels: bool | None,
    shared_norms: bool,
    strangers: str | None,
) -> None:
    """Train by a recipe; run it again to resume. Several processes: torchrun -m zoo train ..."""
    if threads:
        torch.set_num_threads(threads)
    values = Recipe.from_file(recipe_path).to_dict()
    overrides = {"epochs": epochs, "seed": seed, "init": init, "teacher": teacher, "sort_channels": sort_channels}
    values.update({key: value for key, value in overrides.items() if value is not None})
    with _Progress() as progress:
        recipe = Recipe.from_dict(values)
        path = train(
            recipe, open_source(recipe, data), out, device=device, amp=amp,
            synchronised_norms=shared_norms, progress=progress,
            strangers=None if strangers is None else PictureSource(strangers, labelled=False),
        )  # fmt: skip
    click.echo(f"wrote {path}")


@main.command("tune-points")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(), required=True, help="The pictures that it was trained on.")
@click.option("--strangers", default=None, help="Pictures of none of the classes, for a recipe that asks for them.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for model.pt and the log.")
def tune_points_command(
    checkpoint: Path, data: str, strangers: str | None, epochs: int, threads: int | None, out: Path
) -> None:
    """Tune the norms of each operating point of a finished checkpoint alone; its weights stay. Run again to resume.

    Several processes: torchrun -m zoo tune-points ...
    """
    if threads:
        torch.set_num_threads(threads)
    with _Progress() as progress:
        others = None if strangers is None else PictureSource(strangers, labelled=False)
        path = tune_checkpoint(
            checkpoint, _source_of(checkpoint, data), out, epochs, strangers=others, progress=progress
        )
    click.echo(f"wrote {path}")


@main.command("mix")
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("end", type=click.Path(path_type=Path))
@click.option("--share", type=click.FloatRange(0, 1), required=True, help="How far from START to END, 0-1.")
@click.option("--data", type=click.Path(), required=True, help="The pictures that they were trained on.")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: torch's own choice.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for model.pt and the log.")
def mix_command(start: Path, end: Path, share: float, data: str, threads: int | None, out: Path) -> None:
    """Go a share of the way from one finished checkpoint to another that was trained from it, in the weights."""
    if threads:
        torch.set_num_threads(threads)
    click.echo(f"wrote {mix_checkpoints(start, end, share, _source_of(start, data), out)}")


@main.command("points")
@click.argument("checkpoint", type=click.Path(path_type=Path))
def points_command(checkpoint: Path) -> None:
    """Show the accuracy of each operating point of a finished checkpoint."""
    rows = load_checkpoint(checkpoint).accuracy
    if not rows:
        raise CheckpointError(f"{checkpoint}: has no operating points yet; finish the training, which writes model.pt")
    for row in rows:
        splits = "  ".join(f"{k[:-9]} {v:.3f}" for k, v in row.items() if k.endswith("_accuracy"))
        click.echo(
            f"width {row['width']:.2f}  {size_text(size_of(row)):>6}  {row['madds'] / 1e6:8.2f} MMAdds  {splits}"
        )


@main.command("confidence")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(), required=True, help="The pictures that it was trained on.")
@click.option("--negatives", type=click.Path(), default=None, help="Folder with pictures of none of the classes.")
@click.option("--unsure-share", type=click.FloatRange(0, 1), default=None, help="Default: the recipe's.")
def confidence_command(checkpoint: Path, data: str, negatives: str | None, unsure_share: float | None) -> None:
    """Fit temperature and "unsure" threshold of each point again, store them, and show how they hold."""
    strangers = None if negatives is None else PictureSource(negatives, labelled=False)
    for row in refit_confidence(checkpoint, _source_of(checkpoint, data), strangers, unsure_share):
        rejected = f"  unsure of others {row['unsure_others']:.3f}" if "unsure_others" in row else ""
        click.echo(
            f"width {row['width']:.2f}  {size_text(size_of(row)):>6}  temperature {row['temperature']:.3f}  "
            f"unsure below {row['unsure_below']:.3f}  ece {row['ece']:.4f}  unsure of known {row['unsure_known']:.3f}"
            + rejected
        )


def _source_of(checkpoint: Path, data: str) -> PictureSource | ClipSource:
    """What a checkpoint was trained on."""
    return open_source(Recipe.from_dict(load_checkpoint(checkpoint).recipe), data)


main.add_command(focus_command)
main.add_command(scenes_command)
main.add_command(boxes_command)


class _Progress:
    """A bar with the time left on a terminal, a line per epoch elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("training", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            self._bar.update(self._task, completed=event["done"], total=event["total"])
        elif event["event"] == "points":
            click.echo(f"points, epoch {event['epoch']}: loss {event['loss']:.3f}, {event['duration_s']:.0f} s")
        elif event["event"] == "tuned":
            taken = sum(row["taken"] for row in event["points"])
            others = "" if taken == len(event["points"]) else "; the others would be worse on select"
            click.echo(f"tuned {taken} of {len(event['points'])} points{others}")
        elif event["event"] == "epoch":
            line = f"epoch {event['epoch']}: loss {event['loss']:.3f}, train accuracy {event['train_accuracy']:.3f}"
            click.echo(f"{line}, {event['duration_s']:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except ERRORS as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
