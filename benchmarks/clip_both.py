"""What two bundles say of the demo clip, side by side: docs/pictures/both-bundles.jpg, which the README shows.

    make imagenet-bundle
    python -m benchmarks.clip_both apps/demo/everyday-20.bundle out/imagenet-lite.bundle

The middle frame of each photograph of the clip, answered by each bundle's most accurate point on ONNX Runtime; times
are medians of runs in turn, one thread.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import RESULTS, save

ROOT = RESULTS.parent.parent
CLIP, PICTURE = ROOT / "apps" / "demo" / "demo.mp4", ROOT / "docs" / "pictures" / "both-bundles.jpg"
COLUMNS, TILE_W, TILE_H, CAPTION_H, HEAD_H, GAP = 3, 400, 300, 76, 64, 12
INK, PAPER, FAINT = (240, 236, 232), (34, 28, 24), (170, 160, 150)  # BGR
COLOURS = ((120, 200, 255), (190, 220, 130))  # of the two bundles, BGR


@dataclass
class Contestant:
    """A bundle's most accurate point, ready to run."""

    title: str
    bundle: Any
    point: Any
    runner: Any
    times_ms: list[float] = field(default_factory=list)

    def answer(self, frame: np.ndarray) -> tuple[str, float]:
        """Label and confidence of a frame, (H, W, 3) uint8 RGB."""
        from edge_runtime.postprocess import classify
        from edge_runtime.preprocess import preprocess

        point, bundle = self.point, self.bundle
        preprocess(frame, bundle.spec, point.size_hw, out=self.runner.input)
        started_s = time.perf_counter()
        logits = self.runner.run()
        self.times_ms.append(1000.0 * (time.perf_counter() - started_s))
        found = classify(logits, bundle.manifest.labels, point.temperature, point.unsure_below)
        return found.label, found.confidence


def contestant(path: Path) -> Contestant:
    """Of a bundle: the point of the highest accuracy on select."""
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.bundle import Bundle

    bundle = Bundle.load(path)
    point = max(bundle.points_for("onnxruntime"), key=lambda p: (p.accuracy["select"], -p.madds))
    title = f"{len(bundle.manifest.labels):,} classes, {point.name}"
    return Contestant(title, bundle, point, open_backend("onnxruntime", bundle, BackendOptions(1)).load(point))


def middle_frames() -> list[np.ndarray]:
    """One frame of each segment of the clip, RGB."""
    import cv2

    segments = json.loads((CLIP.parent / "segments.json").read_text(encoding="utf-8"))["segments"]
    capture, frames = cv2.VideoCapture(str(CLIP)), []
    for segment in segments:
        capture.set(cv2.CAP_PROP_POS_FRAMES, (segment["first_frame"] + segment["last_frame"]) // 2)
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return frames


def sheet(frames: list[np.ndarray], heads: list[str], answers: list[list[tuple[str, float]]]) -> np.ndarray:
    """The picture, BGR.

    Args:
        frames: RGB.
        heads: one line for each bundle.
        answers: for each frame, of each bundle.
    """
    import cv2

    rows = -(-len(frames) // COLUMNS)
    height = HEAD_H + rows * (TILE_H + CAPTION_H + GAP) + GAP
    width = COLUMNS * (TILE_W + GAP) + GAP
    canvas = np.full((height, width, 3), PAPER, np.uint8)

    def text(words: str, left: int, bottom: int, colour: tuple[int, int, int], size: float = 0.62) -> int:
        cv2.putText(canvas, words, (left, bottom), cv2.FONT_HERSHEY_DUPLEX, size, colour, 1, cv2.LINE_AA)
        return left + cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, size, 1)[0][0]

    for line, (head, colour) in enumerate(zip(heads, COLOURS, strict=True)):
        text(head, GAP, 26 + 28 * line, colour)
    for index, (frame, found) in enumerate(zip(frames, answers, strict=True)):
        left = GAP + index % COLUMNS * (TILE_W + GAP)
        top = HEAD_H + index // COLUMNS * (TILE_H + CAPTION_H + GAP) + GAP
        small = cv2.resize(frame, (TILE_W, TILE_H), interpolation=cv2.INTER_AREA)
        canvas[top : top + TILE_H, left : left + TILE_W] = small[..., ::-1]
        for line, ((label, confidence), colour) in enumerate(zip(found, COLOURS, strict=True)):
            bottom = top + TILE_H + 28 + 30 * line
            cv2.circle(canvas, (left + 8, bottom - 7), 6, colour, -1, cv2.LINE_AA)
            end = text(label.replace("_", " "), left + 24, bottom, FAINT if label == "unsure" else INK)
            text(f"{confidence:.0%}", end + 12, bottom, FAINT)
    return canvas


@click.command()
@click.argument("bundles", nargs=2, type=click.Path(path_type=Path, exists=True))
def main(bundles: tuple[Path, Path]) -> None:
    """Answer, draw, and write benchmarks/results/clip_both.json."""
    import cv2

    frames, both = middle_frames(), [contestant(path) for path in bundles]
    answers = [[one.answer(frame) for one in both] for frame in frames]
    for one in both:
        one.times_ms.clear()  # the first runs were the engines' warm-up
    for _ in range(10):
        for frame in frames:
            for one in both:
                one.answer(frame)
    heads = [f"{one.title}: {statistics.median(one.times_ms):.1f} ms" for one in both]
    cv2.imwrite(str(PICTURE), sheet(frames, heads, answers), [cv2.IMWRITE_JPEG_QUALITY, 82])
    for found in answers:
        print("   ".join(f"{label} {confidence:.2f}" for label, confidence in found))
    save("clip_both", {"bundles": [path.name for path in bundles], "heads": heads, "answers": answers})


if __name__ == "__main__":
    main()
