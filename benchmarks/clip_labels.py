"""What the shipped model says of each frame of the demo clip, against the truth of segments.json.

    python -m benchmarks.clip_labels

Every point answers every frame. A frame of a known class counts as right when the label shown is that class; a frame of
none of the classes when the label shown is "unsure". The table goes into docs/default-model.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.record import RESULTS, save

ROOT = RESULTS.parent.parent
PAGE, CLIP = ROOT / "docs" / "default-model.md", ROOT / "apps" / "demo" / "demo.mp4"
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


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Default: the shipped one.")
def main(bundle: Path | None) -> None:
    """Answer every frame at every point; write the JSON and the table."""
    import cv2

    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.bundle import Bundle, default_bundle_path
    from edge_runtime.postprocess import classify
    from edge_runtime.preprocess import preprocess

    loaded = Bundle.load(bundle or default_bundle_path())
    truth = truths(json.loads((CLIP.parent / "segments.json").read_text(encoding="utf-8")))
    capture, frames = cv2.VideoCapture(str(CLIP)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    backend = open_backend("onnxruntime", loaded, BackendOptions(threads=1))
    points = sorted(loaded.points_for("onnxruntime"), key=lambda p: -p.madds)
    rows = {}
    for point in points:
        runner = backend.load(point)
        answers = []
        for frame in frames:
            preprocess(frame, loaded.spec, point.size_hw, out=runner.input)
            answer = classify(runner.run(), loaded.manifest.labels, point.temperature, point.unsure_below)
            answers.append(answer.label)
        runner.close()
        rows[point.name] = shares(answers, truth, loaded.manifest.labels)
        click.echo(
            f"{point.name}: known {rows[point.name]['known_right']:.3f}, none {rows[point.name]['none_unsure']:.3f}"
        )
    save("clip_labels", {"bundle": loaded.manifest.name, "frames": len(frames), "points": rows})
    lines = ['| point | right of the frames of a known class | "unsure" of the frames of none |', "|---|---|---|"]
    lines += [f"| {n} | {r['known_right']:.1%} | {r['none_unsure']:.1%} |" for n, r in rows.items()]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
