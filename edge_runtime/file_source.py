"""Sources on a disk: a video file and pictures. Every frame is kept, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import FrameError, SourceError, StreamBroken
from edge_runtime.frame import Frame
from edge_runtime.opencv_capture import Capture, open_file, quiet_opencv, to_rgb

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class VideoFileSource:
    """The frames of a video file. How many there are is known only at the end: headers lie."""

    live = False
    dropped = 0

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, loop: bool = False) -> None:
        """Open the file and decode its first frame.

        Args:
            path: an existing file.
            clock: stamps `captured_s`.
            loop: start again at the end, with frame numbers and media time that go on.
        Raises:
            SourceError: it is not a video.
        """
        self.name = path.name
        self._path, self._clock, self._loop = path, clock, loop
        opened = open_file(path)
        self.fps = opened.fps
        self._capture: Capture | None = opened.capture
        self._first: Any = _read(opened.capture)
        if self._first is None:
            opened.capture.release()
            raise SourceError(f"{path}: no frame can be decoded; the file is damaged or its codec is unknown here")
        self.size_hw: tuple[int, int] = self._first.shape[:2]

    def frames(self) -> Iterator[Frame]:
        """Frames in order, until the end of the file or `close`."""
        index, offset_s, media_s = 0, 0.0, 0.0
        picture, self._first = self._first, None
        while self._capture is not None and picture is not None:
            media_s = self._media_s(self._capture, offset_s, media_s, index)
            yield Frame(to_rgb(picture), index, self._clock(), media_s)
            index += 1
            if self._capture is None:  # closed while the consumer held the frame
                return
            picture = _read(self._capture)
            if picture is None and self._loop:
                self._capture.release()
                self._capture = open_file(self._path).capture
                offset_s = media_s + self._period_s()
                picture = _read(self._capture)

    def close(self) -> None:
        """Release the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> VideoFileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _period_s(self) -> float:
        return 1.0 / self.fps if self.fps else 1.0 / 30.0

    def _media_s(self, capture: Capture, offset_s: float, previous_s: float, index: int) -> float:
        """Position of the frame just read; some files give none for frames that are stored out of order."""
        import cv2

        position_s = offset_s + float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        if index == 0 or position_s > previous_s:
            return position_s
        return previous_s + self._period_s()


class PictureSource:
    """Still pictures, each a frame; they may differ in size."""

    live = False
    dropped = 0
    fps: float | None = None

    def __init__(
        self, name: str, paths: Sequence[Path], *, clock: Callable[[], float] = time.monotonic, loop: bool = False
    ) -> None:
        """Open the first picture; the others are opened one by one.

        Args:
            name: for messages.
            paths: existing files, at least one.
            clock: stamps `captured_s`.
            loop: start again after the last.
        Raises:
            SourceError: the first cannot be decoded.
        """
        self.name = name
        self._paths, self._clock, self._loop = tuple(paths), clock, loop
        self._closed = False
        pixels = read_picture(self._paths[0])
        self.size_hw: tuple[int, int] = (pixels.shape[0], pixels.shape[1])

    def frames(self) -> Iterator[Frame]:
        """One frame for each picture.

        Raises:
            StreamBroken: a later picture cannot be decoded; the message names it.
        """
        index = 0
        while not self._closed:
            for path in self._paths:
                if self._closed:
                    return
                try:
                    pixels = read_picture(path)
                except SourceError as error:
                    raise StreamBroken(f"{self.name}: after {index} pictures: {error}") from error
                yield Frame(pixels, index, self._clock())
                index += 1
            if not self._loop:
                return

    def close(self) -> None:
        """Stop after the current picture."""
        self._closed = True

    def __enter__(self) -> PictureSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture, turned upright by its EXIF note.

    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        SourceError: it cannot be read or decoded.
    """
    import cv2

    try:
        data = np.fromfile(path, np.uint8)  # cv2.imread does not open every path on every system
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        with quiet_opencv():
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise SourceError(f"{path}: cannot be decoded as a picture ({error.err or error})") from error
    if picture is None:
        raise SourceError(f"{path}: not a picture that can be decoded; replace or remove it")
    try:
        return Frame(to_rgb(picture)).pixels
    except FrameError as error:
        raise SourceError(f"{path}: {error}") from error


def _read(capture: Capture) -> Any:
    """The next picture as OpenCV gives it, or None at the end."""
    good, picture = capture.retrieve() if capture.grab() else (False, None)
    return picture if good else None
