"""A window with the picture, and the keys. Where there is no display, opencv-python's first window call aborts the
process, so a child process tries first."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import SinkError

PROBE_TIMEOUT_S = 20.0
_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
KEYS_HELP = "space pause · arrows deadline · p pin · q quit"


class Action(enum.Enum):
    """What a key asks for."""

    PAUSE = "pause"
    LONGER = "longer deadline"
    SHORTER = "shorter deadline"
    PIN = "pin or unpin"
    QUIT = "quit"


# Arrows have other codes on each system: X11, Windows, macOS.
_KEYS: dict[int, Action] = {
    ord(" "): Action.PAUSE,
    ord("p"): Action.PIN,
    ord("P"): Action.PIN,
    ord("q"): Action.QUIT,
    ord("Q"): Action.QUIT,
    27: Action.QUIT,
    **dict.fromkeys((0xFF52, 0xFF53, 0x260000, 0x270000, 63232, 63235, ord("+"), ord("=")), Action.LONGER),
    **dict.fromkeys((0xFF54, 0xFF51, 0x280000, 0x250000, 63233, 63234, ord("-")), Action.SHORTER),
}


def key_action(code: int) -> Action | None:
    """The action of a `cv2.waitKeyEx` code; None for no key and keys without meaning."""
    if code < 0:
        return None
    return _KEYS.get(code) or _KEYS.get(code & 0xFFFF)  # the upper bits hold shift and num lock on some systems


def display_missing(timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Why a window cannot be opened; None when it can.

    Args:
        timeout_s: longest wait for the child process that tries.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the display did not answer within {timeout_s:g} s"
    if probe.returncode == 0:
        return None
    if probe.returncode < 0:
        return f"the display {os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')} cannot be reached"
    return "this build of OpenCV has no windows (opencv-python-headless?)"


class Window:
    """One window. `wait` is also the way to sleep, since it keeps the window alive."""

    def __init__(self, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open it; call `display_missing` before.

        Raises:
            SinkError: OpenCV refuses.
        """
        self._title, self._clock = title, clock
        self._shown = False
        self._actions: list[Action] = []
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false;qt.qpa.*=false")
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(f"no window can be opened ({error.err or error}); run with --show no") from error

    def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Show (H, W, 3) uint8 RGB and look for keys."""
        if not self._shown:
            cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
        cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._look(1)
        self._shown = True

    def wait(self, seconds: float) -> None:
        """Sleep while the window lives and keys are seen; ends early when one asks for something."""
        until_s = self._clock() + seconds
        while (left_s := until_s - self._clock()) > 0 and not self._actions:
            if left_s < 0.002:  # waitKey has steps of a millisecond and more
                time.sleep(left_s)
                return
            self._look(max(1, min(50, int(left_s * 1000) - 1)))

    def take_actions(self) -> list[Action]:
        """What was asked for since the last call; a closed window asks to quit."""
        if self._shown and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            self._actions.append(Action.QUIT)
        actions, self._actions = self._actions, []
        return actions

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
        cv2.waitKey(1)

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self, milliseconds: int) -> None:
        action = key_action(cv2.waitKeyEx(milliseconds))
        if action is not None:
            self._actions.append(action)
