"""The edge-runtime command: what it prints, and one sentence with a code for everything that goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import default_files, everything_under, file_values, manifest_values, write_bundle

from edge_runtime import cli
from edge_runtime.bundle_files import zip_bundle
from edge_runtime.steady_answer import SteadyAnswer

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["edge-runtime", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        assert cv2.imwrite(str(folder / f"{index}.png"), np.full((20, 30, 3), 50 * index, np.uint8))
    return folder


def test_inspect_shows_the_points(command: Command, tmp_path: Path) -> None:
    values = manifest_values(splits={"select": "cups, 500 pictures"}, provenance={"commit": "abc"})
    root = write_bundle(tmp_path / "a.bundle", values)
    code, out, err = command("inspect", root)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("tiny: classification, 3 labels, 6 points, ")
    assert lines[1:4] == ["labels: cup, dog, tree", "select: cups, 500 pictures", "commit: abc"]
    assert [line.split()[0] for line in lines[4:]] == [p["name"] for p in sorted(values["points"], key=_madds)]


def _madds(point: dict[str, int]) -> int:
    return point["madds"]


def test_inspect_as_json_is_json(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("inspect", write_bundle(tmp_path / "a.bundle"), "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["size_bytes"] == sum(len(c) for c in default_files().values())
    assert len(found["points"]) == 6


def test_run_prints_a_line_for_each_frame_and_writes_telemetry(
    command: Command, tmp_path: Path, pictures: Path
) -> None:
    root, telemetry = write_bundle(tmp_path / "a.bundle"), tmp_path / "t.jsonl"
    code, out, err = command("run", "--bundle", root, "--source", pictures, "--telemetry", telemetry, "--threads", 1)
    assert (code, err) == (0, "")
    frames = [json.loads(line) for line in out.splitlines()]
    assert [f["index"] for f in frames] == [0, 1, 2]
    events = [json.loads(line)["event"] for line in telemetry.read_text().splitlines()]
    assert events[0] == "start"
    assert [event for event in events if event in ("frame", "end")] == ["frame", "frame", "frame", "end"]


def test_run_stops_after_the_frames_asked_for_at_the_point_asked_for(
    command: Command, tmp_path: Path, pictures: Path
) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    options = ["--max-frames", "2", "--pin", "w0.50-r032", "--max-latency-ms", "500"]
    code, out, _ = command("run", "--bundle", root, "-i", pictures, *options)
    frames = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(f["point"], f["deadline_ms"]) for f in frames] == [("w0.50-r032", 500.0)] * 2


def test_an_option_for_networks_that_look_again_is_told_where_none_does(
    command: Command, tmp_path: Path, pictures: Path
) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    code, out, err = command("run", "--bundle", root, "-i", pictures, "--max-frames", "1", "--look-where-found")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err == f"{root}: no point looks several times on null; look-where-found changes nothing\n"


def test_a_bundle_is_packed_and_unpacked(command: Command, tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    assert command("pack", root, tmp_path / "a.zip")[:2] == (0, f"wrote {tmp_path / 'a.zip'}\n")
    code, out, _ = command("unpack", tmp_path / "a.zip", tmp_path / "b.bundle")
    assert (code, out) == (0, f"unpacked to {tmp_path / 'b.bundle'}\n")
    assert everything_under(tmp_path / "b.bundle") == everything_under(root)


def test_a_bundle_that_is_bad_inside_its_zip_is_not_left_behind(command: Command, tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    assert command("pack", root, tmp_path / "good.zip")[0] == 0
    (root / "weights.npz").write_bytes(b"other")
    bad_zip = tmp_path / "bad.zip"
    zip_bundle(root, bad_zip)
    code, _, err = command("unpack", bad_zip, tmp_path / "b.bundle")
    assert code == 3
    assert "'weights.npz' is not" in err
    assert not (tmp_path / "b.bundle").exists()


def test_a_changed_bundle_is_not_packed(command: Command, tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    (root / "weights.npz").write_bytes(b"other")
    assert command("pack", root, tmp_path / "a.zip")[0] == 3
    assert not (tmp_path / "a.zip").exists()


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no such bundle": (["inspect", "{tmp}/absent.bundle"], 3, "not a bundle folder"),
    "a changed bundle": (["inspect", "{tmp}/changed.bundle"], 3, "'weights.npz' was altered"),
    "a name that leaves the bundle": (["inspect", "{tmp}/outside.bundle"], 3, "leaves the bundle"),
    "another schema version": (["inspect", "{tmp}/version.bundle"], 3, "schema version 4 is unknown"),
    "frame rate 0": (["run", "--target-fps", "0"], 2, "target is 0.0 frames per second"),
    "deadline 0": (["run", "--max-latency-ms", "0"], 2, "deadline is 0.0 ms"),
    "deadline nan": (["run", "--max-latency-ms", "nan"], 2, "deadline is nan ms"),
    "accuracy in percent": (["run", "--min-accuracy", "60"], 2, "minimum accuracy is 60.0"),
    "no such point": (["run", "--bundle", "{good}", "-i", "{pictures}", "--pin", "w9"], 3, "no operating point 'w9'"),
    "no such backend": (["run", "--bundle", "{good}", "--backend", "magic"], 3, "holds no program for magic"),
    "no such profile": (["run", "--bundle", "{good}", "--profile", "toaster"], 7, "toaster"),
    "no such source": (["run", "--bundle", "{good}", "-i", "{tmp}/absent.mp4"], 5, "absent.mp4"),
    "telemetry that is a folder": (
        ["run", "--bundle", "{good}", "-i", "{pictures}", "--telemetry", "{tmp}"], 8, "telemetry cannot be written"
    ),
    "no zip": (["unpack", "{tmp}/absent.zip", "{tmp}/x.bundle"], 3, "cannot be unpacked"),
    "a target that exists": (["unpack", "{tmp}/absent.zip", "{good}"], 3, "already exists"),
    "a zip that cannot be written": (["pack", "{good}", "{tmp}/absent/a.zip"], 8, "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_and_a_code(case: str, command: Command, tmp_path: Path, pictures: Path) -> None:
    good = write_bundle(tmp_path / "good.bundle")
    changed = write_bundle(tmp_path / "changed.bundle")
    content = bytearray((changed / "weights.npz").read_bytes())
    content[50] ^= 255
    (changed / "weights.npz").write_bytes(content)
    facts = file_values(default_files())
    escaping = {**facts, "../good.bundle/weights.npz": facts["weights.npz"]}
    write_bundle(tmp_path / "outside.bundle", manifest_values(files=escaping))
    write_bundle(tmp_path / "version.bundle", manifest_values(schema_version=4))

    arguments, expected_code, message = MISTAKES[case]
    code, out, err = command(*(a.format(tmp=tmp_path, good=good, pictures=pictures) for a in arguments))
    assert (code, out) == (expected_code, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--wings", "2"], ["run", "--threads", "0"], ["pack"]])
def test_a_wrong_call_shows_the_usage(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


def test_help_lists_the_commands(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert {"run", "inspect", "pack", "unpack", "doctor"} <= set(out.split())


def test_without_click_the_command_names_the_extra() -> None:
    program = "import sys; sys.modules['click'] = None; import edge_runtime.cli"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    assert done.stderr == (
        "error: click is not installed; it is needed for this command: pip install 'edge-runtime[camera]'\n"
    )


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle", manifest_values(labels=[f"label {i}" for i in range(20_000)]))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge_runtime", "inspect", str(root), "--format", "json"],
            stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("words", "expected"), [((), 0.0), (("--smooth", "0.5"), 0.5)])
def test_answers_are_averaged_when_asked(
    command: Command, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
    expected: float,
) -> None:  # fmt: skip
    taken = []
    make = SteadyAnswer.__init__

    def note(self: SteadyAnswer, labels: tuple[str, ...], smooth_s: float) -> None:
        taken.append(smooth_s)
        make(self, labels, smooth_s)

    monkeypatch.setattr(SteadyAnswer, "__init__", note)
    root = write_bundle(tmp_path / "a.bundle")
    assert command("run", "--bundle", root, "-i", pictures, *words)[0] == 0
    assert taken == [expected]
