"""The display probe and the keys; a real window under Xvfb, with a screenshot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apps.camera.window import Action, display_missing, key_action

ROOT = Path(__file__).resolve().parents[2]
SIZE_WH = (1000, 800)
WANTED = 640 * 180 - 100
PATIENCE_S = 120.0  # a busy machine takes long to start a process that loads OpenCV
LOOKS = 400  # of 50 ms and more: the picture is long there, unless it never comes


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (ord(" "), Action.PAUSE),
        (ord("p"), Action.PIN),
        (ord("q"), Action.QUIT),
        (27, Action.QUIT),
        (65362, Action.LONGER),
        (65363, Action.LONGER),
        (65364, Action.SHORTER),
        (65361, Action.SHORTER),
        (0x260000, Action.LONGER),
        (0x280000, Action.SHORTER),
        (63232, Action.LONGER),
        (0x100000 | 65362, Action.LONGER),
        (0x100000 | ord("q"), Action.QUIT),
        (ord("x"), None),
        (-1, None),
    ],
)
def test_keys_mean_what_the_help_says(code: int, action: Action | None) -> None:
    assert key_action(code) is action


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11")
def test_without_a_display_the_probe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "neither DISPLAY nor WAYLAND_DISPLAY" in str(display_missing())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11")
def test_a_display_that_is_not_there_does_not_abort_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    missing = display_missing(PATIENCE_S)
    assert missing is not None
    assert ":4711" in missing or "no windows" in missing


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Path]:
    """A virtual display; gives the file that mirrors its pixels."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    read_end, write_end = os.pipe()
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(write_end),
            "-screen",
            "0",
            f"{SIZE_WH[0]}x{SIZE_WH[1]}x24",
            "-fbdir",
            str(tmp_path),
        ],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb has not started"
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = f":{number}"
    yield tmp_path / "Xvfb_screen0"
    if before is None:
        del os.environ["DISPLAY"]
    else:
        os.environ["DISPLAY"] = before
    server.terminate()
    server.wait()


def screenshot(mirror: Path) -> np.ndarray:
    """Pixels (H, W, 3) RGB of an X window dump with 32 bits a pixel."""
    data = mirror.read_bytes()
    header = np.frombuffer(data[:100], ">u4")
    header_bytes, width, height, line_bytes, colours = (int(header[i]) for i in (0, 4, 5, 12, 19))
    start = header_bytes + colours * 12
    rows = np.frombuffer(data[start : start + height * line_bytes], np.uint8).reshape(height, line_bytes)
    return rows[:, : width * 4].reshape(height, width, 4)[..., 2::-1]


SHOW = f"""
import sys, time
import numpy as np
from apps.camera.window import Window, display_missing
missing = display_missing({PATIENCE_S})
assert missing is None, missing
picture = np.zeros((360, 640, 3), np.uint8)
picture[:180], picture[180:] = (250, 60, 40), (30, 90, 240)
with Window("test") as window:
    while not window.take_actions():
        window.show(picture)
        window.wait(0.05)
        print("shown", flush=True)
"""


def test_a_real_window_shows_the_picture(screen: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    red = blue = looks = 0
    try:
        assert child.stdout is not None
        # counted in frames that the child showed: time would run out while it starts
        while (red < WANTED or blue < WANTED) and looks < LOOKS and child.stdout.readline():
            looks += 1
            pixels = screenshot(screen).astype(int)
            red = int((abs(pixels - (250, 60, 40)).max(axis=2) < 12).sum())
            blue = int((abs(pixels - (30, 90, 240)).max(axis=2) < 12).sum())
        ended = child.poll()
    finally:
        child.kill()
        _, errors = child.communicate()
    seen = f"after {looks} frames, exit code {ended}: {errors}"
    assert red >= WANTED, seen
    assert blue >= WANTED, seen
    assert errors == ""
