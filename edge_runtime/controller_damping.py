"""When to move: down at once, up after a dwell time."""

from __future__ import annotations


class Damping:
    """Two timers: no step up sooner than the dwell time after any step, none closer than it to the last step up.

    Args:
        dwell_s: the dwell time.
    """

    def __init__(self, dwell_s: float) -> None:
        self._dwell_s = dwell_s
        self._now_s: float | None = None
        self._up_s: float | None = None
        self._moved_s: float | None = None

    def begin(self, now_s: float) -> None:
        """A new frame; a clock that went backwards begins all waiting anew."""
        if self._now_s is not None and now_s < self._now_s:
            self._up_s = None if self._up_s is None else now_s
            self._moved_s = None if self._moved_s is None else now_s
        self._now_s = now_s

    def may_step_up(self, now_s: float, *, at_once: bool) -> bool:
        """A better point is wanted: whether its time has come.

        Args:
            at_once: nothing but the last step up is to be waited for.
        """
        if self._up_s is not None and now_s - self._up_s < self._dwell_s:
            return False
        return at_once or self._moved_s is None or now_s - self._moved_s >= self._dwell_s

    def stepped_up(self, now_s: float) -> None:
        """A costlier point was taken."""
        self._up_s = self._moved_s = now_s

    def stepped_down(self, now_s: float) -> None:
        """A cheaper point was taken."""
        self._moved_s = now_s
