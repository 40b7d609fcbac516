"""Freed memory leaves the process: while a point is built, large blocks have pages of their own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import freed_memory
from edge_runtime.freed_memory import SMALL_BYTES, USUAL_BYTES, give_back, own_pages


def anonymous_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not state it")


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
def test_blocks_between_others_leave_when_they_are_freed() -> None:
    give_back()
    before = anonymous_bytes()
    with own_pages():
        blocks = [np.ones(100_000, np.float32) for _ in range(40)]  # 16 MB
        assert anonymous_bytes() - before > 12_000_000
        del blocks[::2]  # every second one, as sessions come and go
        assert anonymous_bytes() - before < 10_000_000
    del blocks
    give_back()
    assert anonymous_bytes() - before < 2_000_000
