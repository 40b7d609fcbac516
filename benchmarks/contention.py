"""Real contention on this machine: child processes that take cores or memory bandwidth by a script, pinned or not.

The processes are started once and told to work or to rest through a pipe, so that the load changes within a
millisecond. None outlives the benchmark: each leaves when its pipe closes, however we end.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

_CHILD = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
work = threading.Event()
def listen():
    while True:
        command = os.read(0, 1)
        if not command:
            os._exit(0)
        work.set() if command == b"1" else work.clear()
threading.Thread(target=listen, daemon=True).start()
kind = sys.argv[1]
source, target = bytearray(32 << 20 if kind == "memory" else 16), bytearray(32 << 20 if kind == "memory" else 16)
x = 1
while True:
    work.wait()
    if kind == "memory":
        target[:] = source
    else:
        for _ in range(200):
            x = (x * 1103515245 + 12345) & 0x7FFFFFFF
"""
TICK_S = 0.02
"""How often a script is looked at; also the period in which a partial load works and rests."""
LEAVE_S = 2.0
BURST_S, PAUSE_S = 0.4, 0.8
"""Mean lengths of a burst and of the pause before it."""
Level = Callable[[float], float]
"""Seconds since start -> share of time that the processes work, 0-1."""


@dataclass(frozen=True)
class LoadKind:
    """A script of contention."""

    name: str
    processes: int
    pinned: bool
    """One process to each core in turn; else the scheduler moves them."""
    work: str
    """"compute" or "memory"."""
    script: Callable[[float, random.Random], Level]
    """(length of the block in seconds, draws) -> the level over time."""
    deadline_shares: tuple[float, ...] = (1.0,)
    """The application's deadline over the block, in equal parts, as shares of the deadline that just fits."""

    def deadline_share(self, at_s: float, length_s: float) -> float:
        """The share that holds at a time."""
        part = int(len(self.deadline_shares) * at_s / length_s)
        return self.deadline_shares[min(max(part, 0), len(self.deadline_shares) - 1)]


def _off(length_s: float, draw: random.Random) -> Level:
    return lambda at_s: 0.0


def _step(length_s: float, draw: random.Random) -> Level:
    return lambda at_s: 1.0 if length_s / 3.0 <= at_s < 2.0 * length_s / 3.0 else 0.0


def _sawtooth(length_s: float, draw: random.Random) -> Level:
    return lambda at_s: (3.0 * at_s / length_s) % 1.0


def _bursts(length_s: float, draw: random.Random) -> Level:
    """On and off for exponential times."""
    edges_s = [0.0]
    while edges_s[-1] < length_s:
        edges_s.append(edges_s[-1] + draw.expovariate(1.0 / (BURST_S if len(edges_s) % 2 == 0 else PAUSE_S)))
    return lambda at_s: 1.0 - bisect.bisect_right(edges_s, at_s) % 2


LOADS = {
    load.name: load
    for load in (
        LoadKind("stationary", 0, False, "compute", _off),
        LoadKind("step", os.cpu_count() or 1, True, "compute", _step),
        LoadKind("sawtooth", os.cpu_count() or 1, True, "compute", _sawtooth),
        LoadKind("bursts", os.cpu_count() or 1, False, "compute", _bursts),
        LoadKind("memory", os.cpu_count() or 1, False, "memory", _step),
        LoadKind("deadlines", 0, False, "compute", _off, (1.0, 0.6, 0.35, 0.8, 0.45, 1.0, 0.7, 1.0)),
    )
}
"""One process a core takes half of each core while it works: the "50 %" of the step."""


class Contention:
    """Runs one script beside the benchmark.

    Args:
        load: the script.
        length_s: of the block.
        seed: for the scripts that draw.
    """

    def __init__(self, load: LoadKind, length_s: float, seed: int) -> None:
        self._level, self._length_s = load.script(length_s, random.Random(seed)), length_s
        self._children = [_start(load.work) for _ in range(load.processes)]
        if load.pinned:
            for index, child in enumerate(self._children):
                _pin(child.pid, index)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.levels: list[tuple[float, float]] = []
        """(seconds since start, level) at each change, for the record; nothing that is measured may read it."""

    def begin(self, started_s: float) -> None:
        """Play the script; its time counts from `started_s` on time.monotonic."""
        self._thread = threading.Thread(target=self._run, args=(started_s,), name="contention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the script and all processes."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(OSError):  # it is gone already
                child.stdin.close()
        for child in self._children:
            try:
                child.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children = []

    def __enter__(self) -> Contention:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, started_s: float) -> None:
        last = -1.0
        while not self._stop.is_set():
            at_s = time.monotonic() - started_s
            level = self._level(at_s) if 0.0 <= at_s < self._length_s else 0.0
            if level != last:
                self.levels.append((at_s, level))
                last = level
            if 0.0 < level < 1.0:
                self._tell(b"1")
                if self._stop.wait(level * TICK_S):
                    return
                self._tell(b"0")
                self._stop.wait((1.0 - level) * TICK_S)
            else:
                self._tell(b"1" if level else b"0")
                self._stop.wait(TICK_S)

    def _tell(self, command: bytes) -> None:
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(
                OSError
            ):  # a child that is gone loads nothing; the levels still say what was asked
                os.write(child.stdin.fileno(), command)


def _start(work: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CHILD, work],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _pin(pid: int, index: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, {cores[index % len(cores)]})
