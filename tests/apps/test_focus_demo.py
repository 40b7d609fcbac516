"""The bundle of `make demo-focus`: whole, and it finds the picture on the wall and knows it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.demo import make_wall
from edge_runtime.bundle import Bundle
from edge_runtime.runtime import Runtime
from edge_runtime.self_check import require_passed, verify_bundle

BUNDLE = make_wall.HERE / "focus-20.bundle"
POINT = "budget-2-int8"
MIDDLES = (82, 247, 357, 467)
"""In the middle of shots: espresso, sports_car, goldfish, orange."""


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    """Number -> frame (480, 640, 3) uint8 RGB."""
    out = tmp_path_factory.mktemp("wall") / "wall.mp4"
    make_wall.make_wall(make_wall.HERE / "demo.mp4", make_wall.HERE / "segments.json", out)
    video, frames = cv2.VideoCapture(str(out)), {}
    for number in range(max(MIDDLES) + 1):
        frame = video.read()[1]
        if number in MIDDLES:
            frames[number] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    return frames


def test_the_bundle_is_whole_and_small() -> None:
    bundle = Bundle.load(BUNDLE)
    require_passed(verify_bundle(bundle))
    assert sum(p.stat().st_size for p in BUNDLE.rglob("*") if p.is_file()) < 10e6
    assert POINT in {p.name for p in bundle.manifest.points}


def test_more_looks_are_expected_to_answer_better() -> None:
    accuracy = {p.name: p.accuracy["test"] for p in Bundle.load(BUNDLE).manifest.points}
    assert accuracy["one-look-int8"] + 0.15 < accuracy["budget-1-int8"] <= accuracy[POINT] + 0.01


@pytest.mark.parametrize("number", MIDDLES)
def test_it_knows_what_hangs_on_the_wall(wall: dict[int, np.ndarray], number: int) -> None:
    truth = json.loads(Path(make_wall.HERE / "segments.json").read_text(encoding="utf-8"))["segments"]
    expected = next(s["class"] for s in truth if s["first_frame"] <= number <= s["last_frame"])
    with Runtime.load(BUNDLE, threads=1, query_table="none") as runtime:
        runtime.wait_ready(60)
        runtime.pin(POINT)
        result = runtime.infer(wall[number])
    assert result.answer.label.replace(" ", "_") == expected
    assert result.decision.point == POINT
