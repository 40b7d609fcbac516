"""What should be resident: the point in use and the cheapest always, then what is wanted, near or warm, as it fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.residency_plan import default_limit_bytes, holdable, plan_residents

LADDER = ("a", "b", "c", "d", "e")
SIZES = {"a": 1, "b": 2, "c": 4, "d": 8, "e": 16}

# limit, current, wanted, recent -> held, the most urgent first
CASES: dict[str, tuple[int | None, str, str | None, tuple[str, ...], tuple[str, ...]]] = {
    "no limit holds every point": (None, "a", None, (), ("a", "b", "c", "d", "e")),
    "without a limit the wanted point is built first": (None, "a", "d", (), ("a", "d", "b", "c", "e")),
    "neighbours come before distant points": (15, "c", None, (), ("c", "a", "b", "d")),
    "the cheaper neighbour comes first": (8, "c", None, (), ("c", "a", "b")),
    "a neighbour that does not fit makes room for a farther one": (7, "b", None, (), ("b", "a", "c")),
    "the wanted point comes before the neighbours": (21, "b", "e", (), ("b", "a", "e")),
    "warm points come before cold ones": (24, "e", None, ("e", "c", "b"), ("e", "a", "c", "b")),
    "the point in use is held whatever it takes": (3, "e", None, (), ("e", "a")),
    "a wanted point without room beside the one in use takes its place": (24, "d", "e", ("d",), ("a", "e", "c", "b")),
    "a wanted point that never fits is ignored": (16, "b", "e", (), ("b", "a", "c", "d")),
    "a limit of nothing holds the cheapest": (0, "a", None, (), ("a",)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_plan(case: str) -> None:
    limit, current, wanted, recent, held = CASES[case]
    assert plan_residents(LADDER, SIZES, limit, current, wanted, recent) == held


names = st.sampled_from(LADDER)


@given(st.integers(0, 40), names, names | st.none(), st.lists(names, unique=True))
def test_the_plan_keeps_the_limit_beside_what_is_in_use(
    limit: int, current: str, wanted: str | None, recent: list[str]
) -> None:
    held = plan_residents(LADDER, SIZES, limit, current, wanted, recent)
    assert len(set(held)) == len(held)
    assert LADDER[0] in held
    assert sum(SIZES[n] for n in held) <= max(limit, SIZES["a"] + SIZES[current])
    if wanted in holdable(LADDER, SIZES, limit):
        assert wanted in held
    else:
        assert current in held


@given(st.integers(0, 40), names, names)
def test_the_plan_is_stable_once_it_is_carried_out(limit: int, current: str, wanted: str) -> None:
    """What is resident by the plan stays, whatever is used of it next, so that points are not built in turns."""
    held = plan_residents(LADDER, SIZES, limit, current, wanted, ())
    again = held[0] if current not in held else current
    assert set(plan_residents(LADDER, SIZES, limit, again, wanted, held)) >= {LADDER[0], again}
    assert set(plan_residents(LADDER, SIZES, limit, current, wanted, held)) == set(held)


def test_what_can_be_held_fits_beside_the_cheapest() -> None:
    assert holdable(LADDER, SIZES, 9) == {"a", "b", "c", "d"}
    assert holdable(LADDER, SIZES, 0) == {"a"}
    assert holdable(LADDER, SIZES, None) == set(LADDER)
    assert holdable(LADDER, {}, 0) == set(LADDER)  # sizes that nobody knows


def test_the_default_limit_is_one_and_a_half_of_the_largest() -> None:
    assert default_limit_bytes(SIZES) == 24
    assert default_limit_bytes(SIZES, 20) == 20
    assert default_limit_bytes(SIZES, 99) == 24
    assert default_limit_bytes({}, 20) is None
    assert default_limit_bytes({"small": 9, "large": 10}) == 19  # room for both: each can be used
