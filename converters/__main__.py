"""python -m converters: checkpoint -> bundle."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

try:
    import click
    import torch

    from converters.build import BuildRequest, build
    from converters.build_choices import choose
    from converters.bundle_checkpoint import checkpoint_from_bundle
    from converters.delegation import MIN_DELEGATED
    from converters.errors import ConversionError
    from converters.family_command import family_command
    from converters.focus_checkpoint import focus_checkpoint_from_bundle
    from converters.glance_focus_command import focus_command
    from converters.imagenet_command import imagenet_command
    from converters.int8_graph import QuantSpec
    from converters.norm_rounding import TABLE_STEP
    from converters.select_points import select_points
    from edge_runtime.bundle import Bundle
    from edge_runtime.errors import EdgeRuntimeError
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
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of a finished training.")
@click.option(
    "--data", type=click.Path(), required=True, help="What it was trained on: verification needs the pictures or clips."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option("--profile", help="Device profile (name or file): engine, precision and threads from there.")
@click.option("--backend", help="onnxruntime, executorch, or onnxruntime,executorch; default: onnxruntime.")
@click.option("--precision", help="fp32, int8, or fp32,int8; default: fp32.")
@click.option(
    "--reduce-range/--full-range", default=None, help="7-bit weights for x86 without VNNI; default: by this CPU."
)
@click.option("--max-drop", type=float, default=0.01, show_default=True, help="Accuracy that an int8 point may lose.")
@click.option("--threads", type=click.IntRange(1), help="For verification and timing; default: 1.")
@click.option(
    "--min-delegated",
    type=click.FloatRange(0, 1),
    default=MIN_DELEGATED,
    show_default=True,
    help="Share of a method's operators that XNNPACK must run.",
)
@click.option("--max-points", type=click.IntRange(2), help="Of each engine; default: the profile's, else no limit.")
@click.option(
    "--drop-dominated/--keep-dominated",
    default=None,
    help="Leave out points that another one beats on this machine; default: if --profile is this machine's.",
)
@click.option(
    "--table-step",
    type=click.FloatRange(1 / 1024, 1.0),
    default=TABLE_STEP,
    show_default=True,
    help="What normalisation statistics are rounded to; smaller is more exact and larger on disk.",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def build_command(
    checkpoint: Path,
    data: str,
    out: Path,
    profile: str | None,
    backend: str | None,
    precision: str | None,
    reduce_range: bool | None,
    max_drop: float,
    threads: int | None,
    min_delegated: float,
    max_points: int | None,
    drop_dominated: bool | None,
    table_step: float,
    force: bool,
) -> None:
    """Export, verify and pack a checkpoint."""
    choices = choose(profile, backend, precision, threads, reduce_range, max_points, drop_dominated)
    torch.set_num_threads(choices.threads)
    provenance = {
        "commit": _commit(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": f"converters build --checkpoint {checkpoint.name} --data {Path(data).name} --out {out.name}",
    }
    quant = QuantSpec(reduce_range=choices.reduce_range, max_drop=max_drop)
    held = load_checkpoint(checkpoint)
    source = open_source(Recipe.from_dict(held.recipe), data)
    request = BuildRequest(
        held, source, out, out.stem, choices.precisions, quant, choices.threads,
        force, provenance, choices.backends, min_delegated,
        drop_dominated=choices.drop_dominated, max_points=choices.max_points, table_step=table_step,
    )  # fmt: skip
    path, checks = build(request, click.echo)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    click.echo(f"wrote {path}: {len(checks)} points, {size / 1e6:.2f} MB")


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
    if opened.manifest.exits is None:
        held = checkpoint_from_bundle(opened, Recipe.from_file(recipe))
    else:
        held = focus_checkpoint_from_bundle(opened, GlanceRecipe.from_file(recipe))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, held)
    click.echo(f"wrote {out}: {f'{len(held.accuracy)} points' if held.accuracy else 'Glance and Focus'}")


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


main.add_command(family_command)
main.add_command(focus_command)
main.add_command(imagenet_command)


if __name__ == "__main__":
    try:
        main()
    except ERRORS as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
