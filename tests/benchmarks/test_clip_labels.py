"""The clip's score: which frames count, and what counts as right."""

from __future__ import annotations

import pytest

from benchmarks.clip_labels import shares, truths


def test_each_frame_has_the_truth_of_its_segment() -> None:
    segments = {
        "segments": [
            {"first_frame": 0, "last_frame": 1, "class": "orange"},
            {"first_frame": 2, "last_frame": 4, "class": None},
        ]
    }
    assert truths(segments) == ["orange", "orange", None, None, None]


def test_unsure_is_wrong_for_a_known_class_and_right_for_a_stranger() -> None:
    found = shares(["orange", "unsure", "unsure", "orange"], ["orange", "orange", None, None], ("orange", "goldfish"))
    assert found == {"known_right": 0.5, "none_unsure": 0.5, "by_class": {"orange": 0.5, "none": 0.5}}


def test_a_class_that_the_bundle_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match="does not know orange"):
        shares(["x"], ["orange"], ("x",))
