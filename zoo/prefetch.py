"""Prepare the next batch while the present one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Loaded = TypeVar("Item"), TypeVar("Loaded")


def prefetched(items: Sequence[Item], load: Callable[[Item], Loaded]) -> Iterator[Loaded]:
    """What `load` gives for each item, in order, one ahead of the caller in another thread.

    An error of `load` is raised where its item would have come.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, items[0]) if items else None
        for following in range(1, len(items) + 1):
            ready = ahead.result()
            if following < len(items):
                ahead = pool.submit(load, items[following])
            yield ready
