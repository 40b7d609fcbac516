"""Glance and Focus on video: does the next frame do better to begin where the last one found its answer?

    python -m benchmarks.focus_video apps/demo/focus-20.bundle --data runs/imagenet20-64.zip

Each video shows one picture of the test split that drifts over a canvas of textures and pieces (zoo/focus_video.py).
Every frame goes through two runtimes in turn, with `look_where_found` and without, at every point, without a deadline.
Videos follow one another like the cuts of a film: nothing tells the runtime that another one begins. Fills the block
"video" of docs/glance-and-focus.md. Standard errors are over videos, since frames of one video are much alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.glance_focus_tables import PAGE, fill, video_table
from benchmarks.record import save
from edge_runtime import Budget, Bundle, Runtime
from edge_runtime.sensor_loop import NoSensors

RECIPE = Path(__file__).resolve().parents[1] / "zoo" / "recipes" / "gfnet-lite0-scenes-20.toml"
OPTION = (False, True)
NO_DEADLINE = Budget(deadline_ms=60_000.0)
Video = tuple[np.ndarray, int]
"""Frames (F, S, S, 3) uint8 RGB, and the label."""


@dataclass(frozen=True)
class Played:
    """What happened in all frames of all videos: arrays (videos, frames)."""

    looks: np.ndarray
    right: np.ndarray
    run_ms: np.ndarray
    hinted: np.ndarray
    """The first patch was cut where the frame before found its answer."""


class VideoSet:
    """Videos of a data set's test pictures.

    Args:
        data: the pictures.
        recipe: of the network: sides of the labelled picture and of the scene, and which pictures were trained on.
        count: videos; of as many pictures, drawn by the seed.
        frames: of each video.
    Raises:
        click.ClickException: there are fewer test pictures than videos, or the recipe is not for scenes.
    """

    def __init__(self, data: str, recipe: Path, count: int, frames: int, seed: int) -> None:
        from zoo.gfnet_recipe import GlanceRecipe
        from zoo.pictures import PictureSource

        made = GlanceRecipe.from_file(recipe)
        if made.scene_spec is None:
            raise click.ClickException(f'{recipe}: data is {made.data!r}, expected "scenes"; give --recipe another one')
        self.spec, self.source, self.frames, self.seed = made.scene_spec, PictureSource(data), frames, seed
        splits = self.source.splits(made.calib_pictures, made.select_pictures)
        self.pool = splits["train"].names
        if "test" not in splits or len(splits["test"]) < count:
            raise click.ClickException(f"{data}: fewer than {count} test pictures; ask for fewer --videos")
        rows = np.random.default_rng(seed).permutation(len(splits["test"]))[:count]
        self.shown = [(splits["test"].names[row], int(splits["test"].labels[row])) for row in rows]

    def __iter__(self) -> Iterator[Video]:
        from zoo.focus_video import drifting_scenes

        for name, label in self.shown:
            yield drifting_scenes(self.source, name, self.pool, self.spec, self.seed, self.frames)[0], label


def require_fitting(bundle: Bundle, classes: list[str], side: int) -> None:
    """The bundle's network is for these pictures.

    Raises:
        click.ClickException: it looks once, or has other classes or another picture.
    """
    if bundle.manifest.exits is None:
        raise click.ClickException(f"{bundle.root}: no point looks several times; take a bundle of converters focus")
    if list(bundle.manifest.labels) != classes:
        raise click.ClickException(f"{bundle.root}: its classes are not those of --data; give the data of its training")
    sides = {point.size_hw for point in bundle.manifest.points}
    if sides != {(side, side)}:
        raise click.ClickException(f"{bundle.root}: made for {sorted(sides)}, --recipe makes scenes of {side} pixels")


def play(runtimes: Mapping[bool, Runtime], point: str, videos: Iterable[Video]) -> dict[bool, Played]:
    """All videos at one point, each frame with and without the option, by turns first."""
    rows: dict[bool, list[list[tuple[int, bool, float, bool]]]] = {option: [] for option in OPTION}
    for runtime in runtimes.values():
        runtime.pin(point)
    for frames, label in videos:
        for option in OPTION:
            rows[option].append([])
        for index, pixels in enumerate(frames):
            for option in OPTION if index % 2 else OPTION[::-1]:
                result = runtimes[option].infer(pixels)
                assert result.trail is not None
                right = int(result.outputs[0][0].argmax()) == label
                rows[option][-1].append((result.trail.looks, right, result.run_ms, result.trail.hinted))
    found = {}
    for option in OPTION:
        looks, right, run_ms, hinted = np.moveaxis(np.array(rows[option], np.float64), 2, 0)
        found[option] = Played(looks, right, run_ms, hinted)
    return found


def compared(point: str, found: Mapping[bool, Played]) -> dict[str, Any]:
    """The row of one point. Differences are with the option less without."""
    plain, option = found[False], found[True]
    row: dict[str, Any] = {"point": point}
    for name in ("looks", "right", "run_ms"):
        before, after = getattr(plain, name), getattr(option, name)
        difference = (after - before).mean(1)  # of each video
        row[name] = {
            "without": float(before.mean()), "with": float(after.mean()), "difference": float(difference.mean()),
            "standard_error": float(difference.std(ddof=1) / math.sqrt(len(difference))),
        }  # fmt: skip
    row["hinted"] = float(option.hinted.mean())
    row["hinted_across_cuts"] = float(option.hinted[1:, 0].mean())
    return row


@click.command()
@click.argument("bundle_path", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(exists=True), required=True, help="The pictures of its training.")
@click.option(
    "--recipe", type=click.Path(path_type=Path), default=RECIPE, help="Of the network.  [gfnet-lite0-scenes-20]"
)
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--videos", type=click.IntRange(2), default=200, show_default=True)
@click.option("--frames", type=click.IntRange(1), default=30, show_default=True, help="Of each video.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result.")
def main(
    bundle_path: Path, data: str, recipe: Path, backend: str, videos: int, frames: int, seed: int, write: bool
) -> None:
    """Play the videos and fill the block of docs/glance-and-focus.md."""
    shown, bundle = VideoSet(data, recipe, videos, frames, seed), Bundle.load(bundle_path)
    require_fitting(bundle, shown.source.classes, shown.spec.canvas)
    with (
        _runtime(bundle, backend, option=False) as plain,
        _runtime(bundle, backend, option=True) as option,
    ):
        points = [point.name for point in sorted(plain.points, key=lambda p: p.madds)]
        rows = [compared(point, play({False: plain, True: option}, point, shown)) for point in points]
    values = {"bundle": bundle_path.name, "backend": backend, "videos": videos, "frames": frames, "points": rows}
    table = video_table(values)
    click.echo(table)
    if write:
        save("focus_video", values)
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"video": table}), encoding="utf-8")


def _runtime(bundle: Bundle, backend: str, *, option: bool) -> Runtime:
    return Runtime.load(
        bundle, backend=backend, threads=1, budget=NO_DEADLINE, sensors=NoSensors(), query_table="none", resident="all",
        look_where_found=option,
    )  # fmt: skip


if __name__ == "__main__":
    main()
