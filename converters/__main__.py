"""python -m converters: checkpoint -> bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

try:
    import click
    import torch

    from converters.boxes_command import boxes_command
    from converters.build import build
    from converters.build_options import BuildOptions, say_written, with_build_options
    from converters.bundle_checkpoint import checkpoint_from_bundle
    from converters.delegation import MIN_DELEGATED
    from converters.errors import ConversionError
    from converters.family_command import family_command
    from converters.focus_checkpoint import focus_checkpoint_from_bundle
    from converters.glance_focus_command import focus_command
    from converters.imagenet_command import imagenet_command
    from converters.select_points import select_points
    from edge_runtime.bundle import Bundle
    from edge_runtime.errors import EdgeRuntimeError
    from zoo.box_recipe import FAMILY as BOXES
    from zoo.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
    from zoo.gfnet_recipe import GlanceRecipe
    from zoo.pictures import DataError
    from zoo.recipe import Recipe, RecipeError
    from zoo.slim_layers import SlimError
    from zoo.sources import open_source
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] in ("converters", "zoo", "edge_runtime"):
        raise
    print(
        f"error: {error.name} is not installed; it is needed to convert models: pip install 'edge-runtime[convert]'",
        file=sys.stderr,
    )
    sys.exit(2)

ERRORS = (ConversionError, CheckpointError, DataError, EdgeRuntimeError, RecipeError, SlimError, OSError)


@click.group()
def main() -> None:
    """Convert trained models into bundles."""


@main.command("build")
@with_build_options
@click.option(
    "--min-delegated",
    type=click.FloatRange(0, 1),
    default=MIN_DELEGATED,
    show_default=True,
    help="Share of a method's operators that XNNPACK must run.",
)
def build_command(min_delegated: float, **values: Any) -> None:
    """Export, verify and pack a checkpoint."""
    options = BuildOptions(**values)
    choices = options.choices()
    torch.set_num_threads(choices.threads)
    held = load_checkpoint(options.checkpoint)
    if held.recipe.get("family") == BOXES:
        raise ConversionError(f"{options.checkpoint}: holds a detector; give it to python -m converters boxes")
    source = open_source(Recipe.from_dict(held.recipe), options.data)
    request = options.request("build", held, source, choices, min_delegated=min_delegated)
    say_written(*build(request, click.echo))


@main.command("select")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), help="Only these points.")
@click.option("--points", "pattern", default="*", show_default=True, help="Only points of such names: 'w0.50-*'.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def select_command(bundle: Path, out: Path, precision: str | None, pattern: str, force: bool) -> None:
    """Write some points of a bundle as a smaller one."""
    path, count = select_points(
        bundle, out, precision=precision, pattern=pattern, overwrite=force, report=click.echo
    )  # fmt: skip
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}: {count} points, {size / 1e6:.2f} MB")


@main.command("checkpoint")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--recipe", type=click.Path(), required=True, help="TOML file that it was trained by: names the network.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="model.pt, a new file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def checkpoint_command(bundle: Path, recipe: str, out: Path, force: bool) -> None:
    """Turn a bundle back into a checkpoint, to build it for another device or, without early exits, to train it on."""
    if out.exists() and not force:
        raise ConversionError(f"{out}: is there already; choose another --out, or give --force")
    opened = Bundle.load(bundle)
    if opened.manifest.boxes is not None:
        raise ConversionError(f"{bundle}: holds a detector, which cannot be turned back; keep its model.pt")
    if opened.manifest.exits is None:
        held = checkpoint_from_bundle(opened, Recipe.from_file(recipe))
    else:
        held = focus_checkpoint_from_bundle(opened, GlanceRecipe.from_file(recipe))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, held)
    click.echo(f"wrote {out}: {f'{len(held.accuracy)} points' if held.accuracy else 'Glance and Focus'}")


main.add_command(boxes_command)
main.add_command(family_command)
main.add_command(focus_command)
main.add_command(imagenet_command)


if __name__ == "__main__":
    try:
        main()
    except ERRORS as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
