"""What another look of an anytime network is worth: how much of the doubt it should dispel."""

from __future__ import annotations

PRIOR_GAIN, PRIOR_DOUBT, PRIOR_LOOKS = 0.1, 0.5, 32
"""Before anything is known, as if so many looks had gained so much, each with so much doubt before it."""
REMEMBERED_LOOKS = 128
LEAST_SHARE = 0.01
"""A look that gains nothing now may gain something tomorrow, and only one that is taken tells."""


class LookWorth:
    """The share of the doubt that looks of each number dispelled of late.

    Doubt is what the calibrated confidence lacks to 1, so what it falls by is what accuracy gains on average. A picture
    is seldom known from its glance, and often after a patch: in the network that ships the second look dispels nearly
    half of the doubt, the third a few hundredths.
    """

    def __init__(self) -> None:
        self._gains: dict[int, float] = {}
        self._doubts: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def observe(self, look: int, before: float, after: float) -> None:
        """Take in one look.

        Args:
            look: its number; 1 is the first patch.
            before: calibrated confidence of the answer before it, 0-1.
            after: the same after it.
        """
        count = self._counts[look] = min(self._counts.get(look, PRIOR_LOOKS) + 1, REMEMBERED_LOOKS)
        gain, doubt = self._gains.get(look, PRIOR_GAIN), self._doubts.get(look, PRIOR_DOUBT)
        self._gains[look] = gain + (after - before - gain) / count
        self._doubts[look] = doubt + (1.0 - before - doubt) / count

    def share(self, look: int) -> float:
        """Of the doubt, 0-1, that a look of this number is expected to dispel; at least LEAST_SHARE."""
        doubt = self._doubts.get(look, PRIOR_DOUBT)
        return max(self._gains.get(look, PRIOR_GAIN) / doubt if doubt > 0.0 else 0.0, LEAST_SHARE)

    def of(self, look: int, confidence: float) -> float:
        """Accuracy, 0-1, that a look of this number is expected to gain.

        Args:
            confidence: calibrated, of the answer that there is, 0-1.
        """
        return self.share(look) * (1.0 - confidence)
