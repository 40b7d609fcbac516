"""Records from untrusted values: each wrong value is refused in a sentence that names its key."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.records import MAX_TEXT, RecordError, read_record


@dataclass(frozen=True)
class Inner:
    """A record inside a record."""

    level: float

    def __post_init__(self) -> None:
        if self.level < 0:
            raise ValueError("level is negative")


@dataclass(frozen=True)
class Outer:
    """Every kind of field."""

    name: str
    count: int
    share: float
    flag: bool = False
    size_hw: tuple[int, int] = (1, 1)
    inners: tuple[Inner, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    maybe: int | None = None


GOOD = {"name": "a", "count": 1, "share": 0.5}


def test_values_become_a_record_of_the_right_types() -> None:
    values = {**GOOD, "share": 1, "size_hw": [2, 3], "inners": [{"level": 0}], "scores": {"x": 1}, "maybe": None}
    record = read_record(Outer, values, "file")
    assert record == Outer("a", 1, 1.0, False, (2, 3), (Inner(0.0),), {"x": 1.0}, None)
    assert isinstance(record.share, float)
    assert isinstance(record.scores["x"], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "file: unknown key 'extra'; known keys are count, flag"),
        ({"name": 3}, "file: name: expected text, found int"),
        ({"name": "x" * (MAX_TEXT + 1)}, "file: name: text of 4097 characters"),
        ({"name": "\ud800"}, "file: name: holds signs that are no text"),
        ({"name": "red \x1b[31m"}, "file: name: holds signs that are no text"),
        ({"count": 1.0}, "file: count: expected int, found float"),
        ({"count": True}, "file: count: expected int, found bool"),
        ({"count": 2**63}, "file: count: is larger than any possible value"),
        ({"share": float("nan")}, "file: share: is nan, expected a finite number"),
        ({"share": float("inf")}, "file: share: is inf, expected a finite number"),
        ({"share": 10**400}, "file: share: is larger than any possible value"),
        ({"share": "0.5"}, "file: share: expected float, found str"),
        ({"share": True}, "file: share: expected float, found bool"),
        ({"flag": 1}, "file: flag: expected bool, found int"),
        ({"size_hw": [1]}, "file: size_hw: expected 2 values, found 1"),
        ({"size_hw": "12"}, "file: size_hw: expected a list, found str"),
        ({"inners": [{"level": 1}, {"level": -1}]}, r"file: inners\[1\]: level is negative"),
        ({"inners": [3]}, r"file: inners\[0\]: expected an object with keys, found int"),
        ({"scores": {"x": None}}, r"file: scores\['x'\]: expected float, found NoneType"),
        ({"scores": []}, "file: scores: expected an object, found list"),
        ({"maybe": "none"}, "file: maybe: expected int, found str"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_record(Outer, {**GOOD, **change}, "file")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(RecordError, match=f"file: key '{key}' is missing"):
        read_record(Outer, {k: v for k, v in GOOD.items() if k != key}, "file")


@pytest.mark.parametrize("values", [None, [], "text", 3, True])
def test_what_is_no_object_is_refused(values: object) -> None:
    with pytest.raises(RecordError, match="file: expected an object with keys"):
        read_record(Outer, values, "file")


TEXT = st.text(alphabet="ab\x1b\ud800", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Outer.__dataclass_fields__, "other"]), JSON))
def test_any_values_give_a_record_or_a_record_error(values: dict[str, object]) -> None:
    try:
        record = read_record(Outer, values, "file")
    except RecordError:
        return
    assert isinstance(record, Outer)
    assert isinstance(record.share, float)
