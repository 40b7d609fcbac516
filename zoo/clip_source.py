"""Labelled clips in the place of pictures: from files of video, or made from pictures (zoo.camera_moves)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np

from zoo.pictures import DataError, PictureSource, Split, centre_square

CLIP_KINDS = ("videos", "camera-moves")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")
KEPT_SHARE = 1.25  # frames are kept this much larger than they are needed, so that crops of them are not blown up


class ClipSource(ABC):
    """What training and evaluation need of a set of clips; named as in PictureSource, whose place it takes."""

    root: Path
    classes: list[str]
    cropped: bool
    """Training may crop the drawn clips."""

    @abstractmethod
    def splits(self, calib: int = 500, select: int = 500, seed: int = 0) -> dict[str, Split]:
        """As PictureSource.splits."""

    @abstractmethod
    def picture(self, name: str) -> np.ndarray:
        """The clip that evaluation sees: (T, H, W, 3) uint8 RGB; do not write into it."""

    @abstractmethod
    def drawn(self, name: str, draw: np.random.Generator) -> np.ndarray:
        """One of the clips that training may see under this name: (T, H, W, 3) uint8 RGB."""


class VideoSource(PictureSource, ClipSource):
    """Files of video in class folders (`train/<class>/*.mp4`, `test/<class>/*.mp4`, or `<class>/*.mp4`).

    Evaluation sees the middle of each file, training a part that is drawn. Of a file that is shorter than a clip the
    last frame is repeated. Decoded files are kept in memory, reduced, while they fit.

    Args:
        root: a folder.
        frames: of a clip.
        clip_ms: its duration in milliseconds.
        side_px: the largest side that a network reads.
    Raises:
        DataError: there is no such folder, or no video in it.
    """

    suffixes = VIDEO_SUFFIXES
    contents, layout = "videos", "train/<class>/*.mp4 or <class>/*.mp4"
    cropped = True

    def __init__(
        self, root: str | Path, frames: int, clip_ms: int, side_px: int, cache_bytes: int = 2 << 30
    ) -> None:  # fmt: skip
        if not Path(root).is_dir():
            raise DataError(f"{root}: expected a folder of videos (an archive must be unpacked); check the path")
        super().__init__(root, cache_bytes)
        self.frames, self.clip_ms, self._kept_px = frames, clip_ms, round(side_px * KEPT_SHARE)
        self._period_s: dict[str, float] = {}  # between two frames of each file that was decoded

    def picture(self, name: str) -> np.ndarray:
        """As ClipSource.picture, from the middle of the file."""
        return self._clip(name, 0.5)

    def drawn(self, name: str, draw: np.random.Generator) -> np.ndarray:
        """As ClipSource.drawn, from a part of the file that is drawn."""
        return self._clip(name, float(draw.random()))

    def _clip(self, name: str, place: float) -> np.ndarray:
        """The clip that begins at this share, 0-1, of what the file has more than a clip."""
        video = self._video(name)
        period_s, duration_s = self._period_s[name], self.clip_ms / 1000.0
        start_s = max(0.0, len(video) * period_s - duration_s) * place
        times_s = start_s + np.arange(self.frames) * (duration_s / self.frames)
        rows = np.minimum((times_s / period_s + 1e-6).astype(int), len(video) - 1)
        return video[rows]

    def _video(self, name: str) -> np.ndarray:
        """All frames of a file, reduced: (N, h, w, 3)."""
        found = self._cache.get(name)
        if found is None:
            found = self._decode(name)
            if found.nbytes <= self._cache_left:
                self._cache[name] = found
                self._cache_left -= found.nbytes
        return found

    def _decode(self, name: str) -> np.ndarray:
        capture = cv2.VideoCapture(str(self.root / name), cv2.CAP_FFMPEG)
        try:
            fps, found = capture.get(cv2.CAP_PROP_FPS), []
            while True:
                read, bgr = capture.read()
                if not read:
                    break
                found.append(cv2.cvtColor(self._reduced(bgr), cv2.COLOR_BGR2RGB))
        finally:
            capture.release()
        if not found or not fps > 0.0:
            raise DataError(f"{self.root}: {name} is not a readable video; remove or replace it")
        self._period_s[name] = 1.0 / fps
        return np.stack(found)

    def _reduced(self, frame: np.ndarray) -> np.ndarray:
        """The centre square, no larger than what is kept."""
        square = centre_square(frame)
        if len(square) <= self._kept_px:
            return square
        return cv2.resize(square, (self._kept_px, self._kept_px), interpolation=cv2.INTER_AREA)
