"""The query table while it is used: each point's latency, corrected by what was measured.

A correction is the point's own ratio to the common slowdown. It is a second state beside the slowdown, with a variance
of its own: what surprises at a point that was seldom used is mostly the table's fault, at one that was used long it is
the machine's. It is bounded, and it never moves without a measurement of its point.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.controller_ladder import LadderPoint, by_latency
from edge_runtime.controller_settings import ControllerSettings


class QueryTable:
    """The ladder, fastest tabled latency first, with its corrections.

    Args:
        ladder: in any order.
        settings: constants.
    Raises:
        ValueError: the ladder is empty, a name comes twice, or a latency is not above 0.
    """

    def __init__(self, ladder: Sequence[LadderPoint], settings: ControllerSettings) -> None:
        self._settings = settings
        self.points = by_latency(ladder)
        for point in self.points:
            if not 0.0 < point.latency_ms < 1e12:
                raise ValueError(f"point {point.name!r}: latency is {point.latency_ms} ms, expected more than 0")
        self.index = {point.name: i for i, point in enumerate(self.points)}
        self.accuracy = [point.accuracy for point in self.points]
        self.by_accuracy = sorted(range(len(self.points)), key=lambda i: (-self.accuracy[i], self.points[i].latency_ms))
        """Most accurate first, and among equals the fastest."""
        self.cost_ms = [point.latency_ms for point in self.points]
        """Corrected latencies."""
        self.variance = [settings.first_table_variance] * len(self.points)
        """Of each corrected latency, relative to its square."""

    def learn(self, index: int, innovation: float, total: float) -> None:
        """Take in a surprise at one point.

        Args:
            innovation: observed / expected - 1.
            total: its expected variance, the table's included.
        """
        settings, tabled_ms = self._settings, self.points[index].latency_ms
        gain = self.variance[index] / total
        cost_ms = self.cost_ms[index] * (1.0 + gain * innovation)
        lowest_ms, highest_ms = tabled_ms / settings.max_correction, tabled_ms * settings.max_correction
        self.cost_ms[index] = min(max(cost_ms, lowest_ms), highest_ms)
        self.variance[index] = max((1.0 - gain) * self.variance[index], settings.min_table_variance)
