"""Do the networks for clips learn, and do they use time? In which of eight directions does a picture move?

    python -m benchmarks.motion_probe imagenet20-64.zip

A window of 32 pixels moves over a picture of 64 at one to three pixels a frame, along a side or a diagonal, forwards or
backwards. One frame tells nothing of it: backwards shows the same frames as forwards. Small versions of all systems
learn on training pictures; the table of docs/zoo-video-and-dense.md has the accuracy on test pictures, and on the same
clips with their frames in random order. Two of them are shown at two sizes of the same clips, because the smaller one
leaves maps of a pixel or two in their last stages.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.record import RESULTS, save
from zoo.calibrate import point_statistics
from zoo.ean import EAN
from zoo.mvit import MViT
from zoo.pictures import PictureSource
from zoo.s3d import S3D
from zoo.slim_layers import SlimBatchNorm
from zoo.slim_net import SlimNet
from zoo.slowfast import Slow, SlowFast
from zoo.stm import STM
from zoo.x3d import X3D

PAGE = RESULTS.parent.parent / "docs" / "zoo-video-and-dense.md"
BEGIN, END = "<!-- motion:begin -->", "<!-- motion:end -->"
DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
SIDE, FASTEST = 32, 3
MEAN, SPREAD = 120.0, 60.0
BATCH, RATE, NORM_CLIPS = 32, 1e-3, 512
SHORT = (1, 1, 1, 1)


@dataclass(frozen=True)
class Small:
    """A small version of a system."""

    title: str
    options: str
    frames: int
    make: Callable[[], SlimNet]
    zoom: int = 1
    """The window is enlarged so many times."""


CLASSES = len(DIRECTIONS)
SLOW = Small("Slow", "width_mult 0.25, depths 1, 1, 1, 1", 8, lambda: Slow(CLASSES, width_mult=0.25, depths=SHORT))
SEPARABLE = Small("S3D", "width_mult 0.25", 8, lambda: S3D(CLASSES, width_mult=0.25))
NETWORKS = (
    *(dataclasses.replace(SLOW, zoom=zoom) for zoom in (1, 2)),
    Small(
        "SlowFast", "alpha 4, width_mult 0.25, depths 1, 1, 1, 1", 8,
        lambda: SlowFast(CLASSES, alpha=4, width_mult=0.25, depths=SHORT),
    ),
    Small("X3D", "width_mult 1, depths 1, 2, 2, 1", 8, lambda: X3D(CLASSES, depths=(1, 2, 2, 1))),
    *(dataclasses.replace(SEPARABLE, zoom=zoom) for zoom in (1, 2)),
    Small(
        "STM", "width_mult 0.5, depths 1, 1, 1, 1", 8,
        lambda: STM(CLASSES, frames=8, width_mult=0.5, depths=SHORT),
    ),
    Small(
        "EAN", "segments 2, base 16, depths 1, 1, 1, 1", 10, lambda: EAN(CLASSES, segments=2, base=16, depths=SHORT)
    ),
    Small(
        "MViT", "channels 32, depths 1, 2, 2, 1, key_stride 4", 8,
        lambda: MViT(CLASSES, frames=8, resolution=SIDE, depths=(1, 2, 2, 1), channels=32, key_stride=4, drop_path=0.0),
    ),
)  # fmt: skip


def draw_clips(
    pictures: np.ndarray, frames: int, zoom: int, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One clip of each picture.

    Args:
        pictures: (N, S, S, 3) uint8, S at least SIDE + FASTEST * (frames - 1).
        zoom: 1 or more; each pixel becomes so many in both directions.
    Returns:
        clips (N, 3, frames, SIDE * zoom, SIDE * zoom) float32, normalised, and the directions (N,) int64.
    """
    labels = draw.integers(0, CLASSES, len(pictures))
    clips = np.empty((len(pictures), frames, SIDE, SIDE, 3), np.uint8)
    for clip, picture, label in zip(clips, pictures, labels, strict=True):
        step, room = int(draw.integers(1, FASTEST + 1)), len(picture) - SIDE
        corners = [_way(room, step * sign, frames, draw) for sign in DIRECTIONS[label]]
        for frame, (top, left) in enumerate(zip(*corners, strict=True)):
            clip[frame] = picture[top : top + SIDE, left : left + SIDE]
    normalised = (torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() - MEAN) / SPREAD
    enlarged = normalised.repeat_interleave(zoom, 3).repeat_interleave(zoom, 4)
    return enlarged, torch.from_numpy(labels)


