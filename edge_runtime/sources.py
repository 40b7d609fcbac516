"""Where frames come from: one text names a webcam, a file, pictures, a stream, the demo clip or a test pattern."""

from __future__ import annotations

import glob
import re
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edge_runtime.errors import SourceError
from edge_runtime.file_source import IMAGE_SUFFIXES, PictureSource, VideoFileSource
from edge_runtime.frame import Frame
from edge_runtime.opencv_capture import check_url, masked, open_camera, open_url
from edge_runtime.pattern_source import PatternSource
from edge_runtime.threaded_source import ThreadedSource

KINDS = (
    "a camera (0, /dev/video0), a video or picture file, a folder or glob of pictures, "
    "rtsp:// or http(s)://, demo, pattern"
)
DEMO_PATTERN_FRAMES = 480
"""16 s at 30 frames per second, for a checkout without the clip."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")


class Source(Protocol):
    """Frames, in order. Live sources keep the newest frame and count what they drop; the others keep every frame."""

    @property
    def name(self) -> str:
        """For messages and titles; never holds a password."""
        ...

    @property
    def live(self) -> bool:
        """Only the newest frame matters."""
        ...

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the newest frame; the first one's after opening. A stream may change it."""
        ...

    @property
    def fps(self) -> float | None:
        """Stated frame rate; None when unknown."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that were replaced by newer ones before anyone took them."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Frames until the ordinary end; one pass.

        Raises:
            StreamBroken: the source failed after it had worked.
        """
        ...

    def close(self) -> None:
        """Release the device or file; `frames` then ends. Safe to call twice."""
        ...

    def __enter__(self) -> Source: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(
    text: str, *, clock: Callable[[], float] = time.monotonic, timeout_s: float = 10.0, loop: bool = False
) -> Source:
    """Open what `text` names.

    Args:
        text: webcam index ("0"), /dev/videoN, video file, picture file, folder or glob of pictures, rtsp:// or http(s)://
            address, "demo" (the clip that ships with the checkout), "pattern" (a moving picture without end) or
            "pattern:N" (N frames of it).
        clock: stamps each frame's `captured_s`, seconds.
        timeout_s: longest wait for a camera or network, at opening and for each frame.
        loop: start files again at their end.
    Returns:
        An open source that has already shown that it gives frames; the caller closes it.
    Raises:
        SourceError: it cannot be opened; one sentence says why.
    """
    if text.isdecimal():
        opener = partial(open_camera, int(text), timeout_s)
        return ThreadedSource(f"camera {int(text)}", opener, clock=clock, timeout_s=timeout_s)
    if re.fullmatch(r"/dev/video\d+", text):
        return ThreadedSource(text, partial(open_camera, text, timeout_s), clock=clock, timeout_s=timeout_s)
    if _URL.match(text):
        check_url(text)
        return ThreadedSource(masked(text), partial(open_url, text, timeout_s), clock=clock, timeout_s=timeout_s)
    if text == "demo":
        clip = default_demo_clip()
        if clip is None:
            return PatternSource("demo", frame_count=None if loop else DEMO_PATTERN_FRAMES, clock=clock)
        return _open_path(str(clip), clock, loop)
    if text == "pattern" or text.startswith("pattern:"):
        return PatternSource(frame_count=_pattern_frames(text), clock=clock)
    return _open_path(text, clock, loop)


def default_demo_clip() -> Path | None:
    """The clip that ships with the checkout; None where there is none, as in an installed wheel."""
    clip = Path(__file__).resolve().parent.parent / "apps" / "demo" / "demo.mp4"
    return clip if clip.is_file() else None


def _pattern_frames(text: str) -> int | None:
    if text == "pattern":
        return None
    count = text.removeprefix("pattern:")
    if not count.isdecimal() or int(count) == 0:
        raise SourceError(f"{text!r}: expected pattern:N with a number of frames above 0, such as pattern:300")
    return int(count)


def _open_path(text: str, clock: Callable[[], float], loop: bool) -> Source:
    """A file, a folder or a glob."""
    path = Path(text).expanduser()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the text
        if glob.has_magic(text):
            return _open_glob(text, clock, loop)
        if isinstance(error, FileNotFoundError):
            raise SourceError(f"{text!r}: no such file or folder; a source is {KINDS}") from error
        raise SourceError(f"{text!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        pictures = sorted((entry for entry in path.iterdir() if _is_picture(entry)), key=_natural)
        if not pictures:
            raise SourceError(
                f"{text}: no pictures in this folder; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
            )
        return PictureSource(path.name or str(path), pictures, clock=clock, loop=loop)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{text}: neither a file nor a folder; a source is {KINDS}")
    _check_content(path)
    if _is_picture(path):
        return PictureSource(path.name, [path], clock=clock, loop=loop)
    return VideoFileSource(path, clock=clock, loop=loop)


def _open_glob(text: str, clock: Callable[[], float], loop: bool) -> Source:
    pictures = sorted(
        (entry for entry in map(Path, glob.glob(text, recursive=True)) if _is_picture(entry)), key=_natural
    )
    if not pictures:
        raise SourceError(f"{text}: no picture matches; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return PictureSource(text, pictures, clock=clock, loop=loop)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which picture 2 comes before picture 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _check_content(path: Path) -> None:
    """Refuse what cannot be a video before FFmpeg sees it: it would render a text file as a film of letters, and follow
    the addresses in a playlist."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise SourceError(f"{path}: the file is empty")
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    if b"\0" not in head and printable == len(head) and not _is_picture(path):
        raise SourceError(f"{path}: not a video or picture: it is text; a source is {KINDS}")
