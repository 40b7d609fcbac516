"""What the shipped model says of each frame of the demo clip, against the truth of segments.json.

    python -m benchmarks.clip_labels

Every point answers every frame, twice: each frame alone, and averaged over time from cut to cut as the camera
application shows it (edge_runtime/steady_answer.py, --smooth). A frame of a known class counts as right when the label
shown is that class; a frame of none of the classes when the label shown is "unsure". The table goes into
docs/default-model.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.record import RESULTS, save

if TYPE_CHECKING:
    from edge_runtime.backends import Runner
    from edge_runtime.bundle import Bundle
    from edge_runtime.manifest import OperatingPoint

ROOT = RESULTS.parent.parent
PAGE, CLIP = ROOT / "docs" / "default-model.md", ROOT / "apps" / "demo" / "demo.mp4"
HEAD = '| point | frame alone: known right | none "unsure" | as shown: known right | none "unsure" |'
BEGIN, END = "<!-- clip:begin -->", "<!-- clip:end -->"


def truths(segments: dict[str, Any]) -> list[str | None]:
    """The class of each frame; None for none of the known ones."""
    found: list[str | None] = []
    for segment in segments["segments"]:
        found += [segment["class"]] * (segment["last_frame"] - segment["first_frame"] + 1)
    return found


def shares(answers: list[str], truth: list[str | None], labels: tuple[str, ...]) -> dict[str, Any]:
    """Share of frames that are right, of known classes and of none, and per segment's class.

    Raises:
        ValueError: a class of the clip is not among the bundle's labels.
    """
    missing = {c for c in truth if c is not None} - set(labels)
    if missing:
        raise ValueError(f"the bundle does not know {', '.join(sorted(missing))} of the clip")
    known = [a == t for a, t in zip(answers, truth, strict=True) if t is not None]
    others = [a == "unsure" for a, t in zip(answers, truth, strict=True) if t is None]
    by_class: dict[str, list[bool]] = {}
    for answer, expected in zip(answers, truth, strict=True):
        by_class.setdefault(expected or "none", []).append(answer == (expected or "unsure"))
    return {
        "known_right": sum(known) / len(known),
        "none_unsure": sum(others) / len(others),
        "by_class": {name: round(sum(found) / len(found), 4) for name, found in by_class.items()},
    }


def clip_frames() -> tuple[list[np.ndarray], float]:
    """All frames of the clip, (H, W, 3) uint8 RGB, and how many make a second."""
    import cv2

    capture, frames = cv2.VideoCapture(str(CLIP)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames, float(capture.get(cv2.CAP_PROP_FPS))


def answers(
    bundle: Bundle, runner: Runner, point: OperatingPoint, frames: list[np.ndarray], fps: float
) -> tuple[list[str], list[str]]:
    """The label of each frame alone, and as the camera application shows it."""
    from edge_runtime.frame import Frame
    from edge_runtime.preprocess import preprocess
    from edge_runtime.steady_answer import VIDEO_SMOOTH_S, SteadyAnswer

    found: tuple[list[str], list[str]] = [], []
    steady = [SteadyAnswer(bundle.manifest.labels, smooth_s) for smooth_s in (0.0, VIDEO_SMOOTH_S)]
    for number, pixels in enumerate(frames):
        preprocess(pixels, bundle.spec, point.size_hw, out=runner.input)
        logits, frame = runner.run(), Frame(pixels, number, media_s=number / fps)
        for labels, each in zip(found, steady, strict=True):
            labels.append(each.take(frame, False, logits, point.temperature, point.unsure_below).label)
    runner.close()
    return found


def _cells(row: dict[str, Any]) -> list[str]:
    return [f"{shown[key]:.1%}" for shown in (row, row["smooth"]) for key in ("known_right", "none_unsure")]


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
def main(bundle: Path | None) -> None:
    """Answer every frame at every point; write the JSON and the table."""
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.bundle import Bundle, default_bundle_path

    loaded, (frames, fps) = Bundle.load(bundle or default_bundle_path()), clip_frames()
    truth, labels = (
        truths(json.loads((CLIP.parent / "segments.json").read_text(encoding="utf-8"))),
        loaded.manifest.labels,
    )
    backend = open_backend("onnxruntime", loaded, BackendOptions(threads=1))
    rows = {}
    for point in sorted(loaded.points_for("onnxruntime"), key=lambda p: -p.madds):
        alone, smooth = (
            shares(found, truth, labels) for found in answers(loaded, backend.load(point), point, frames, fps)
        )
        rows[point.name] = {**alone, "smooth": smooth}
        click.echo(f"{point.name}: {' | '.join(_cells(rows[point.name]))}")
    save("clip_labels", {"bundle": loaded.manifest.name, "frames": len(frames), "points": rows})
    lines = [HEAD, "|---|---|---|---|---|", *(f"| {n} | {' | '.join(_cells(row))} |" for n, row in rows.items())]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
