"""Which point the controller would use if every point that can be held were resident: a hint for the resident set."""

from __future__ import annotations

from edge_runtime.controller_selection import Selection

ROOM_SHARE = 0.85
"""A point that is fetched into memory for its sake must fit in this share of the time left."""
STEADY_FRAMES = 15
"""So many frames in a row must wish for another point: fetching one costs more than a switch."""


class Wish:
    """The point that is wished for, which does not follow each frame's whim."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._candidate: str | None = None
        self._count = 0
        self._selection: Selection | None = None
        self._seen: tuple[object, object] | None = None

    def cached(self, key: tuple[object, object]) -> Selection | None:
        """The selection that was kept for these two objects."""
        seen = self._seen
        return self._selection if seen is not None and seen[0] is key[0] and seen[1] is key[1] else None

    def keep(self, key: tuple[object, object], selection: Selection) -> None:
        """Keep a selection for two objects."""
        self._seen, self._selection = key, selection

    def take(self, name: str) -> str:
        """What a frame wishes for; returns what is wished for by now."""
        if self.name is None:
            self.name = name
        if name == self.name:
            self._candidate, self._count = None, 0
            return self.name
        self._count = self._count + 1 if name == self._candidate else 1
        self._candidate = name
        if self._count >= STEADY_FRAMES:
            self.name, self._candidate, self._count = name, None, 0
        return self.name
