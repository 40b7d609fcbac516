"""How large a calibration error a perfectly calibrated model would show by chance, on as many pictures.

    python -m benchmarks.calibration_floor runs/default-20/model.pt --data imagenet20-64.zip

Labels are drawn from the model's own probabilities on the test pictures, again and again; the error of these draws is
what chance alone gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.record import percentiles, save

DRAWS = 300


def chance_errors(probabilities: Any, draws: int = DRAWS) -> list[float]:
    """Calibration errors of labels that follow the probabilities exactly.

    Args:
        probabilities: (pictures, classes) torch float64, rows sum to 1.
    """
    import torch

    from zoo.confidence import expected_calibration_error

    draw = torch.Generator().manual_seed(0)
    return [
        expected_calibration_error(probabilities, torch.multinomial(probabilities, 1, generator=draw)[:, 0])
        for _ in range(draws)
    ]


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", required=True)
def main(checkpoint: Path, data: str) -> None:
    """Write the JSON, a row a point."""
    import torch

    from zoo import materialise
    from zoo.augment import augmented_batch
    from zoo.calibrate import to_tensor
    from zoo.checkpoint import load_checkpoint
    from zoo.pictures import PictureSource
    from zoo.recipe import Recipe

    loaded, source = load_checkpoint(checkpoint), PictureSource(data)
    recipe, model = Recipe.from_dict(loaded.recipe), loaded.build()
    names = source.splits(recipe.calib_pictures, recipe.select_pictures)["test"].names
    rows = []
    for facts in loaded.accuracy:
        plain = materialise(model, width=facts["width"], resolution=facts["resolution"]).eval()
        logits = []
        for at in range(0, len(names), 100):
            some = names[at : at + 100]
            batch = augmented_batch(source, some, range(len(some)), facts["resolution"], "none", 0, 0)
            with torch.no_grad():
                logits.append(plain(to_tensor(batch, recipe.mean, recipe.std, torch.device("cpu"))))
        probabilities = (torch.cat(logits).double() / facts["temperature"]).softmax(1)
        chance = percentiles(chance_errors(probabilities))
        rows.append({"width": facts["width"], "resolution": facts["resolution"], "ece": facts["ece"], "chance": chance})
        click.echo(
            f"width {facts['width']:.2f} {facts['resolution']:3d} px: measured {facts['ece']:.1%}, by chance "
            f"{chance['p50']:.1%}, at most {chance['p95']:.1%} in 95 of 100 draws"
        )
    save("calibration_floor", {"pictures": len(names), "points": rows})


if __name__ == "__main__":
    main()
