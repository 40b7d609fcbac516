"""Freed memory leaves the process: while a point is built, large blocks have pages of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime import freed_memory
from edge_runtime.freed_memory import SMALL_BYTES, USUAL_BYTES, give_back, own_pages

BLOCKS = """
import numpy as np
from edge_runtime.freed_memory import give_back, own_pages

def anonymous_bytes():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

give_back()
before = anonymous_bytes()
with own_pages():
    blocks = [np.ones(100_000, np.float32) for _ in range(40)]  # 16 MB
    held = anonymous_bytes() - before
    del blocks[::2]  # every second one, as sessions come and go
    half_freed = anonymous_bytes() - before
del blocks
give_back()
print(held, half_freed, anonymous_bytes() - before)
"""


def test_the_settings_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(freed_memory, "_function", lambda name: lambda *arguments: calls.append(arguments))
    with contextlib.suppress(RuntimeError), own_pages():
        during = set(calls)
        raise RuntimeError
    assert during == {(-3, SMALL_BYTES), (-1, SMALL_BYTES)}
    assert calls[2:] == [(-3, USUAL_BYTES), (-1, 2 * USUAL_BYTES)]


def test_a_library_without_these_functions_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_function", lambda name: None)
    with own_pages():
        pass
    assert not give_back()


@pytest.mark.skipif(freed_memory._function("mallopt") is None, reason="not glibc")
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not state it")
def test_blocks_between_others_leave_when_they_are_freed() -> None:
    """In a fresh process: after a thousand other tests the heap has holes of its own."""
    found = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, timeout=60, check=True)
    held, half_freed, freed = (int(word) for word in found.stdout.split())
    assert held > 12_000_000
    assert half_freed < 10_000_000
    assert freed < 2_000_000
