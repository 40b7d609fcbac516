"""python -m converters: arguments, and one sentence with a code for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from converters.__main__ import ERRORS, main
from edge_runtime.bundle import Bundle
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.pictures import PictureSource

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(narrow: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model.pt", narrow)
    return tmp_path / "model.pt"


def test_a_mistake_is_one_sentence_and_a_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "converters", "build", "--checkpoint", str(tmp_path / "absent.pt"), "--data",
         str(tmp_path), "--out", str(tmp_path / "a.bundle")],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'absent.pt'}: no such checkpoint")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "{tmp}/absent"}, "expected a folder of pictures or a zip of one"),
        ({"--precision": "bf16"}, "--precision is 'bf16', expected fp32 or int8, or fp32,int8"),
        ({"--out": "{tmp}/a.zip"}, "the name of a bundle ends in .bundle"),
        ({"--out": "{tmp}/there.bundle"}, "already exists; choose another name or give --force"),
        ({"--checkpoint": "{tmp}/broken.pt"}, "not a readable checkpoint"),
    ],
)
def test_what_cannot_be_used_is_refused(
    model: Path, source: PictureSource, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    (tmp_path / "there.bundle").mkdir()
    (tmp_path / "broken.pt").write_bytes(b"PK no torch file")
    options = {"--checkpoint": str(model), "--data": str(source.root), "--out": str(tmp_path / "a.bundle")}
    options.update({k: v.format(tmp=tmp_path) for k, v in change.items()})
    result = CliRunner().invoke(main, ["build", *(text for pair in options.items() for text in pair)])
    assert isinstance(result.exception, ERRORS)
    assert message in str(result.exception)
    assert not (tmp_path / "a.bundle").exists()


@pytest.mark.parametrize("missing", ["--checkpoint", "--data", "--out"])
def test_each_of_the_three_files_must_be_named(missing: str, tmp_path: Path) -> None:
    options = {"--checkpoint": "c.pt", "--data": "d", "--out": str(tmp_path / "a.bundle")}
    del options[missing]
    result = CliRunner().invoke(main, ["build", *(text for pair in options.items() for text in pair)])
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.output


def test_the_command_builds_a_bundle_and_says_what_it_wrote(model: Path, source: PictureSource, tmp_path: Path) -> None:
    out = tmp_path / "mine.bundle"
    arguments = ["build", "--checkpoint", model, "--data", source.root, "--out", out, "--threads", 1]
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].startswith(f"wrote {out}: 1 points, 0.0")
    manifest = Bundle.load(out).manifest
    assert manifest.name == "mine"
    assert manifest.provenance["command"] == (
        f"converters build --checkpoint model.pt --data {source.root.name} --out mine.bundle"
    )
