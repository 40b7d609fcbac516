"""Names of operating points for people."""

from __future__ import annotations

from collections.abc import Sequence


def without_shared_ending(names: Sequence[str]) -> list[str]:
    """The names without the words (-int8) that all of them end in; one name alone stays as it is."""
    words, shared = [name.split("-") for name in names], 0
    several = len(set(names)) > 1
    while several and all(len(w) > shared + 1 for w in words) and len({w[-1 - shared] for w in words}) == 1:
        shared += 1
    short = ["-".join(w[: len(w) - shared]) for w in words]
    return short if all(short) else list(names)
