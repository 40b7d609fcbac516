"""Work that several processes share out."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.processes import Processes


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_item_is_done_once_and_all_hear_of_all_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items, done = list(range(10, 17)), []

    def work(some: list[int]) -> list[int]:
        done.extend(some)
        return [item * item for item in some]

    shares = [[item * item for item in items[rank::count]] for rank in range(count)]

    def gather(everywhere: list[Any], mine: list[int]) -> None:
        assert mine in shares
        everywhere[:] = shares

    monkeypatch.setattr("zoo.processes.distributed.all_gather_object", gather)
    for rank in range(count):
        assert Processes(rank, count).shared_out(items, work) == [item * item for item in items]
    assert sorted(done) == items