def _way(room: int, step: int, frames: int, draw: np.random.Generator) -> np.ndarray:
    """Corners along one axis; where a way lies does not tell whether it is gone forwards or backwards."""
    travel = abs(step) * (frames - 1)
    start = int(draw.integers(0, room - travel + 1))
    return start + np.arange(frames) * step + (travel if step < 0 else 0)


def train(model: SlimNet, pictures: np.ndarray, frames: int, zoom: int, steps: int, seed: int) -> None:
    """Adam with a cosine; pictures are drawn anew for each step, mirrored half of the time."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        some = pictures[draw.integers(0, len(pictures), BATCH)]
        clips, labels = draw_clips(some if draw.random() < 0.5 else some[:, :, ::-1], frames, zoom, draw)
        optimizer.zero_grad()
        F.cross_entropy(model(clips, 1.0), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if any(isinstance(module, SlimBatchNorm) for module in model.modules()):
        clips, _ = draw_clips(pictures[:NORM_CLIPS], frames, zoom, draw)
        key = model.point_key(1.0, tuple(clips.shape[2:]))
        model.norm_bank.entries = {key: point_statistics(model, 1.0, clips.split(BATCH))}
    model.eval()


@torch.no_grad()
def accuracy(model: SlimNet, clips: Tensor, labels: Tensor) -> float:
    """Share of right answers, 0-1."""
    answers = torch.cat([model(part, 1.0).argmax(1) for part in clips.split(100)])
    return float((answers == labels).double().mean())


def shuffled(clips: Tensor, seed: int) -> Tensor:
    """The frames of each clip in an order of its own."""
    draw = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(clips.shape[2], generator=draw) for _ in clips])
    return torch.stack([clip[:, order] for clip, order in zip(clips, orders, strict=True)])


def measure(
    small: Small, train_pictures: np.ndarray, test_pictures: np.ndarray, steps: int, seed: int
) -> dict[str, Any]:
    """Train one network and test it."""
    torch.manual_seed(seed)
    model, started_s = small.make(), time.monotonic()
    train(model, train_pictures, small.frames, small.zoom, steps, seed)
    took_s = time.monotonic() - started_s
    clips, labels = draw_clips(test_pictures, small.frames, small.zoom, np.random.default_rng((seed, 1)))
    row = {key: value for key, value in dataclasses.asdict(small).items() if key != "make"}
    parameters = sum(p.numel() for p in model.parameters())
    found = {"test": accuracy(model, clips, labels), "shuffled": accuracy(model, shuffled(clips, seed), labels)}
    return row | found | {"parameters": parameters, "steps": steps, "train_s": round(took_s), "seed": seed}


def lines(rows: list[dict[str, Any]]) -> str:
    """The table."""
    found = [
        "| system | small version | clip | parameters, M | test | frames in random order | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        side = SIDE * row["zoom"]
        cells = [
            row["title"], row["options"], f"{row['frames']}x{side}x{side}", f"{row['parameters'] / 1e6:.2f}",
            f"{100 * row['test']:.1f}%", f"{100 * row['shuffled']:.1f}%",
            f"{row['steps']} steps, {row['train_s'] / 60:.1f} min",
        ]  # fmt: skip
        found.append(f"| {' | '.join(cells)} |")
    return "\n".join(found)


@click.command()
@click.argument("data", type=click.Path(exists=True))
@click.option("--steps", type=click.IntRange(1), default=400, show_default=True, help="Of 32 clips.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(data: str, steps: int, seed: int) -> None:
    """Train and test, print the table, and fill the page."""
    source = PictureSource(data)
    splits = source.splits()
    train_pictures, test_pictures = (
        np.stack([source.picture(name) for name in splits[part].names]) for part in ("train", "test")
    )
    rows = []
    for small in NETWORKS:
        rows.append(measure(small, train_pictures, test_pictures, steps, seed))
        click.echo(lines(rows).splitlines()[-1])
    save("motion_probe", {"rows": rows})
    page = Path(PAGE).read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{lines(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
