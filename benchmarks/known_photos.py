"""Does a network tell strangers by what they show, or by how the file was made?

    python -m benchmarks.known_photos others.zip runs/shipped-20/model.pt runs/default-20/model.pt

Training pictures of known classes are 64 pixels wide and went through JPEG at quality 75; strangers are photographs. A
network that learns to be unsure of strangers may learn to be unsure of photographs. Among the photographs are some of
known classes, which no training sees (`strangers_skipped`): their confidence, beside that of the half of the strangers
that training left aside, both as photographs and both made as the training pictures were, shows which it is. AUROC is
the chance that a known picture gets more confidence than a stranger: 0.5 is guessing. The table goes into
docs/default-model.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.camera_accuracy import PAGE
from benchmarks.glance_focus_tables import fill
from benchmarks.record import save
from zoo.calibrate import to_tensor
from zoo.checkpoint import Checkpoint, load_checkpoint
from zoo.pictures import PictureSource, centre_square, resize_rgb
from zoo.recipe import Recipe
from zoo.slim_net import materialise, to_channels_last
from zoo.strangers import Strangers, through_jpeg

QUALITY, SIDE = 75, 64
"""Of the training pictures."""
NAMES = {"monarch": "monarch_butterfly", "sunglass": "sunglasses"}
"""ImageNet's names where the data set has others."""


def known_photos(names: list[str], classes: tuple[str, ...]) -> dict[str, str]:
    """Photographs of a known class, by file name NUMBER_CLASS.jpg: name -> class."""
    found = {}
    for name in names:
        shown = name.rsplit("/", 1)[-1].rsplit(".", 1)[0].partition("_")[2]
        shown = NAMES.get(shown, shown.lower())
        if shown in classes:
            found[name] = shown
    return found


def prepared(rgb: np.ndarray, side: int, as_trained: bool) -> np.ndarray:
    """(side, side, 3) uint8 of a photograph: of its centre square, directly or by way of what training pictures are."""
    square = centre_square(rgb)
    if as_trained:
        square = through_jpeg(resize_rgb(square, (SIDE, SIDE)), QUALITY)
    return resize_rgb(square, (side, side))


def auroc(known: np.ndarray, others: np.ndarray) -> float:
    """Share of pairs in which the known one is higher; ties count half."""
    difference = np.subtract.outer(known, others)
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


@torch.no_grad()
def probabilities(network: torch.nn.Module, pictures: list[np.ndarray], recipe: Recipe) -> Tensor:
    """(N, classes)."""
    batches = (pictures[at : at + 100] for at in range(0, len(pictures), 100))
    return torch.cat([network(to_tensor(np.stack(b), recipe.mean, recipe.std)).softmax(1) for b in batches])


def rows_of(checkpoint: Checkpoint, photos: PictureSource, points: list[tuple[float, int]]) -> list[dict[str, Any]]:
    """For each point and preparation: AUROC, top-1 of the known photographs, medians of confidence; all 0-1."""
    recipe, model, found = Recipe.from_dict(checkpoint.recipe), checkpoint.build(), []
    known = known_photos(list(photos.names), tuple(checkpoint.classes))
    others = Strangers(photos, recipe.strangers_skipped).test_names
    labels = torch.tensor([checkpoint.classes.index(label) for label in known.values()])
    for width, side in points:
        network = to_channels_last(materialise(model, width=width, resolution=side)).eval()
        for as_trained in (False, True):
            seen, strange = (
                probabilities(network, [prepared(photos.picture(n), side, as_trained) for n in names], recipe)
                for names in (known, others)
            )
            confidence, other = seen.max(1).values.numpy(), strange.max(1).values.numpy()
            found.append({
                "width": width, "resolution": side, "as_trained": as_trained, "auroc": auroc(confidence, other),
                "known_top1": float((seen.argmax(1) == labels).double().mean()), "photos": len(known),
                "known_confidence": float(np.median(confidence)), "others_confidence": float(np.median(other)),
            })  # fmt: skip
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown, a row for each checkpoint, point and preparation."""
    lines = [
        "| checkpoint | point | pictures | AUROC | known: top-1 | known: median confidence | strangers: the same |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        for row in rows:
            made = "made as training pictures" if row["as_trained"] else "photographs"
            lines.append(
                f"| {name} | {row['width']:.2f} x {row['resolution']} | {made} | {row['auroc']:.3f} "
                f"| {row['known_top1']:.0%} | {row['known_confidence']:.2f} | {row['others_confidence']:.2f} |"
            )
    return "\n".join(lines)


@click.command()
@click.argument("others", type=click.Path())
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result.")
def main(others: str, checkpoints: tuple[Path, ...], write: bool) -> None:
    """Judge finished checkpoints; a row takes the name of a checkpoint's folder."""
    photos = PictureSource(others, labelled=False)
    found = {
        path.resolve().parent.name: rows_of(load_checkpoint(path), photos, [(1.0, 128), (0.5, 96)])
        for path in checkpoints
    }
    click.echo(table(found))
    if write:
        save("known_photos", {"checkpoints": found})
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"photos": table(found)}), encoding="utf-8")


if __name__ == "__main__":
    main()
