"""What a Glance and Focus bundle says where there is nothing that it knows.

    python -m benchmarks.focus_unsure FOCUS.bundle --checkpoint MODEL.pt --data PICTURES --strangers OTHERS.zip

Scenes of three kinds go through the runtime's own runner at every point: scenes of test pictures, the same kind of
scene around photographs of none of the classes (made as the training pictures were: 64 pixels, JPEG), and clutter with
no picture in it. A table of how many are answered "unsure" goes into docs/glance-and-focus.md. Nothing was trained to
be unsure; the thresholds are of held-out scenes of known classes alone.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.glance_focus import scenes_of
from benchmarks.glance_focus_tables import PAGE, fill
from benchmarks.known_photos import QUALITY, SIDE
from benchmarks.record import save
from zoo.focus_scenes import draw_ground, draw_scene
from zoo.gfnet_views import Views
from zoo.pictures import PictureSource, resize_rgb
from zoo.recipe import Recipe
from zoo.strangers import Strangers

SKIPPED_AS_IN = Path("zoo/recipes/efficientnet-lite0-20-finish.toml")
"""Which photographs show a known class after all."""
SEED = 7


def strange_scenes(views: Views, strangers: Strangers, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scenes (N, S, S, 3) uint8 around photographs of none of the classes, and as many of clutter alone.

    Raises:
        ValueError: the network was trained on pictures as they are.
    """
    spec = views.spec
    if spec is None:
        raise ValueError("this network was trained on pictures as they are; give one of scenes")
    around, empty = [], []
    for name in names:
        draw = np.random.default_rng((SEED, zlib.crc32(name.encode())))
        side = int(draw.integers(spec.objects[0], spec.objects[1] + 1))
        picture = resize_rgb(strangers.picture(name), (side, side))
        around.append(draw_scene(picture, views.source, views.pool, spec, draw)[0])
        empty.append(draw_ground(views.source, views.pool, spec, draw))
    return np.stack(around), np.stack(empty)


def answers(bundle: Any, kinds: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """For each point: `unsure`, the share of each kind of scenes that it is unsure of, and the mean number of `looks`.

    Args:
        kinds: name -> scenes (N, S, S, 3) uint8.
    """
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.postprocess import UNSURE, classify
    from edge_runtime.preprocess import preprocess

    backend, rows = open_backend("onnxruntime", bundle, BackendOptions(threads=1)), []
    for point in bundle.points_for("onnxruntime"):
        runner = backend.load(point)
        row: dict[str, Any] = {"point": point.name, "unsure": {}, "looks": {}}
        for kind, scenes in kinds.items():
            said, looks = [], []
            for scene in scenes:
                preprocess(scene, bundle.spec, point.size_hw, out=runner.input)
                logits = runner.run()
                said.append(classify(logits, bundle.manifest.labels, point.temperature, point.unsure_below).label)
                looks.append(runner.last.looks)
            row["unsure"][kind] = float(np.mean([label == UNSURE for label in said]))
            row["looks"][kind] = float(np.mean(looks))
        rows.append(row)
    backend.close()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row for each point."""
    kinds = list(rows[0]["unsure"])
    lines = ["| point |" + "".join(f" {kind}: unsure | looks |" for kind in kinds), "|---" * (1 + 2 * len(kinds)) + "|"]
    for row in rows:
        cells = "".join(f" {row['unsure'][kind]:.1%} | {row['looks'][kind]:.2f} |" for kind in kinds)
        lines.append(f"| {row['point']} |{cells}")
    return "\n".join(lines)


@click.command()
@click.argument("bundle_path", type=click.Path(exists=True))
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of python -m zoo focus.")
@click.option("--data", type=click.Path(), required=True, help="The pictures.")
@click.option("--strangers", "others", type=click.Path(), required=True, help="Photographs of none of the classes.")
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result.")
def main(bundle_path: str, checkpoint: Path, data: str, others: str, write: bool) -> None:
    """Measure, and fill the table of docs/glance-and-focus.md."""
    from edge_runtime.bundle import Bundle
    from zoo.checkpoint import load_checkpoint

    scenes, _, _, (views, _) = scenes_of(load_checkpoint(checkpoint), data)
    strangers = Strangers(
        PictureSource(others, labelled=False), Recipe.from_file(SKIPPED_AS_IN).strangers_skipped, SIDE, QUALITY
    )  # fmt: skip
    around, empty = strange_scenes(views, strangers, strangers.train_names + strangers.test_names)
    bundle = Bundle.load(bundle_path)
    rows = answers(bundle, {"known": scenes, "strangers": around, "clutter": empty})
    click.echo(table(rows))
    if write:
        save("focus_unsure", {"bundle": bundle.root.name, "scenes": {"known": len(scenes), "strangers": len(around)},
                              "points": rows})  # fmt: skip
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"unsure": table(rows)}), encoding="utf-8")


if __name__ == "__main__":
    main()
