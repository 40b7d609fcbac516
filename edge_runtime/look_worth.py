"""What another look of an anytime network is worth: how much surer it makes the answer."""

from __future__ import annotations

PRIOR, PRIOR_LOOKS = 0.1, 32
"""Before anything is known, as if so many looks had gained so much."""
REMEMBERED_LOOKS = 128
LEAST = 0.005
"""A look that gains nothing now may gain something tomorrow, and only one that is taken tells."""


class LookWorth:
    """Means over the last looks of each number, of pictures that were not sure before it.

    Confidence is calibrated, so that what it gains on average is what accuracy gains. With a deadline for two or three
    looks the second is worth ten times the third: a picture is seldom known from its glance, and often after a patch.
    """

    def __init__(self) -> None:
        self._gains: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def observe(self, look: int, before: float, after: float) -> None:
        """Take in one look.

        Args:
            look: its number; 1 is the first patch.
            before: calibrated confidence of the answer before it, 0-1.
            after: the same after it.
        """
        count = min(self._counts.get(look, PRIOR_LOOKS) + 1, REMEMBERED_LOOKS)
        gain = self._gains.get(look, PRIOR)
        self._counts[look], self._gains[look] = count, gain + (after - before - gain) / count

    def of(self, look: int) -> float:
        """Accuracy, 0-1, that a look of this number is expected to gain; at least LEAST."""
        return max(self._gains.get(look, PRIOR), LEAST)
