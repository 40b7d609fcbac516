"""A hand-held camera over a still photograph: path, shake, parallax, exposure and focus, all functions of time.

The photograph is treated as a shallow scene: what lies near the subject is nearer to the camera, so it shifts more when
the camera moves. That, true motion blur over the open shutter, and a lens that hunts for focus and exposure after a cut
make a clip that a video model meets as video, not as a row of stills.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480
SHUTTER_FRAMES = 0.5  # the shutter is open half of each frame's time, as cameras do by default ("180 degrees")
MAX_SAMPLES_PER_FRAME = 24
PARALLAX = 0.08  # extra shift of the nearest point, as part of the camera's own shift
SHAKE_PX = 8.0
SHAKE_ROLL_DEG = 0.5
WHIP_PX = 300.0  # how far the camera swings at a whip cut, over WHIP_FRAMES
WHIP_FRAMES = 5
FOCUS_SIGMA_PX = 6.0
FOCUS_IN_FRAMES = 9
FOCUS_OUT_FRAMES = 4
EXPOSURE_SETTLES_FRAMES = 6.0


@dataclass(frozen=True)
class View:
    """What the camera frames: a 4:3 window of the photograph, in parts of the photograph's width and height."""

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Subject:
    """Where the near part of the scene is, in parts of the photograph's width and height; radius of the width."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Shot:
    """One shot: the photograph, the first and last view, and how it begins and ends (`whip` or `focus`)."""

    photo: str
    class_name: str | None
    first: View
    last: View
    subject: Subject
    begins: str
    ends: str
    exposure_error: float
    """Relative error of exposure right after the cut, that the camera then corrects."""


class Camera:
    """Renders the frames of one shot.

    Args:
        pixels: the photograph, (H, W, 3) uint8 BGR; not changed.
        shot: what to film.
        n_frames: length of the shot.
        seed: makes shake, drift and noise repeatable.
    """

    def __init__(self, pixels: np.ndarray, shot: Shot, n_frames: int, seed: int) -> None:
        self._shot, self._n_frames, self._seed = shot, n_frames, seed
        window_px = pixels.shape[1] * min(shot.first.width, shot.last.width)
        scale = WIDTH / window_px
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        self._photo = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
        random = np.random.default_rng(seed)
        self._frequency_hz = np.array([0.35, 0.8, 1.7, 3.1, 6.5])[:, None] * random.uniform(0.8, 1.25, (5, 4))
        self._phase = random.uniform(0, 2 * np.pi, (5, 4))
        self._amplitude = np.array([1.0, 0.7, 0.35, 0.16, 0.07])[:, None]
        u, v = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
        self._u, self._v = u - (WIDTH - 1) / 2, v - (HEIGHT - 1) / 2
        self._vignette = 1 - 0.16 * ((self._u / WIDTH) ** 2 + (self._v / HEIGHT) ** 2)[..., None] * 2

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index` of the shot, (HEIGHT, WIDTH, 3) uint8 BGR."""
        swing_px = abs(self._whip_px(index + SHUTTER_FRAMES) - self._whip_px(index))
        n_samples = int(np.clip(np.ceil(swing_px / 3), 3, MAX_SAMPLES_PER_FRAME))
        light = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for time in index + SHUTTER_FRAMES * np.arange(n_samples) / n_samples:
            light += self._exposed_at(float(time))
        light /= n_samples
        sigma_px = self._defocus_px(index)
        if sigma_px > 0.3:
            light = cv2.GaussianBlur(light, (0, 0), sigma_px)
        return self._developed(light, index)

    def _exposed_at(self, time: float) -> np.ndarray:
        """What falls on the sensor at `time` (frames from the start of the shot), float32 0..255."""
        height, width = self._photo.shape[:2]
        view, shake = self._view_at(time), self._shake_at(time)
        zoom = view.width * width / WIDTH
        roll = np.deg2rad(shake[2] * SHAKE_ROLL_DEG)
        shift_x, shift_y = shake[0] * SHAKE_PX + self._whip_px(time), shake[1] * SHAKE_PX
        x = zoom * (self._u * np.cos(roll) - self._v * np.sin(roll) + shift_x) + view.x * width
        y = zoom * (self._u * np.sin(roll) + self._v * np.cos(roll) + shift_y) + view.y * height
        subject, first = self._shot.subject, self._shot.first
        radius_px = subject.radius * width
        distance_2 = ((x - subject.x * width) ** 2 + (y - subject.y * height) ** 2) / radius_px**2
        near = PARALLAX * np.exp(-0.5 * distance_2)
        x += near * ((view.x - first.x) * width + 2 * shake[0] * SHAKE_PX)
        y += near * ((view.y - first.y) * height + 2 * shake[1] * SHAKE_PX)
        # replicated edges show only while the camera whips sideways, as the streaks that they stand for
        seen = cv2.remap(
            self._photo, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return seen.astype(np.float32)

    def _developed(self, light: np.ndarray, index: int) -> np.ndarray:
        """Apply exposure, white balance, vignette, a soft shoulder and sensor noise; (H, W, 3) uint8."""
        drift = self._shake_at(index * 0.5)[3]
        error = self._shot.exposure_error * np.exp(-index / EXPOSURE_SETTLES_FRAMES)
        gain = (1 + 0.04 * drift + error) * np.array([1 - 0.015 * drift, 1.0, 1 + 0.015 * drift])
        value = light * gain.astype(np.float32) * self._vignette
        value = np.where(value > 225, 225 + 30 * np.tanh((value - 225) / 45), value)
        noise = np.random.default_rng((self._seed, index)).normal(0, 2.2, (HEIGHT // 2, WIDTH // 2, 1))
        grain = cv2.resize(noise.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)[..., None]
        return np.clip(value + grain + 0.5, 0, 255).astype(np.uint8)

    def _view_at(self, time: float) -> View:
        part = np.clip(time / self._n_frames, 0, 1)
        eased = part * part * (3 - 2 * part) * 0.6 + part * 0.4  # a hand starts and stops softly but never stands still
        first, last = self._shot.first, self._shot.last
        return View(*(a + (b - a) * eased for a, b in zip(vars(first).values(), vars(last).values(), strict=True)))

    def _shake_at(self, time: float) -> np.ndarray:
        """Shift x, shift y, roll and exposure drift at `time`, each about -1..1."""
        waves = np.sin(2 * np.pi * self._frequency_hz * time / 30 + self._phase)
        return (self._amplitude * waves).sum(0) / self._amplitude.sum() * 1.6

    def _whip_px(self, time: float) -> float:
        """How far the camera has swung away from the view: after a whip in, or before a whip out."""
        swing = 0.0
        if self._shot.begins == "whip":
            swing -= WHIP_PX * max(0.0, 1 - time / WHIP_FRAMES) ** 2
        if self._shot.ends == "whip":
            swing += WHIP_PX * max(0.0, 1 - (self._n_frames - time) / WHIP_FRAMES) ** 2
        return swing

    def _defocus_px(self, index: int) -> float:
        """Gaussian blur that stands for a lens out of focus: after a cut it overshoots once before it locks."""
        sigma = 0.0
        if self._shot.begins == "focus":
            part = index / FOCUS_IN_FRAMES
            sigma = FOCUS_SIGMA_PX * abs(np.cos(part * np.pi * 0.75)) * max(0.0, 1 - part)
        if self._shot.ends == "focus":
            left = self._n_frames - 1 - index
            sigma = max(sigma, FOCUS_SIGMA_PX * max(0.0, 1 - left / FOCUS_OUT_FRAMES))
        return float(sigma)
