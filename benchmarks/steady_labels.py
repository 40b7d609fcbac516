"""What smoothing over time is worth: select pictures filmed by the demo's camera model, answered frame by frame.

    python -m benchmarks.steady_labels imagenet20-64.zip others.zip

Known pictures are of the select split, those of none of the classes from the half of the strangers that training saw:
neither the test pictures nor the demo clip take part, so that the time constant can be chosen here. Shots of two
seconds follow each other without a pause, with the camera's cuts. The table goes into docs/embedding.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from apps.demo.camera_motion import Camera, Shot, Subject, View
from benchmarks.glance_focus_tables import fill
from benchmarks.record import RESULTS, save
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle, default_bundle_path
from edge_runtime.frame import Frame
from edge_runtime.preprocess import preprocess
from edge_runtime.steady_answer import CUT_DIFFERENCE, SteadyAnswer, thumbnail
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.strangers import Strangers

PAGE = RESULTS.parent.parent / "docs" / "embedding.md"
RECIPE = RESULTS.parent.parent / "zoo" / "recipes" / "efficientnet-lite0-20.toml"
FPS, FRAMES_PER_SHOT, SEED = 30.0, 60, 3
TIMES_S = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


def random_shot(draw: np.random.Generator, class_name: str | None) -> Shot:
    """A slow pan over most of a picture."""
    views = [View(*draw.uniform(0.45, 0.55, 2), draw.uniform(0.7, 0.9)) for _ in range(2)]
    ends = [str(draw.choice(["focus", "whip"])) for _ in range(2)]
    error = float(draw.uniform(-0.3, 0.3))
    return Shot("", class_name, *views, Subject(*draw.uniform(0.4, 0.6, 2), 0.3), *ends, exposure_error=error)


def film(source: PictureSource, strangers: Strangers, classes: Sequence[str], shots: int) -> Iterator[tuple[Any, ...]]:
    """Frames (480, 640, 3) uint8 RGB with the class that they show (None: none of the known) and whether a cut begins.

    Every fifth shot shows a stranger.
    """
    recipe = Recipe.from_file(str(RECIPE))
    split = source.splits(recipe.calib_pictures, recipe.select_pictures)["select"]
    draw = np.random.default_rng(SEED)
    known, others = draw.permutation(len(split)), draw.permutation(len(strangers.train_names))
    for number in range(shots):
        row = known[number]
        name, label = split.names[row], classes[split.labels[row]]
        if number % 5 == 4:
            name, label = strangers.train_names[others[number]], None
        picture = (strangers if label is None else source).picture(name)
        camera = Camera(picture[..., ::-1], random_shot(draw, label), FRAMES_PER_SHOT, seed=number)
        for index in range(FRAMES_PER_SHOT):
            yield np.ascontiguousarray(camera.frame(index)[..., ::-1]), label, index == 0


def answered(bundle: Bundle, names: Sequence[str], frames: Iterator[tuple[Any, ...]]) -> dict[str, Any]:
    """For each point and time constant the share of right frames; how thumbnails differ at cuts and between."""
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    points = [p for p in bundle.manifest.points if p.name in names]
    runners = {p.name: backend.load(p) for p in points}
    steady = {(p.name, s): SteadyAnswer(bundle.manifest.labels, s) for p in points for s in TIMES_S}
    found: dict[tuple[str, float], dict[bool, list[bool]]] = {key: {True: [], False: []} for key in steady}
    changes: dict[bool, list[float]] = {True: [], False: []}
    last = None
    for number, (pixels, label, cut) in enumerate(frames):
        small = thumbnail(pixels)
        if last is not None:
            changes[cut].append(float(np.abs(small - last).mean()))
        last, frame = small, Frame(pixels, number, media_s=number / FPS)
        for point in points:
            runner = runners[point.name]
            preprocess(pixels, bundle.spec, point.size_hw, out=runner.input)
            logits = runner.run()
            for time_s in TIMES_S:
                key = point.name, time_s
                answer = steady[key].take(frame, False, logits, point.temperature, point.unsure_below)
                found[key][label is not None].append(answer.label == (label or "unsure"))
    return {
        "points": [
            {"point": n, "smooth_s": s, "known_right": _mean(rows[True]), "none_unsure": _mean(rows[False])}
            for (n, s), rows in found.items()
        ],
        "cuts_seen": float(np.mean(np.array(changes[True]) > CUT_DIFFERENCE)),
        "cuts_within_shots": float(np.mean(np.array(changes[False]) > CUT_DIFFERENCE)),
        "changes_percentiles": {
            "cuts": np.percentile(changes[True], [1, 5, 50]).round(1).tolist(),
            "within": np.percentile(changes[False], [50, 95, 99]).round(1).tolist(),
        },
    }  # fmt: skip


def _mean(values: list[bool]) -> float:
    return sum(values) / max(1, len(values))


def table(found: dict[str, Any]) -> str:
    """Markdown: a row for each time constant, two columns for each point."""
    names = list(dict.fromkeys(row["point"] for row in found["points"]))
    cells = {(row["point"], row["smooth_s"]): row for row in found["points"]}
    lines = [
        "| time constant | " + " | ".join(f'{n}: known right | none "unsure"' for n in names) + " |",
        "|---|" + "---|---|" * len(names),
    ]
    for time_s in TIMES_S:
        rows = [cells[name, time_s] for name in names]
        shares = " | ".join(f"{row['known_right']:.1%} | {row['none_unsure']:.1%}" for row in rows)
        lines.append(f"| {time_s:g} s | {shares} |")
    seen, within = found["cuts_seen"], found["cuts_within_shots"]
    return "\n".join(
        [*lines, "", f"{seen:.0%} of the cuts were seen, and {within:.1%} of the other frames taken for one."]
    )


@click.command()
@click.argument("data", type=click.Path())
@click.argument("others", type=click.Path())
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
@click.option("--shots", type=click.IntRange(5, 400), default=200, show_default=True)
@click.option("--point", "names", multiple=True, default=("w1.00-r128-int8", "w0.50-r096-int8"), show_default=True)
def main(data: str, others: str, bundle: Path | None, shots: int, names: tuple[str, ...]) -> None:
    """Film, answer, and write the JSON and the table."""
    loaded, recipe = Bundle.load(bundle or default_bundle_path()), Recipe.from_file(str(RECIPE))
    strangers = Strangers(PictureSource(others, labelled=False), recipe.strangers_skipped, side_px=64)
    frames = film(PictureSource(data), strangers, loaded.manifest.labels, shots)
    found = answered(loaded, names, frames)
    click.echo(table(found))
    save("steady_labels", {"bundle": loaded.manifest.name, "shots": shots, **found})
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"steady": table(found)}), encoding="utf-8")


if __name__ == "__main__":
    main()
