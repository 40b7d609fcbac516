"""`--report` of the camera: a page at the end, and its telemetry beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from apps.camera.__main__ import main

WORDS = ["--source", "pattern:12", "--show", "no", "--no-realtime", "--threads", "1"]


def camera(*words: str) -> str:
    """What the application says; in a process of its own, since its thread pool belongs to the whole process."""
    command = [sys.executable, "-m", "apps.camera", *WORDS, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_run_ends_with_its_report(tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    assert f"wrote {page}" in camera("--report", str(page))
    text = page.read_text(encoding="utf-8")
    assert "<h1>everyday-20</h1>" in text
    assert "12 frames in" in text
    lines = (tmp_path / "out" / "report.telemetry.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert (events.count("frame"), events[-1]) == (12, "end")


def test_the_report_uses_the_telemetry_that_was_asked_for(tmp_path: Path) -> None:
    page, telemetry = tmp_path / "report.html", tmp_path / "t.jsonl"
    camera("--report", str(page), "--telemetry", str(telemetry))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "t.jsonl"]


def test_a_missing_extra_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    done = CliRunner().invoke(main, [*WORDS, "--report", str(tmp_path / "report.html")])
    assert done.exit_code == 4
    assert "pip install 'edge-runtime[report]'" in done.output
    assert list(tmp_path.iterdir()) == []
