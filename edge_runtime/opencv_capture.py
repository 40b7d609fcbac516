"""OpenCV's video capture behind one small interface: bounded waits, no noise on stderr, one sentence on failure."""

from __future__ import annotations

import math
import os
import re
import socket
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import SourceError

URL_SCHEMES = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""What may be read from a network, with the port that is meant when the address names none."""
MAX_FPS = 1000.0  # RTSP streams without a known rate report their 90,000 Hz clock as the rate
_quiet_lock = threading.Lock()
_levels_before: list[int] = []
_SECRET = re.compile(r"(?i)\b(user|username|password|passwd|pwd|pass|token|key)=[^/&?#]*")


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that the sources use; tests pass their own."""

    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, property_id: int, /) -> float: ...
    def release(self) -> None: ...


@dataclass(frozen=True)
class OpenedCapture:
    """A capture that works, with what its header claims. Claims are hints: nothing depends on them being true."""

    capture: Capture
    live: bool
    """Only the newest frame matters; False for a recording, of which every frame does."""
    fps: float | None = None
    duration_s: float | None = None
    """Stated length; None for what has no end, such as a camera."""


def open_file(path: Path) -> OpenedCapture:
    """Open a video file that exists.

    Raises:
        SourceError: it is not a video that OpenCV can decode.
    """
    import cv2

    with quiet_opencv():  # other readers are asked only where FFmpeg is not built in: they print, and guess
        ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if ffmpeg else cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(
            f"{path}: not a video or picture that can be decoded; expected MP4, AVI, MKV, MOV, JPEG or PNG"
        )
    return OpenedCapture(capture, live=False, fps=stated_fps(capture), duration_s=stated_duration_s(capture))


def open_camera(device: int | str, timeout_s: float) -> OpenedCapture:
    """Open a webcam by index or by /dev/videoN.

    Raises:
        SourceError: there is none, or another program holds it.
    """
    import cv2

    linux = sys.platform.startswith("linux")
    path = f"/dev/video{device}" if isinstance(device, int) else device
    if linux and not os.path.exists(path):
        found = ", ".join(sorted(str(node) for node in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"no camera at {path} (cameras found: {found}); connect one, or name another with --source")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(1, math.ceil(timeout_s))))
    with quiet_opencv():
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(
            f"camera {path} does not open; another program may hold it, or this user may not read it (group video)"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return OpenedCapture(capture, live=True, fps=stated_fps(capture))


def open_url(url: str, timeout_s: float) -> OpenedCapture:
    """Open an RTSP or HTTP stream. RTSP runs over TCP; both waits are bounded by `timeout_s`.

    Raises:
        SourceError: with the reason, as far as a second look at the server tells it.
    """
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    limit_ms = max(1, int(timeout_s * 1000))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
    with quiet_opencv():
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(f"{masked(url)}: {_why_unreachable(url, timeout_s)}")
    duration_s = stated_duration_s(capture)
    recording = duration_s is not None and url.lower().startswith("http")
    return OpenedCapture(capture, live=not recording, fps=stated_fps(capture), duration_s=duration_s)


def check_url(url: str) -> None:
    """Refuse an address that cannot work before anything waits for it.

    Raises:
        SourceError: unknown scheme, no host, or a port that is not a number.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise SourceError(
            f"{masked(url)}: not a valid address; expected rtsp://host:port/path or http://..."
        ) from error
    if parts.scheme.lower() not in URL_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in URL_SCHEMES)
        raise SourceError(f"{masked(url)}: {parts.scheme}:// cannot be read; expected one of {known}")
    if not host:
        raise SourceError(f"{masked(url)}: the address names no host; expected rtsp://host:port/path or http://...")


def masked(url: str) -> str:
    """The address without user name, password and query, fit for a message or a title."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _SECRET.sub(r"\1=***", url)
    authority, slash, path = rest.partition("/")
    if "@" in rest:  # a password may itself hold a slash: everything up to the last @ is a secret
        secret_end = rest.rindex("@") + 1
        authority, slash, path = rest[secret_end:].partition("/")
        authority = f"***@{authority}"
    authority, path = (f"{part.partition('?')[0]}?***" if "?" in part else part for part in (authority, path))
    path = _SECRET.sub(r"\1=***", path)
    return f"{scheme}://{authority}{slash}{path}"


def stated_fps(capture: Capture) -> float | None:
    """The frame rate of the header, if it is believable."""
    import cv2

    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= MAX_FPS else None


def stated_duration_s(capture: Capture) -> float | None:
    """The length of the header; None where it states none."""
    import cv2

    frames, fps = float(capture.get(cv2.CAP_PROP_FRAME_COUNT)), stated_fps(capture)
    return frames / fps if fps is not None and math.isfinite(frames) and frames > 0 else None


def to_rgb(picture: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """OpenCV's picture, (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, as new (H, W, 3) uint8 RGB."""
    import cv2

    if picture.ndim == 2:
        code = cv2.COLOR_GRAY2RGB
    else:
        code = cv2.COLOR_BGRA2RGB if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.ascontiguousarray(cv2.cvtColor(picture, code), dtype=np.uint8)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from printing beside our one sentence; the user's `OPENCV_FFMPEG_LOGLEVEL` wins."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first video is opened
    import cv2

    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # OpenCV 4; OpenCV 5
    with _quiet_lock:  # several sources may open at once: the first lowers the level, the last restores it
        if not _levels_before:
            _levels_before.append(set_level(0))
        else:
            _levels_before.append(_levels_before[0])
    try:
        yield
    finally:
        with _quiet_lock:
            level = _levels_before.pop()
            if not _levels_before:
                set_level(level)


def _why_unreachable(url: str, timeout_s: float) -> str:
    """Why a stream does not open: one connection tells a wrong address from a wrong path."""
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or URL_SCHEMES[parts.scheme.lower()]
    try:
        socket.create_connection((host, port), timeout=min(timeout_s, 3.0)).close()
    except socket.gaierror:
        return f"no host is known as {host!r}; check the address"
    except ConnectionRefusedError:
        return f"nothing listens on port {port} of {host}; check the port and that the camera is on"
    except TimeoutError:
        return f"{host} does not answer on port {port}; check the network and that the camera is on"
    except OSError as error:
        return f"{host} cannot be reached on port {port} ({error.strerror or error}); check the network"
    return "the server answers but gives no video there; check the path, the user name and the password"
