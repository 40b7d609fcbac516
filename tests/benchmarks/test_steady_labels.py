"""Filmed pictures and what smoothing makes of their answers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import steady_labels
from benchmarks.steady_labels import TIMES_S, film, table
from zoo.pictures import PictureSource
from zoo.strangers import Strangers


def write(root: Path, names: list[str], level: int) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 64, 3), level, np.uint8))


def test_every_fifth_shot_is_a_stranger_that_training_saw_and_the_others_are_of_select(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "known", [f"train/{c}/{n:04}.png" for c in ("a", "b") for n in range(600)], 60)
    write(tmp_path / "known", ["test/a/1.png", "test/b/1.png"], 60)
    write(tmp_path / "others", [f"{n:04}.png" for n in range(0, 40, 2)], 200)
    write(tmp_path / "others", [f"{n:04}.png" for n in range(1, 40, 2)], 120)  # the half for measuring
    monkeypatch.setattr(steady_labels, "FRAMES_PER_SHOT", 2)
    strangers = Strangers(PictureSource(tmp_path / "others", labelled=False))
    source = PictureSource(tmp_path / "known")
    frames = list(film(source, strangers, source.classes, 10))
    assert [label is None for _, label, _ in frames] == [shot % 5 == 4 for shot in range(10) for _ in range(2)]
    assert [cut for *_, cut in frames] == [True, False] * 10
    for pixels, label, _ in frames:
        assert pixels.shape == (480, 640, 3)
        assert (pixels.mean() > 110) == (label is None)  # exposure errs by less than a third


def test_the_table_has_a_row_for_each_time_and_two_columns_for_each_point() -> None:
    points = [
        {"point": name, "smooth_s": time_s, "known_right": 0.5 + time_s / 10, "none_unsure": 0.25}
        for name in ("big", "small")
        for time_s in TIMES_S
    ]
    lines = table({"points": points, "cuts_seen": 1.0, "cuts_within_shots": 0.021}).splitlines()
    assert lines[0].count("known right") == 2
    assert lines[2] == "| 0 s | 50.0% | 25.0% | 50.0% | 25.0% |"
    assert len([line for line in lines if " s |" in line]) == len(TIMES_S)
    assert lines[-1] == "100% of the cuts were seen, and 2.1% of the other frames taken for one."
