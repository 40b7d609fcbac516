"""The bundle that tells how a camera moves: every point on clips of the test pictures, on other photos, and on a video.

    python -m benchmarks.moves_table imagenet-photos-1000.zip

Three kinds of clips, the last two of pictures that have nothing to do with the training's:
- test: one clip of each test picture, with the engine of the bundle (from its manifest);
- photos: a clip of each photo, four times as fine as the training pictures, by the same camera;
- video: apps/demo/make_moves.py, another camera over stills of the demo clip, frame by frame through the runtime as
  the application runs it; frames whose clip reaches back over a cut are left out.
The table goes into docs/camera-moves.md.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.page_block import fill
from benchmarks.record import RESULTS, save

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.runtime import Runtime

ROOT = RESULTS.parent.parent
BUNDLE, PAGE = ROOT / "apps" / "demo" / "moves-7.bundle", ROOT / "docs" / "camera-moves.md"
HEAD = "| point | M multiply-adds | latency, ms | select | test | photos | video: right | unsure | wrong |"
SEED = 7


def photo_clips(path: Path, frames: int, side_px: int) -> tuple[list[np.ndarray], np.ndarray]:
    """One clip of each photo and what the camera does in it, (photos,) int64."""
    from zoo.camera_moves import MOVES, film
    from zoo.pictures import PictureSource

    source = PictureSource(path, labelled=False)
    photos = [source.picture(name) for name in source.names]
    labels = np.arange(len(photos)) % len(MOVES)
    clips = [
        film(photo, photos, MOVES[label], frames, side_px, np.random.default_rng((SEED, row)))
        for row, (photo, label) in enumerate(zip(photos, labels.tolist(), strict=True))
    ]
    return clips, labels


def video_answers(runtime: Runtime, video: Path) -> list[str]:
    """What the runtime says of each frame, its point pinned."""
    from edge_runtime.sources import open_source

    return [result.answer.label for result in runtime.stream(open_source(str(video)))]


def video_shares(answers: Sequence[str], truth: dict[str, Any], clip_s: float) -> dict[str, Any]:
    """Shares, 0-1, of the frames whose whole clip lies within one move.

    Args:
        answers: one for each frame.
        truth: what make_moves writes beside the video.
        clip_s: duration of a clip.
    """
    skipped = round(clip_s * truth["fps"])
    counts: Counter[str] = Counter()
    by_move: dict[str, list[bool]] = {}
    for part in truth["moves"]:
        for answer in answers[part["first_frame"] + skipped : part["last_frame"] + 1]:
            right = answer == part["move"]
            counts["right" if right else "unsure" if answer == "unsure" else "wrong"] += 1
            by_move.setdefault(part["move"], []).append(right)
    total = sum(counts.values())
    shares = {kind: counts[kind] / total for kind in ("right", "unsure", "wrong")}
    return {**shares, "frames": total, "by_move": {move: sum(found) / len(found) for move, found in by_move.items()}}


def photo_accuracy(bundle: Bundle, clips: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Point -> accuracy, 0-1, with the bundle's engine."""
    from converters.verification import accuracy_of, engine_logits
    from edge_runtime.backends import BackendOptions, open_backend

    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    return {
        point.name: accuracy_of(engine_logits(backend, bundle, point, list(clips)), labels)
        for point in bundle.points_for("onnxruntime")
    }


def measure(bundle: Bundle, photos: Path) -> list[dict[str, Any]]:
    """A row for each point, the dearest first."""
    from apps.demo.make_moves import HERE, make_moves
    from converters.point_latency import measure_latency_ms
    from edge_runtime.runtime import Runtime

    facts = bundle.manifest
    assert facts.clip is not None
    points = sorted(bundle.points_for("onnxruntime"), key=lambda p: -p.madds)
    largest = max(points, key=lambda p: (p.frames or 0, p.size_hw))
    clips, labels = photo_clips(photos, largest.frames or 0, largest.size_hw[0])
    latency_ms = measure_latency_ms(bundle, threads=1)
    accuracy, rows = photo_accuracy(bundle, clips, labels), []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "moves.mp4"
        make_moves(HERE / "demo.mp4", HERE / "segments.json", video)
        truth = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
        with Runtime.load(bundle, backend="onnxruntime", threads=1, query_table="none", resident="all") as runtime:
            for point in points:
                runtime.pin(point.name)
                shares = video_shares(video_answers(runtime, video), truth, facts.clip.duration_ms / 1000.0)
                rows.append({
                    "point": point.name, "madds": point.madds, "latency_ms": latency_ms[point.name], **point.accuracy,
                    "photos": accuracy[point.name], "video": shares,
                })  # fmt: skip
                click.echo(line(rows[-1]))
    return rows


def line(row: dict[str, Any]) -> str:
    """One point of the table."""
    cells = [row["point"], f"{row['madds'] / 1e6:.1f}", f"{row['latency_ms']:.2f}"]
    cells += [f"{row[key]:.1%}" for key in ("select", "test", "photos")]
    cells += [f"{row['video'][key]:.1%}" for key in ("right", "unsure", "wrong")]
    return f"| {' | '.join(cells)} |"


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), default=BUNDLE, show_default="the shipped one")
def main(photos: Path, bundle: Path) -> None:
    """PHOTOS: pictures in any folder, of 128 pixels or more."""
    from edge_runtime.bundle import Bundle

    loaded = Bundle.load(bundle)
    rows = measure(loaded, photos)
    save("moves_table", {"bundle": loaded.manifest.name, "points": rows})
    fill(PAGE, "moves", [HEAD, "|" + "---|" * 9, *map(line, rows)])


if __name__ == "__main__":
    main()
