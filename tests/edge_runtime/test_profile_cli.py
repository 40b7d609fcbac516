"""edge-runtime profile as a user meets it."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import write_bundle

from edge_runtime import cli
from edge_runtime.backends.null import NullRunner
from edge_runtime.profiling.blocks import BlockMeter
from edge_runtime.profiling.result import load_result

Command = Callable[..., tuple[int, str, str]]
FAST = ("--quick", "--period-ms", "0", "--point", "w0.25-r016", "--point", "w0.50-r016")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_RUNTIME_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.bundle")


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-runtime", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_quick_prints_a_table_and_keeps_the_result_in_both_places(profile: Command, root: Path, data: Path) -> None:
    code, out, err = profile(root, *FAST)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("tiny on ")
    assert [line.split()[0] for line in lines[1:4]] == ["point", "w0.25-r016", "w0.50-r016"]
    paths = [Path(line.removeprefix("wrote ")) for line in err.splitlines()]
    assert len(paths) == 2
    assert data in paths[0].parents
    assert paths[1].parent == root.parent
    result = load_result(paths[0])
    assert result == load_result(paths[1])
    assert result.command == "edge-runtime profile " + " ".join([str(root), *FAST])
    assert result.points[1].latency.p50_ms.value >= 0.4  # the null backend sleeps so long


def test_the_next_run_takes_its_query_table_from_the_result(
    profile: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(root, *FAST, "--threads", "1", "--backend", "null")[0] == 0
    arguments = ["--bundle", str(root), "--source", "pattern", "--max-frames", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["edge-runtime", "run", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    err = capsys.readouterr().err
    assert "query table: " in err
    assert "4 points are not in it and are scaled" in err
    monkeypatch.setattr(sys, "argv", ["edge-runtime", "run", *arguments, "--query-table", "none"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "query table: " not in capsys.readouterr().err


def test_json_is_the_result_itself(profile: Command, root: Path, tmp_path: Path) -> None:
    code, out, _ = profile(root, *FAST, "--format", "json", "--out", tmp_path / "a.json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_request_to_end_keep_what_is_done_and_say_so(
    number: signal.Signals, profile: Command, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = [0]
    plain, plain_measure = NullRunner.run, BlockMeter.measure

    def measure(self: BlockMeter, entry: Any, runs: int) -> None:
        blocks[0] += 1
        plain_measure(self, entry, runs)

    def run(self: NullRunner) -> Any:
        if blocks[0] == 5:  # inside the third block of one point; a verdict needs three whole ones
            os.kill(os.getpid(), number)
        return plain(self)

    monkeypatch.setattr(BlockMeter, "measure", measure)
    monkeypatch.setattr(NullRunner, "run", run)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without one
    try:
        code, out, err = profile(root, *FAST, "--out", tmp_path / "a.json")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    result = load_result(tmp_path / "a.json")
    assert not result.complete
    kept = sum(point.latency.count for point in result.points)
    assert [len(point.latency.blocks) for point in result.points] == [2, 2]
    assert err.splitlines()[-1] == (
        f"interrupted: {len(result.points)} points with {kept} runs are kept; run the command again for the rest"
    )
    assert "unstable: only" in out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--threads", "0"], 9, "--threads '0': expected numbers from 1 to 1024"),
        (["--threads", "900"], 9, "--threads 900: this process may use "),
        (["--sustained", "soon"], 9, "'soon': expected a time from 1s to 24h"),
        (["--backend", "tpu"], 3, "holds no program for tpu"),
        (["--point", "w9"], 3, "no operating point 'w9'"),
        (["--device", "toaster"], 7, "no device profile is named 'toaster'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_a_code(
    profile: Command, root: Path, arguments: list[str], code: int, sentence: str
) -> None:
    found, out, err = profile(root, "--quick", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_a_missing_bundle_is_one_sentence(profile: Command, tmp_path: Path) -> None:
    code, _, err = profile(tmp_path / "none.bundle", "--quick")
    assert (code, len(err.splitlines())) == (3, 1)


def test_a_full_disk_is_one_sentence_and_a_code(profile: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str, encoding: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    code, _, err = profile(root, *FAST)
    assert code == 9
    assert err.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in err
