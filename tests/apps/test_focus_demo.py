"""What `make demo-focus` needs: its scenario, and one sentence where the bundle is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from apps.camera.scenario import load_scenario

ROOT = Path(__file__).parents[2]


def test_the_focus_scenario_leaves_less_and_less_time() -> None:
    scenario = load_scenario(ROOT / "apps" / "demo" / "focus-scenario.toml")
    deadlines = [phase.deadline_ms for phase in scenario.phases if phase.deadline_ms is not None]
    assert deadlines == sorted(deadlines, reverse=True)
    assert len(deadlines) >= 2
    assert scenario.phases[-1].start_s < 16  # the clip is that long


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_missing_focus_bundle_is_one_sentence_that_says_how_to_build_it(tmp_path: Path) -> None:
    missing = tmp_path / "focus-20.bundle"
    done = subprocess.run(
        ["make", "--no-print-directory", "demo-focus", f"FOCUS_BUNDLE={missing}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    sentence = done.stderr.splitlines()[0]
    assert str(missing) in sentence
    assert "make train-focus focus-bundle" in sentence
    assert done.stdout == ""
