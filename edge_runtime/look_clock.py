"""Whether the next look of an anytime network will end in time, from how long looks took so far."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque

USUAL_LOOKS = 128
"""Of each kind; their median is the usual one."""
REMEMBERED_LOOKS, REMEMBERED_SLOW_LOOKS = 1024, 128
"""Whose losses are remembered: after ordinary looks, and after slow ones."""
FEWEST_LOOKS = 32
SLOW = 1.5
"""A look is slow when it took so many times the usual time, or more."""
LOOKS_TO_BELIEVE = 5
SLOW_SHARE_RATE = 1.0 / 256.0
TAIL_LOOKS, TAIL_POWER = 8, 3.0
"""Beyond the eighth largest loss the share falls with the third power of the loss."""
STOPS_TO_FORGET = 16


class Window:
    """The last so many numbers, in order of size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, value: float) -> None:
        """Take one in, and forget the oldest when there are too many."""
        if len(self._recent) == self._size:
            self.forget()
        self._recent.append(value)
        insort(self._sorted, value)

    def forget(self) -> None:
        """Drop the oldest; there must be one."""
        del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def median(self) -> float:
        """The middle one, of two the larger; there must be one."""
        return self._sorted[len(self._sorted) // 2]

    def share_above(self, value: float) -> float:
        """0-1 of the numbers; 0 when there is none."""
        count = len(self._sorted)
        return (count - bisect_right(self._sorted, value)) / count if count else 0.0

    def tail_above(self, value: float) -> float:
        """Probability, 0-1, that the next number is larger: the share of those that were, or what their tail says.

        That a thousand looks never lost so much does not mean that none will; each of a frame's looks is such a case.
        """
        share, count = self.share_above(value), len(self._sorted)
        if count < TAIL_LOOKS:
            return share
        known = self._sorted[-TAIL_LOOKS]
        if not 0.0 < known < value:
            return share
        return max(share, TAIL_LOOKS / count * float((known / value) ** TAIL_POWER))


class LookClock:
    """The usual time of a look, how slow the machine is now, and what looks lose beyond that.

    A look that takes much longer than usual either lost the core for a while, and the next one runs on a core that was
    just got back, or the machine became slower. The middle one of the last few looks tells these apart. What looks lose
    is remembered apart for those that came after a slow look of the same frame. Glances and patches are remembered
    together: a runner that has to stop after each glance goes on learning. So the usual time of a patch is kept as a
    multiple of the usual glance; patches that were seen on a busy machine are no reason never to look at one again.
    """

    def __init__(self) -> None:
        self._glances, self._patches = Window(USUAL_LOOKS), Window(USUAL_LOOKS)
        """Seconds of glances; of patches, multiples of the usual glance when they were seen."""
        self._lost, self._lost_after_slow = Window(REMEMBERED_LOOKS), Window(REMEMBERED_SLOW_LOOKS)
        """Seconds beyond the usual time."""
        self._slowness: deque[float] = deque(maxlen=LOOKS_TO_BELIEVE)
        """Of the last looks: their time as a multiple of the usual one."""
        self._slow = False
        """The last look was."""
        self._slow_share = 1.0
        """Of all looks, 0-1; falls from 1 as looks are seen."""
        self._stops = 0

    def observe(self, look: int, seconds: float) -> None:
        """Take in the time of one look; 0 is the glance, which begins a frame."""
        usual = self._usual_patch_s() if look else self._usual_glance_s()
        usual = usual if usual > 0.0 else seconds
        after_slow = look > 0 and self._slow
        (self._lost_after_slow if after_slow else self._lost).add(max(seconds - usual, 0.0))
        self._slowness.append(seconds / usual if usual > 0.0 else 1.0)
        self._slow = self._slowness[-1] >= SLOW
        self._slow_share += SLOW_SHARE_RATE * (self._slow - self._slow_share)
        if look == 0:
            self._glances.add(seconds)
        elif self._usual_glance_s() > 0.0:
            self._patches.add(seconds / self._usual_glance_s())

    def risk(self, room_s: float) -> float:
        """How much the next look adds to the share of frames that are late, 0-1; 0 while no patch has been seen.

        After a slow look it is the probability that this look is too long, times the share of looks that are slow: a
        rare case may be riskier than what happens in every frame. While too few of them are known, they are tried.

        Args:
            room_s: until the deadline.
        """
        if not len(self._patches):
            return 0.0
        slowness = max(sorted(self._slowness)[len(self._slowness) // 2], 1.0)
        may_lose_s = room_s - self._usual_patch_s() * slowness
        if may_lose_s < 0.0:
            return 1.0
        if not self._slow:
            return self._lost.tail_above(may_lose_s)
        if len(self._lost_after_slow) < FEWEST_LOOKS:
            return 0.0
        return self._slow_share * self._lost_after_slow.tail_above(may_lose_s)

    def stopped(self) -> None:
        """The next look was too risky. If that is for what came after slow looks, some of it is forgotten in time, so
        that it is tried again."""
        if self._slow and len(self._lost_after_slow) >= FEWEST_LOOKS:
            self._stops = (self._stops + 1) % STOPS_TO_FORGET
            if self._stops == 0:
                self._lost_after_slow.forget()

    def usual_s(self, looks: float) -> float:
        """Median time of a run of so many looks, not necessarily whole; 0 when none has been seen."""
        return self._usual_glance_s() + max(0.0, looks - 1.0) * self._usual_patch_s()

    def _usual_glance_s(self) -> float:
        return self._glances.median() if len(self._glances) else 0.0

    def _usual_patch_s(self) -> float:
        return self._patches.median() * self._usual_glance_s() if len(self._patches) else 0.0
