"""What it would cost to share normalisation statistics among the resolutions of a width, or to round them.

    python -m benchmarks.shared_statistics --checkpoint runs/NAME/model.pt --data PICTURES

Accuracy of every point on the test pictures with the checkpoint's own statistics and with those of each way, in torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import save

STEPS = (1 / 64, 1 / 32, 1 / 16, 1 / 8)


def ways(bank: dict[str, Any], key: Callable[[float, int], str], resolutions: tuple[int, ...]) -> dict[str, Any]:
    """Name -> (width, resolution) -> statistics of every layer."""
    import torch

    def mean_of(width: float, own: dict[str, Any] | None = None) -> dict[str, Any]:
        """Of all resolutions; the means from `own` where it is given."""
        entries = [bank[key(width, r)] for r in resolutions]
        return {
            name: (
                torch.stack([e[name][0] for e in entries]).mean(0) if own is None else own[name][0],
                torch.stack([e[name][1] for e in entries]).mean(0),
            )
            for name in entries[0]
        }

    def rounded(step: float) -> Callable[[float, int], dict[str, Any]]:
        def point(width: float, resolution: int) -> dict[str, Any]:
            found = {}
            for name, (mean, variance) in bank[key(width, resolution)].items():
                deviation = torch.exp2(torch.round(torch.log2(variance + 1e-5) / 2 / step) * step)
                found[name] = (torch.round(mean / deviation / step) * step * deviation, deviation**2 - 1e-5)
            return found

        return point

    return {
        "shared by all resolutions": lambda w, r: mean_of(w),
        "variances shared, own means": lambda w, r: mean_of(w, bank[key(w, r)]),
        **{f"rounded to 1/{round(1 / step)}": rounded(step) for step in STEPS},
    }


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(), required=True)
@click.option("--pictures", default=1000, show_default=True, help="Of the test split, spread evenly.")
@click.option("--record/--no-record", default=True, help="Write benchmarks/results/shared_statistics.json.")
def main(checkpoint: Path, data: str, pictures: int, record: bool) -> None:
    """Measure, print and record."""
    import torch

    from zoo import materialise
    from zoo.calibrate import to_tensor
    from zoo.checkpoint import load_checkpoint
    from zoo.pictures import PictureSource, evaluation_batch
    from zoo.recipe import Recipe

    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    model, recipe, source = loaded.build(), Recipe.from_dict(loaded.recipe), PictureSource(data)
    test = source.splits(recipe.calib_pictures, recipe.select_pictures)["test"]
    chosen = np.linspace(0, len(test) - 1, min(pictures, len(test))).astype(int)
    labels = torch.as_tensor(np.asarray(test.labels)[chosen])
    bank = model.norm_bank.entries
    batches = {
        r: to_tensor(evaluation_batch(source, [test.names[i] for i in chosen], r), recipe.mean, recipe.std)
        for r in recipe.resolutions
    }

    @torch.no_grad()
    def accuracy(width: float, resolution: int, stats: dict[str, Any] | None) -> float:
        if stats is not None:
            model.norm_bank.entries = {**bank, model.point_key(width, resolution): stats}
        net = materialise(model, width=width, resolution=resolution)
        model.norm_bank.entries = bank
        best = torch.cat([net(part).argmax(1) for part in batches[resolution].split(250)])
        return float((best == labels).float().mean())

    points = [(w, r) for w in recipe.widths for r in recipe.resolutions]
    exact = {point: accuracy(*point, None) for point in points}
    results = {}
    for name, stats_of in ways(bank, model.point_key, recipe.resolutions).items():
        changes = [100 * (accuracy(*point, stats_of(*point)) - exact[point]) for point in points]
        results[name] = {"mean_points": round(float(np.mean(changes)), 2), "worst_points": round(min(changes), 2)}
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    if record:
        save("shared_statistics", {"checkpoint": str(checkpoint), "pictures": len(chosen), "ways": results})


if __name__ == "__main__":
    main()
