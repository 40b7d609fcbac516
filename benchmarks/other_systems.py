"""The variants of the zoo's systems for video, boxes, pixels and paths: python -m benchmarks.other_systems

Counts parameters and multiply-adds of each variant at its published input, on the meta device (nothing is computed),
and writes the table of docs/zoo-video-and-dense.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import nn

from benchmarks.record import RESULTS
from zoo.madds import count_madds
from zoo.models import CLIP_MODELS, DENSE_MODELS, PATH_MODELS

ROOT = RESULTS.parent.parent
PAGE, FACTS = ROOT / "docs" / "zoo-video-and-dense.md", ROOT / "tests" / "zoo" / "facts"
SYSTEMS = ("slowfast", "x3d", "s3d", "ean", "mvit", "stm", "efficientdet", "sfnet", "rsbnet")
BEGIN, END = "<!-- variants:begin -->", "<!-- variants:end -->"
Shapes = list[list[int]]


def published_inputs() -> dict[str, Shapes]:
    """Variant -> the shapes that its multiply-adds are stated for, without or with the batch axis."""
    found: dict[str, Shapes] = {}
    for system in SYSTEMS:
        for name, row in json.loads((FACTS / f"{system}.json").read_text("utf-8"))["counts"].items():
            shapes = row.get("inputs") or row.get("input") or [3, row["resolution"], row["resolution"]]
            found[name] = shapes if isinstance(shapes[0], list) else [shapes]
    return found


def variant_row(name: str, make: Callable[..., nn.Module], shapes: Shapes) -> str:
    """One line of the table."""
    with torch.device("meta"):
        model = make().eval()
    batched = [tuple(shape) if shape[0] == 1 else (1, *shape) for shape in shapes]
    madds = count_madds(_Several(model) if len(batched) > 1 else model, *batched)
    parameters = sum(p.numel() for p in model.parameters())
    sizes = ", ".join("x".join(map(str, shape[1:])) for shape in batched)
    return f"| `{name}` | {sizes} | {parameters / 1e6:.2f} | {madds / 1e9:.2f} |"


class _Several(nn.Module):
    """A network of two pathways as it takes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model.forward_pathways(*inputs)
        return found


def table() -> str:
    """All variants, as Markdown."""
    shapes = published_inputs()
    lines = ["| name | input | parameters, M | multiply-adds, G |", "|---|---|---|---|"]
    for models in (CLIP_MODELS, DENSE_MODELS, PATH_MODELS):
        lines += [variant_row(name, make, shapes[name]) for name, make in models.items()]
    return "\n".join(lines)


@click.command()
def main() -> None:
    """Count, and fill the page."""
    page = Path(PAGE).read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
    click.echo(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
