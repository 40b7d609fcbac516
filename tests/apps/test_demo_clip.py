"""The demo clip is a real, small, moving video; its segments are true to it; and every photograph in it is free."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.demo import camera_motion, make_clip, photos
from edge_runtime.errors import SourceError

cv2 = pytest.importorskip("cv2")

DEMO = Path(make_clip.__file__).parent
CLASSES = {
    "african_elephant", "banana", "bell_pepper", "bullet_train", "computer_keyboard", "egyptian_cat", "espresso",
    "golden_retriever", "goldfish", "king_penguin", "lion", "monarch_butterfly", "orange", "pizza", "school_bus",
    "sports_car", "sunglasses", "suspension_bridge", "teddy", "umbrella",
}  # fmt: skip


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return json.loads((DEMO / "segments.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def thumbnails(truth: dict[str, Any]) -> np.ndarray:
    """Every frame of the clip in grey, (frames, 48, 64) float32; checks size and rate on the way."""
    video = cv2.VideoCapture(str(DEMO / "demo.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(truth["fps"])
    small = []
    while True:
        decoded, frame = video.read()
        if not decoded:
            break
        assert frame.shape == (truth["height"], truth["width"], 3)
        grey = cv2.cvtColor(cv2.resize(frame, (64, 48), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        small.append(grey.astype(np.float32))
    video.release()
    return np.stack(small)


def test_clip_decodes_to_the_stated_frames_and_lasts_15_to_18_seconds(
    truth: dict[str, Any], thumbnails: np.ndarray
) -> None:
    assert len(thumbnails) == truth["frames"]
    assert 15 <= truth["frames"] / truth["fps"] <= 18


def test_clip_is_under_two_megabytes() -> None:
    assert (DEMO / "demo.mp4").stat().st_size < 2_000_000


def test_camera_never_stands_still(thumbnails: np.ndarray) -> None:
    change_in_200_ms = np.abs(thumbnails[6:] - thumbnails[:-6]).mean(axis=(1, 2))
    # grey levels: measured at least 3.8 here, and at most 0.4 for one still with the same grain and encoder
    assert change_in_200_ms.min() > 1.5


def test_picture_changes_at_every_cut_and_not_between(truth: dict[str, Any], thumbnails: np.ndarray) -> None:
    middles = [thumbnails[(s["first_frame"] + s["last_frame"]) // 2] for s in truth["segments"]]
    for segment, middle, other in zip(truth["segments"], middles, middles[1:] + middles[:1], strict=True):
        near = thumbnails[segment["first_frame"] + truth["blurred_frames_after_cut"]]
        assert np.corrcoef(near.ravel(), middle.ravel())[0, 1] > np.corrcoef(near.ravel(), other.ravel())[0, 1]


def test_segments_cover_all_frames_in_order(truth: dict[str, Any]) -> None:
    next_frame = 0
    for segment in truth["segments"]:
        assert segment["first_frame"] == next_frame
        assert 1.5 <= (segment["last_frame"] + 1 - next_frame) / truth["fps"] <= 2.0
        next_frame = segment["last_frame"] + 1
    assert next_frame == truth["frames"]


def test_segments_name_only_known_classes_and_some_show_none(truth: dict[str, Any]) -> None:
    named = [s["class"] for s in truth["segments"]]
    assert set(named) <= {*CLASSES, None}
    assert named.count(None) in (1, 2)
    assert len(set(named) - {None}) >= 6


def test_segments_file_is_what_the_script_would_write(truth: dict[str, Any]) -> None:
    assert make_clip.describe_segments() == truth


@pytest.mark.parametrize("name", list(photos.PHOTOS))
def test_photo_is_used_free_and_named_with_author_and_licence(name: str) -> None:
    photo = photos.PHOTOS[name]
    assert name in {shot.photo for shot in make_clip.SHOTS}
    assert photo.licence in ("CC0-1.0", "public domain")
    rows = [line for line in (DEMO / "PHOTOS.md").read_text(encoding="utf-8").splitlines() if photo.file_name in line]
    assert len(rows) == 1
    for fact in (photo.author, f"| {photo.licence} |", photo.package.name, photo.package.version):
        assert fact in rows[0]


def test_missing_photo_is_named_with_its_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_clip.main(["--photos", str(tmp_path), "--out", str(tmp_path)]) == SourceError.exit_code
    message = capsys.readouterr().err
    assert "Dog.png" in message
    assert "plasma-workspace-data" in message
    assert not (tmp_path / "demo.mp4").exists()


def test_altered_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dog.png").write_bytes(b"another picture")
    with pytest.raises(SourceError, match="sha256 is"):
        photos.read_checked(tmp_path, photos.PHOTOS["dog"])


def test_absent_installer_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"apt-get cannot be run.*--photos DIR"):
        photos.unpack(photos.PLASMA, tmp_path / "package")


@pytest.fixture
def scene() -> np.ndarray:
    """A photograph-like picture, (480, 640, 3) uint8: smooth random patches."""
    coarse = np.random.default_rng(5).integers(0, 200, (60, 80, 3), dtype=np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


def test_same_seed_films_the_same_frame_and_another_seed_does_not(scene: np.ndarray) -> None:
    shot = make_clip.SHOTS[0]
    frame = camera_motion.Camera(scene, shot, 55, seed=1).frame(20)
    assert frame.shape == (480, 640, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, camera_motion.Camera(scene, shot, 55, seed=1).frame(20))
    assert not np.array_equal(frame, camera_motion.Camera(scene, shot, 55, seed=2).frame(20))


@pytest.mark.parametrize("kind", ["whip", "focus"])
def test_frame_after_a_cut_is_less_sharp_than_a_settled_one(scene: np.ndarray, kind: str) -> None:
    camera = camera_motion.Camera(scene, replace(make_clip.SHOTS[0], begins=kind), 55, seed=1)

    def sharpness(index: int) -> float:
        without_grain = cv2.GaussianBlur(camera.frame(index).astype(np.float32), (0, 0), 2)
        return float(np.abs(np.diff(without_grain, axis=1)).mean() / without_grain.mean())

    assert sharpness(0) < 0.8 * sharpness(25)
