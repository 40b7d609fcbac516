"""The arithmetic of the video benchmark; tests/converters/test_glance_focus_scenes.py plays a real bundle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from benchmarks.focus_video import Played, VideoSet, compared, play, require_fitting
from benchmarks.glance_focus_tables import PAGE, fill, video_table

POINT = SimpleNamespace(size_hw=(64, 64))


class FakeRuntime:
    """Answers with the class that the picture's brightness says; knows whether it may begin where it found."""

    def __init__(self, log: list[tuple[str, bool]], option: bool) -> None:
        self.log, self.option = log, option

    def pin(self, point: str) -> None:
        self.log.append((point, self.option))

    def infer(self, pixels: np.ndarray) -> Any:
        self.log.append(("frame", self.option))
        scores = np.eye(3, dtype="f4")[int(pixels[0, 0, 0]) : int(pixels[0, 0, 0]) + 1]
        trail = SimpleNamespace(looks=2 if self.option else 3, hinted=self.option)
        return SimpleNamespace(outputs=(scores,), trail=trail, run_ms=1.0)


def test_each_frame_goes_through_both_runtimes_by_turns_first() -> None:
    log: list[tuple[str, bool]] = []
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[2] = 1
    runtimes: Any = {option: FakeRuntime(log, option) for option in (False, True)}
    found = play(runtimes, "safe", [(frames, 1), (frames, 0)])
    assert log[:2] == [("safe", False), ("safe", True)]
    assert [option for _, option in log[2:8]] == [True, False, False, True, True, False]
    assert found[False].right.tolist() == found[True].right.tolist() == [[0, 0, 1], [1, 1, 0]]
    assert (found[False].looks == 3).all()
    assert (found[True].looks == 2).all()
    assert found[True].hinted.all()
    assert not found[False].hinted.any()


def test_standard_errors_are_over_videos() -> None:
    still = np.zeros((3, 4))
    plain = Played(still + 3.0, still, still + 2.0, still)
    looks = np.array([[3.0] * 4, [2.0] * 4, [1.0] * 4])
    hinted = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], float)
    row = compared("safe", {False: plain, True: Played(looks, still + 0.5, still + 2.0, hinted)})
    assert row["looks"] == {
        "without": 3.0, "with": 2.0, "difference": -1.0, "standard_error": pytest.approx(1.0 / np.sqrt(3.0)),
    }  # fmt: skip
    assert (row["right"]["difference"], row["right"]["standard_error"]) == (0.5, 0.0)
    assert row["hinted"] == pytest.approx(7 / 12)
    assert row["hinted_across_cuts"] == 0.5  # the first frame of the second video, not that of the third


def test_the_table_says_what_changed_and_the_page_has_a_place_for_it() -> None:
    change = {"without": 3.0, "with": 2.5, "difference": -0.5, "standard_error": 0.25}
    row = {
        "point": "safe",
        "looks": change,
        "right": change,
        "run_ms": change,
        "hinted": 0.4,
        "hinted_across_cuts": 0.1,
    }
    table = video_table({"videos": 20, "frames": 30, "backend": "onnxruntime", "points": [row]})
    assert "| safe | 3.00 | 2.50 (-0.50 ± 0.25) | 3.000 | 2.500 (-0.500 ± 0.250) | 3.00 |" in table
    assert "| 40%, after a cut 10% |" in table
    assert "20 videos of 30 frames, onnxruntime, one thread" in table
    assert table in fill(PAGE.read_text(encoding="utf-8"), {"video": table})


@pytest.mark.parametrize(
    ("exits", "labels", "side", "message"),
    [
        (None, ["a", "b"], 64, "no point looks several times"),
        ("some", ["b", "a"], 64, "its classes are not those of --data"),
        ("some", ["a", "b"], 128, r"made for \[\(64, 64\)\], --recipe makes scenes of 128 pixels"),
    ],
)
def test_a_bundle_of_something_else_is_one_sentence(
    exits: str | None, labels: list[str], side: int, message: str
) -> None:
    manifest = SimpleNamespace(exits=exits, labels=("a", "b"), points=(POINT,))
    with pytest.raises(click.ClickException, match=message):
        require_fitting(SimpleNamespace(root="x.bundle", manifest=manifest), labels, side)  # type: ignore[arg-type]


def test_a_recipe_without_scenes_is_one_sentence(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('data = "pictures"\nvariant = "resnet50_96"\n')
    with pytest.raises(click.ClickException, match=r'r\.toml: data is \'pictures\', expected "scenes"'):
        VideoSet("nowhere", recipe, 2, 30, 0)
