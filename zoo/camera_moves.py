"""Clips made from pictures: a camera that stands still, pans, tilts or zooms over them, held by a hand.

Labels of what the camera does need no annotation, every picture gives clips of all of them, and what is in the picture
tells nothing: the answer is in the order of the frames alone. So this is an honest task for networks for clips where
no videos may be had; and knowing how a camera moves is of use by itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from zoo.clip_source import ClipSource
from zoo.pictures import PictureSource, Split, centre_square, resize_rgb

MOVES = ("pan left", "pan right", "still", "tilt down", "tilt up", "zoom in", "zoom out")
DIRECTIONS = {"pan left": (-1, 0), "pan right": (1, 0), "tilt down": (0, 1), "tilt up": (0, -1)}
"""Of the view over the picture: right, down."""
MOVE = "#"  # between a picture's name and what the camera does
CANVAS = 128  # side in pixels of what the camera looks at
VIEW_SHARE = (0.34, 0.6)  # of the canvas, the side of what it sees
TRAVEL = (0.15, 0.8)  # of a pan or tilt over the whole clip, in sides of the view
SLANT_DEG = 20.0  # a pan is never quite level
ZOOM = (1.15, 1.8)  # ratio of the views of the first and last frame, either way
DRIFT = 0.03  # of a camera that stands still, and of one that zooms: in sides of the view
SHAKE, ROLL_DEG = 0.006, 0.4  # of each frame: standard deviations, in sides of the view and in degrees
LIGHT = 0.1  # largest change of brightness over a clip
PASSER_BY = 0.3  # share of the clips in which something moves by itself
PASSER_SIZE = (0.2, 0.4)  # its width and height, in sides of the view
WHOLE_PX = 2 * 64  # a picture of this side or more fills the canvas alone


@dataclass(frozen=True)
class View:
    """What one frame sees: centre and side in canvas pixels, roll in degrees."""

    x: float
    y: float
    side: float
    roll_deg: float


class CameraMoves(ClipSource):
    """One clip for each held-out picture, and one of each move for each training picture, drawn anew in each epoch.

    Names are "train/dog/1.jpg#pan left". Pictures of one split never show in another's clips.

    Args:
        root: pictures as PictureSource has them; their classes do not matter.
        frames: of a clip.
        side_px: of its frames.
        seed: of the clips that evaluation sees.
    Raises:
        DataError: as PictureSource.
    """

    cropped = False  # the view is drawn already

    def __init__(
        self, root: str | Path, frames: int, side_px: int, seed: int = 0, cache_bytes: int = 1 << 30
    ) -> None:  # fmt: skip
        self.root, self.classes = Path(root), list(MOVES)
        self.frames, self.side_px, self.seed = frames, side_px, seed
        self._pictures = PictureSource(root)
        self._pools: dict[str, tuple[str, ...]] = {}
        self._cache: dict[str, np.ndarray] = {}
        self._cache_left = cache_bytes

    def splits(self, calib: int = 500, select: int = 500, seed: int = 0) -> dict[str, Split]:
        """As PictureSource.splits, of clips; held-out splits have one clip of each of their pictures."""
        found = {}
        self._pools = {}
        for part, pictures in self._pictures.splits(calib, select, seed).items():
            self._pools |= dict.fromkeys(pictures.names, pictures.names)
            if part == "train":
                pairs = [(name, label) for name in pictures.names for label in range(len(MOVES))]
            else:
                pairs = [(name, row % len(MOVES)) for row, name in enumerate(pictures.names)]
            labels = np.array([label for _, label in pairs], np.int64)
            found[part] = Split(tuple(f"{name}{MOVE}{MOVES[label]}" for name, label in pairs), labels)
        return found

    def picture(self, name: str) -> np.ndarray:
        """As ClipSource.picture: always the same clip."""
        clip = self._cache.get(name)
        if clip is None:
            clip = self.drawn(name, np.random.default_rng((self.seed, zlib.crc32(name.encode()))))
            if clip.nbytes <= self._cache_left:
                self._cache[name] = clip
                self._cache_left -= clip.nbytes
        return clip

    def drawn(self, name: str, draw: np.random.Generator) -> np.ndarray:
        """As ClipSource.drawn."""
        if not self._pools:
            self.splits()
        picture, _, move = name.rpartition(MOVE)
        pool = _Pool(self._pictures, self._pools[picture])
        return film(self._pictures.picture(picture), pool, move, self.frames, self.side_px, draw)


class _Pool(Sequence[np.ndarray]):
    """Pictures of a source by number, decoded when they are asked for."""

    def __init__(self, source: PictureSource, names: Sequence[str]) -> None:
        self._source, self._names = source, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: Any) -> np.ndarray:
        return self._source.picture(self._names[row])


def film(
    picture: np.ndarray, others: Sequence[np.ndarray], move: str, frames: int, side_px: int, draw: np.random.Generator
) -> np.ndarray:
    """A clip of a camera that makes this move over a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        others: such pictures, to stand beside it and to pass by.
        move: one of MOVES.
        frames, side_px: of the clip.
        draw: of everything else.
    Returns:
        (frames, side_px, side_px, 3) uint8 RGB.
    """
    canvas = _canvas(picture, others, draw)
    clip = np.stack([see(canvas, view, side_px) for view in draw_views(move, frames, draw)])
    if draw.random() < PASSER_BY:
        _pass_by(clip, others[int(draw.integers(len(others)))], draw)
    light = 1.0 + draw.uniform(-LIGHT, LIGHT) * np.linspace(-0.5, 0.5, frames)
    return np.clip(clip * light[:, None, None, None] + 0.5, 0, 255).astype(np.uint8)


def _canvas(picture: np.ndarray, others: Sequence[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """A picture that fills the canvas, or four beside each other: (CANVAS, CANVAS, 3) uint8."""
    picture = centre_square(picture)
    if len(picture) >= WHOLE_PX or draw.random() < 0.5:
        return resize_rgb(picture, (CANVAS, CANVAS))
    half = CANVAS // 2
    beside = [others[int(row)] for row in draw.integers(0, len(others), 3)]
    cells = [resize_rgb(centre_square(one), (half, half)) for one in (picture, *beside)]
    cells = [cells[row] for row in draw.permutation(4)]
    return np.concatenate([np.concatenate(cells[:2], 1), np.concatenate(cells[2:], 1)])


def draw_views(move: str, frames: int, draw: np.random.Generator) -> list[View]:
    """What a camera that makes this move sees, frame by frame, all of it on the canvas.

    Args:
        move: one of MOVES.
        frames: of the clip.
        draw: of everything else: place, speed, slant, shake.
    """
    side = CANVAS * draw.uniform(*VIEW_SHARE)
    zoom = draw.uniform(*ZOOM) if move.startswith("zoom") else 1.0
    sides = side * zoom ** np.linspace(-0.5, 0.5, frames)
    if move == "zoom in":
        sides = sides[::-1]
    room = CANVAS - sides.max() * (1.0 + 4.0 * SHAKE)
    if move in DIRECTIONS:
        right, down = DIRECTIONS[move]
        length = min(side * draw.uniform(*TRAVEL), 0.95 * room)
        slant = np.tan(np.radians(draw.uniform(-SLANT_DEG, SLANT_DEG)))
        travel = length * np.array([right + down * slant, down + right * slant])
    else:
        travel = side * draw.uniform(-DRIFT, DRIFT, 2)
    travel = np.clip(travel, -room, room)
    middle = CANVAS / 2 + draw.uniform(-0.5, 0.5, 2) * (room - np.abs(travel))
    ease = draw.uniform(0.0, 0.3)  # a hand starts and stops softly
    time = np.linspace(0.0, 1.0, frames)
    time = (1.0 - ease) * time + ease * time * time * (3.0 - 2.0 * time)
    centres = middle + (time[:, None] - 0.5) * travel + draw.normal(0.0, SHAKE * side, (frames, 2))
    rolls = draw.normal(0.0, ROLL_DEG, frames)
    return [
        View(x, y, s, roll) for (x, y), s, roll in zip(centres.tolist(), sides.tolist(), rolls.tolist(), strict=True)
    ]


def see(canvas: np.ndarray, view: View, side_px: int) -> np.ndarray:
    """One frame: (side_px, side_px, 3) uint8 RGB."""
    scale, roll = view.side / side_px, np.radians(view.roll_deg)
    cosine, sine, middle = scale * np.cos(roll), scale * np.sin(roll), (side_px - 1) / 2
    x, y = view.x - 0.5 - (cosine - sine) * middle, view.y - 0.5 - (sine + cosine) * middle
    turn = np.array([[cosine, -sine, x], [sine, cosine, y]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(canvas, turn, (side_px, side_px), flags=how, borderMode=cv2.BORDER_REFLECT_101)


def _pass_by(clip: np.ndarray, picture: np.ndarray, draw: np.random.Generator) -> None:
    """Something that moves by itself in front of the camera: an oval piece of a picture, in place."""
    frames, side = clip.shape[:2]
    height, width = (max(2, round(side * share)) for share in draw.uniform(*PASSER_SIZE, 2))
    piece = resize_rgb(centre_square(picture), (height, width))
    grid_y, grid_x = np.mgrid[0:height, 0:width]
    inside = (2 * (grid_y + 0.5) / height - 1) ** 2 + (2 * (grid_x + 0.5) / width - 1) ** 2 <= 1.0
    ends = draw.uniform(0.0, 1.0, (2, 2)) * (side - height, side - width)
    for frame, share in zip(clip, np.linspace(0.0, 1.0, frames), strict=True):
        top, left = np.round(ends[0] + share * (ends[1] - ends[0])).astype(int)
        frame[top : top + height, left : left + width][inside] = piece[inside]
