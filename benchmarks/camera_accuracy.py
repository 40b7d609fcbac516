"""Accuracy on the test pictures as they are, and as a bad camera would give them, for several checkpoints side by side.

    python -m benchmarks.camera_accuracy runs/shipped-20/model.pt runs/finish-20/model.pt --data imagenet20-64.zip

With `--split select` it helps to choose a checkpoint, and writes nothing.

The camera is the training augmentation "camera": crops of 35 to 100 %, rotation, blur, lost detail, light and colour.
Its draws are made for this benchmark and are the same for all checkpoints and points; no training sees test pictures.
The table goes into docs/default-model.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch

from benchmarks.glance_focus_tables import fill
from benchmarks.record import RESULTS, save
from zoo.augment import augmented_batch, shrink_batch
from zoo.calibrate import to_tensor
from zoo.checkpoint import Checkpoint, load_checkpoint
from zoo.evaluate import picture_logits
from zoo.pictures import PictureSource, Split
from zoo.recipe import Recipe
from zoo.slim_net import materialise, to_channels_last

PAGE = RESULTS.parent.parent / "docs" / "default-model.md"
SEED, BATCH = 5, 250


def camera_pictures(source: PictureSource, split: Split, side: int) -> np.ndarray:
    """One draw of every picture, (N, side, side, 3) uint8."""
    return augmented_batch(source, split.names, range(len(split)), side, "camera", SEED, 0)


@torch.no_grad()
def accuracies(checkpoint: Checkpoint, source: PictureSource, split: Split, camera: np.ndarray) -> list[dict[str, Any]]:
    """A row for each point of a checkpoint: width, resolution, and top-1 (0-1) of both kinds of pictures."""
    recipe, model, labels = Recipe.from_dict(checkpoint.recipe), checkpoint.build(), torch.from_numpy(split.labels)
    rows = []
    for point in checkpoint.accuracy:
        width, side = point["width"], point["resolution"]
        plain = to_channels_last(materialise(model, width=width, resolution=side))
        logits = picture_logits(plain, source, split.names, side, recipe.mean, recipe.std)
        batches = (shrink_batch(camera[at : at + BATCH], side) for at in range(0, len(camera), BATCH))
        seen = torch.cat([plain(to_tensor(batch, recipe.mean, recipe.std)) for batch in batches])
        rows.append({
            "width": width, "resolution": side, "plain": float((logits.argmax(1) == labels).double().mean()),
            "camera": float((seen.argmax(1) == labels).double().mean()),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (-row["width"], -row["resolution"]))


def table(found: dict[str, list[dict[str, Any]]], split: str = "test") -> str:
    """Markdown; points that not all checkpoints have are left out."""
    names = list(found)
    by_point = {name: {(r["width"], r["resolution"]): r for r in rows} for name, rows in found.items()}
    points = [p for p in by_point[names[0]] if all(p in by_point[name] for name in names)]
    lines = [
        "| width | pixels | " + " | ".join(f"{name}: {split} | camera" for name in names) + " |",
        "|---|---|" + "---|---|" * len(names),
    ]
    for width, side in points:
        rows = [by_point[name][width, side] for name in names]
        cells = " | ".join(f"{row['plain']:.1%} | {row['camera']:.1%}" for row in rows)
        lines.append(f"| {width:.2f} | {side} | {cells} |")
    means = [np.mean([by_point[name][p][key] for p in points]) for name in names for key in ("plain", "camera")]
    lines.append("| all | | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", type=click.Path(), required=True, help="The pictures.")
@click.option("--split", "part", type=click.Choice(["select", "test"]), default="test", show_default=True)
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result; of test alone.")
def main(checkpoints: tuple[Path, ...], data: str, part: Literal["select", "test"], write: bool) -> None:
    """Evaluate finished checkpoints; a column takes the name of a checkpoint's folder."""
    source, found = PictureSource(data), {}
    for path in checkpoints:
        checkpoint = load_checkpoint(path)
        recipe = Recipe.from_dict(checkpoint.recipe)
        split = source.splits(recipe.calib_pictures, recipe.select_pictures)[part]
        camera = camera_pictures(source, split, max(recipe.resolutions))
        found[path.resolve().parent.name] = accuracies(checkpoint, source, split, camera)
    click.echo(table(found, part))
    if write and part == "test":
        save("camera_accuracy", {"checkpoints": found})
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"camera": table(found)}), encoding="utf-8")


if __name__ == "__main__":
    main()
