"""What a linear classifier on pixels alone reaches, for comparison with networks: benchmarks/results/pixel_probe.json.

    python -m benchmarks.pixel_probe imagenet20-64.zip

Multinomial logistic regression at several picture sides and strengths of L2; both are chosen on select.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from benchmarks.record import save

SIDES = (16, 32)
L2 = (0.01, 0.03, 0.1, 0.3, 1.0)
ITERATIONS = 60


def fit(pixels: Any, labels: Any, classes: int, l2: float) -> tuple[Any, Any]:
    """Weights (values, classes) and bias (classes,) that minimise cross-entropy + l2 / 2 * |weights|^2.

    Args:
        pixels: (pictures, values) float32, centred and scaled.
        labels: (pictures,) int64.
    """
    import torch

    weight = torch.zeros(pixels.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        found = torch.nn.functional.cross_entropy(pixels @ weight + bias, labels) + l2 / 2 * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def probe(source: Any, side: int) -> list[dict[str, float]]:
    """One row for each strength: accuracy (0-1) on each split."""
    import torch

    from zoo.pictures import evaluation_batch

    splits = source.splits()
    pixels = {
        name: torch.from_numpy(evaluation_batch(source, s.names, side).reshape(len(s), -1).astype(np.float32))
        for name, s in splits.items()
    }
    mean, scale = pixels["train"].mean(0), pixels["train"].std()
    rows = []
    for l2 in L2:
        labels = torch.from_numpy(splits["train"].labels)
        weight, bias = fit((pixels["train"] - mean) / scale, labels, len(source.classes), l2)
        row: dict[str, float] = {"side": side, "l2": l2}
        for name in ("train", "select", "test"):
            best = (((pixels[name] - mean) / scale) @ weight + bias).argmax(1).numpy()
            row[name] = float(np.mean(best == splits[name].labels))
        rows.append(row)
    return rows


def best_on_select(rows: list[dict[str, float]]) -> dict[str, float]:
    """The row to be compared with."""
    return max(rows, key=lambda row: row["select"])


@click.command()
@click.argument("data")
def main(data: str) -> None:
    """Fit, choose, and write the JSON."""
    import torch

    from zoo.pictures import PictureSource

    torch.set_num_threads(1)
    rows = [row for side in SIDES for row in probe(PictureSource(data), side)]
    for row in rows:
        print(row)
    save("pixel_probe", {"rows": rows, "chosen": best_on_select(rows)})


if __name__ == "__main__":
    main()
