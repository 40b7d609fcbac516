"""Saving the picture as a video. A disk that is full or a file that cannot be written never stops the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import SinkError
from edge_runtime.opencv_capture import quiet_opencv

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""By suffix; these are in every build of OpenCV with FFmpeg."""
RESERVE_BYTES = 16 * 1024 * 1024
"""Saving stops when less is free, so that the file can still be finished and the device goes on working."""
CHECK_EVERY_FRAMES = 15
STALLED_FRAMES = 300
"""OpenCV does not report failed writes; a file that has not grown over so many frames is not being written."""
LONGEST_FILL_S = 5.0
"""A gap in the source, such as a pause of a camera, is filled with the last picture for at most so long."""


class VideoSaver:
    """Writes pictures at an even rate: a late one repeats the picture before, an early one is left out."""

    def __init__(
        self,
        path: str | Path,
        fps: float,
        tell: Callable[[str], None],
        *,
        make_writer: Callable[..., Any] = cv2.VideoWriter,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Prepare; the file is opened with the first picture, whose size it gets.

        Args:
            path: suffix .mp4, .m4v, .mov, .mkv or .avi; missing folders are made.
            fps: frames per second of the video.
            tell: gets one sentence, once, when saving fails.
            make_writer: called like `cv2.VideoWriter`.
            free_bytes: room left on the disk of a folder.
        Raises:
            SinkError: the suffix is none of the known ones.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in CODECS:
            raise SinkError(f"{path}: cannot save a video as {self.path.suffix!r}; expected one of {', '.join(CODECS)}")
        self._fps, self._tell = fps, tell
        self._make_writer, self._free_bytes = make_writer, free_bytes
        self._writer: Any = None
        self._size_hw: tuple[int, int] = (0, 0)
        self._last: npt.NDArray[np.uint8] | None = None
        self._first_s = 0.0
        self._size_bytes, self._grown_at = 0, 0
        self.frames = 0
        """Pictures written, repeated ones included."""
        self.failed = False

    def write(self, picture: npt.NDArray[np.uint8], at_s: float | None = None) -> None:
        """Add a picture; never raises.

        Args:
            picture: (H, W, 3) uint8 RGB; resized when its size is not the first one's.
            at_s: when it belongs, on any even clock; None: right after the one before.
        """
        if self.failed:
            return
        try:
            self._write(picture, at_s)
        except (OSError, cv2.error, SinkError) as error:
            self._fail(getattr(error, "strerror", None) or getattr(error, "err", None) or str(error))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            if not self.failed and not _size_bytes(self.path):
                self._fail("the file is empty after the last frame")

    def __enter__(self) -> VideoSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, picture: npt.NDArray[np.uint8], at_s: float | None) -> None:
        if self._writer is None:
            self._open(picture.shape[0], picture.shape[1])
            self._first_s = at_s or 0.0
        due = self.frames if at_s is None else round((at_s - self._first_s) * self._fps)
        if self.frames and due < self.frames:
            return
        if self._last is not None:
            for _ in range(min(due - self.frames, int(LONGEST_FILL_S * self._fps))):
                self._add(self._last)
        if due > self.frames:  # a longer gap is cut: what follows moves up
            self._first_s += (due - self.frames) / self._fps
        if picture.shape[:2] != self._size_hw:
            picture = np.asarray(cv2.resize(picture, self._size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        self._last = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
        self._add(self._last)

    def _open(self, height: int, width: int) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._check_room()
        with self.path.open("ab"):  # OpenCV does not say why it cannot
            pass
        self._size_hw = (height, width)
        code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        with quiet_opencv():
            self._writer = self._make_writer(str(self.path), code, self._fps, (width, height))
        if not self._writer.isOpened():
            raise SinkError("OpenCV cannot open it for writing")

    def _add(self, picture: npt.NDArray[np.uint8]) -> None:
        self._writer.write(picture)
        self.frames += 1
        if self.frames % CHECK_EVERY_FRAMES == 0:
            self._check_room()
            size_bytes = _size_bytes(self.path)
            if size_bytes > self._size_bytes:
                self._size_bytes, self._grown_at = size_bytes, self.frames
            elif self.frames - self._grown_at >= STALLED_FRAMES:
                raise SinkError(f"the file has not grown for {STALLED_FRAMES} frames")

    def _check_room(self) -> None:
        if self._free_bytes(self.path.parent) < RESERVE_BYTES:
            raise SinkError(f"less than {RESERVE_BYTES // 2**20} MB are free on its disk; make room")

    def _fail(self, why: str) -> None:
        self.failed = True
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._tell(f"saving to {self.path} stopped after {self.frames} frames: {why}; the run goes on without it")


def _size_bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
