"""Which operating points should be resident: pure arithmetic on names and sizes, no clock and no threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

DEFAULT_SHARE = 1.5
"""Default limit, as a multiple of what the largest point alone takes."""


def default_limit_bytes(sizes: Mapping[str, int], allowed_bytes: int | None = None) -> int | None:
    """What all resident points together may take when nobody says more; None (no limit) where no size is known.

    It has room for the largest beside the smallest in any case, so that every point can be used.

    Args:
        sizes: bytes that each point takes while it is resident.
        allowed_bytes: what the device allows.
    """
    if not sizes:
        return None
    largest, smallest = max(sizes.values()), min(sizes.values())
    share = max(int(DEFAULT_SHARE * largest), largest + smallest)
    return share if allowed_bytes is None else min(share, allowed_bytes)


def plan_residents(
    ladder: Sequence[str],
    sizes: Mapping[str, int],
    limit_bytes: int | None,
    current: str,
    wanted: str | None,
    recent: Sequence[str],
) -> tuple[str, ...]:
    """The points to hold, the most urgent first.

    The cheapest is always held, whatever it takes, and the point in use nearly so. Then the one that the controller
    wants, the neighbours of the point in use, those that are resident already, and the others by their distance, as
    they fit. Where the wanted point has no room beside the one in use, it takes its place; the cheaper ones that are
    held answer until it is built.

    Args:
        ladder: all points, cheapest first.
        sizes: bytes that each takes while it is resident; a missing one counts as nothing.
        limit_bytes: for all together; None holds every point.
        current: the point in use.
        wanted: the point that the controller would choose if it were resident; one that can never be held is ignored.
        recent: resident points, the last used first.
    """
    if wanted not in holdable(ladder, sizes, limit_bytes):
        wanted = None
    first = list(dict.fromkeys((current, ladder[0])))
    if wanted is not None:
        together = dict.fromkeys((*first, wanted))
        fits = limit_bytes is None or sum(sizes.get(name, 0) for name in together) <= limit_bytes
        first = list(together) if fits else [ladder[0], wanted]
    order = list(dict.fromkeys((*first, *_around(ladder, current, 1), *recent, *_around(ladder, current, len(ladder)))))
    if limit_bytes is None:
        return tuple(order)
    held, left = [], limit_bytes
    for name in order:
        size = sizes.get(name, 0)
        if size <= left or name in first:
            held.append(name)
            left -= size
    return tuple(held)


def holdable(ladder: Sequence[str], sizes: Mapping[str, int], limit_bytes: int | None) -> frozenset[str]:
    """The points that have room beside the cheapest, and the cheapest itself."""
    if limit_bytes is None:
        return frozenset(ladder)
    left = limit_bytes - sizes.get(ladder[0], 0)
    return frozenset(name for name in ladder if name == ladder[0] or sizes.get(name, 0) <= left)


def _around(ladder: Sequence[str], current: str, reach: int) -> Iterator[str]:
    """Neighbours within reach, the cheaper one first: it is what a late frame needs."""
    at = ladder.index(current)
    for distance in range(1, reach + 1):
        for index in (at - distance, at + distance):
            if 0 <= index < len(ladder):
                yield ladder[index]
