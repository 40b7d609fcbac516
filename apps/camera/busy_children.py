"""Child processes that keep cores busy, for scenarios. None outlives the application, however that ends.

Each child holds the reading end of a pipe whose only writing end is ours. When we close it, exit, crash or are killed,
the operating system closes it and the child leaves at once.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import TracebackType

_BURN = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
def leave_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=leave_with_parent, daemon=True).start()
x = 1
while True:
    x = (x * 1103515245 + 12345) & 0x7FFFFFFF
"""
LEAVE_S = 2.0
"""Time that a child gets to leave by itself before it is killed."""


class BusyChildren:
    """As many busy processes as asked for."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the running children."""
        return tuple(child.pid for child in self._children)

    def set_count(self, count: int) -> None:
        """Start or stop children until `count` run."""
        while len(self._children) < count:
            self._children.append(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BURN],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        leaving = self._children[count:]
        del self._children[count:]
        for child in leaving:
            assert child.stdin is not None
            with contextlib.suppress(OSError):  # it is gone already
                child.stdin.close()
        for child in leaving:
            try:
                child.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def close(self) -> None:
        """Stop all."""
        self.set_count(0)

    def __enter__(self) -> BusyChildren:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
