"""edge-runtime report: its formats, and one sentence with a code for everything that goes wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_cases import BUNDLE, frame_line, profile, run_lines, start_line, write_profile, write_run

from edge_runtime import cli
from edge_runtime.errors import SinkError
from edge_runtime.profiling.result import SCHEMA_VERSION
from edge_runtime.reporting import report as report_module
from edge_runtime.reporting.report import write_report

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs edge-runtime report in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["edge-runtime", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_the_page_is_written_and_its_size_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(report_module.FORMATS, "html", lambda report: f"<h1>{report.title}</h1>")
    out = tmp_path / "new" / "r.html"
    code, told, err = command(write_run(tmp_path / "t.jsonl"), "--out", out)
    assert (code, err) == (0, "")
    assert told == f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)\n"
    assert out.read_text(encoding="utf-8") == "<h1>everyday</h1>"
    assert os.listdir(out.parent) == ["r.html"]


def test_csv_has_a_row_for_each_point_with_full_numbers(command: Command, tmp_path: Path) -> None:
    code, out, err = command(write_profile(tmp_path / "a.json"), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 24)
    points = {(p.name, str(p.threads)): p for p in profile().points}
    for row in rows:
        point = points[row["point"], row["threads"]]
        assert float(row["p50_ms"]) == pytest.approx(point.latency.p50_ms.value, rel=1e-8)
        assert float(row["accuracy"]) == pytest.approx(point.accuracy["test"])


def test_csv_of_a_run_has_a_row_for_each_way_to_choose(command: Command, tmp_path: Path) -> None:
    _, out, _ = command(write_run(tmp_path / "t.jsonl"), "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["way"] for row in rows[:2]] == ["adaptive", "clairvoyant"]
    assert {row["basis"] for row in rows[1:]} == {"computed"}


def test_a_name_that_looks_like_a_formula_stays_text_in_csv(command: Command, tmp_path: Path) -> None:
    lines = run_lines(20)
    lines[0]["points"][0]["name"] = "=cmd|' /C calc'!A0"
    lines += [frame_line(20, point="large")]
    for line in lines:
        if line.get("point") == "small":
            line["point"] = "=cmd|' /C calc'!A0"
    _, out, _ = command(write_run(tmp_path / "t.jsonl", lines), "-f", "csv")
    assert "'=cmd" in out
    assert ",=cmd" not in out


def test_csv_of_both_kinds_is_refused(command: Command, tmp_path: Path) -> None:
    files = write_profile(tmp_path / "a.json"), write_run(tmp_path / "t.jsonl")
    code, out, err = command(*files, "-f", "csv")
    assert (code, out) == (9, "")
    assert err.startswith("error: CSV is one table")


def test_json_holds_every_table_with_plain_numbers(command: Command, tmp_path: Path) -> None:
    files = write_profile(tmp_path / "a.json"), write_run(tmp_path / "t.jsonl")
    code, out, _ = command(*files, "-f", "json")
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (code, found["format"], found["title"]) == (0, "edge-runtime report", "everyday")
    tables = {table["title"]: table["rows"] for section in found["sections"] for table in section["tables"]}
    assert len(tables["All 18 points"]) == 18
    assert tables["Adaptive and static, on the same frames"][0]["basis"] == "measured"


def test_markdown_escapes_what_would_be_markup(command: Command, tmp_path: Path) -> None:
    lines = run_lines(20, bundle="a|b *c* <b>d</b> [e](f)\n# g")
    code, out, _ = command(write_run(tmp_path / "t.jsonl", lines), "-f", "md")
    assert code == 0
    assert out.splitlines()[0] == r"# a\|b \*c\* \<b\>d\</b\> \[e\]\(f) \# g".replace(r"\(f", "(f")
    table = [line for line in out.splitlines() if line.startswith("| **adaptive**")]
    assert len(table) == 1
    assert table[0].count("|") == 8


def test_out_works_for_every_format(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "t.jsonl")
    for form in ("json", "csv", "md"):
        code, told, _ = command(run, "-f", form, "--out", tmp_path / f"r.{form}")
        assert code == 0
        assert told.startswith("wrote ")
        assert (tmp_path / f"r.{form}").stat().st_size > 100


def newer_profile(path: Path) -> Path:
    values = json.loads(write_profile(path).read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "schema_version": SCHEMA_VERSION + 1}), encoding="utf-8")
    return path


def edited_profile(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    values = json.loads(write_profile(path).read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def cut_profile(path: Path) -> Path:
    text = write_profile(path).read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "nothing there": (lambda at: [at / "no.json"], "cannot be read"),
    "a folder": (lambda at: [at], "cannot be read"),
    "an empty profile": (lambda at: [write_run(at / "a.json", [])], "not a whole JSON file"),
    "empty telemetry": (lambda at: [write_run(at / "t.jsonl", [])], "the recording is empty"),
    "telemetry without frames": (lambda at: [write_run(at / "t.jsonl", [start_line()])], "has no frames"),
    "a newer profile": (lambda at: [newer_profile(at / "a.json")], "update edge-runtime"),
    "newer telemetry": (lambda at: [write_run(at / "t", [start_line(schema_version=99)])], "update edge-runtime"),
    "half a profile": (lambda at: [cut_profile(at / "a.json")], "not a whole JSON file"),
    "NaN in a profile": (
        lambda at: [edited_profile(at / "a.json", lambda v: v["points"][0].update(throughput_fps=float("nan")))],
        "NaN is not allowed",
    ),
    "a profile whose clock went backwards": (
        lambda at: [edited_profile(at / "a.json", lambda v: v["points"][0]["latency"]["blocks"].reverse())],
        "the clock went backwards",
    ),
    "another kind of JSON": (lambda at: [write_run(at / "a.json", [{"a": 1}])], "not a profile result"),
    "two bundles": (
        lambda at: [write_profile(at / "a.json"),
                    write_run(at / "t.jsonl", run_lines(9, bundle="birds"))],
        "is of the bundle 'birds'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_sentence_and_code_9(command: Command, tmp_path: Path, name: str) -> None:
    make, sentence = BAD_FILES[name]
    code, out, err = command(*make(tmp_path), "--out", tmp_path / "r.html")
    assert (code, out) == (9, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_a_killed_run_still_gives_its_report(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "t.jsonl", run_lines()[:-1], tail='{"event":"frame","ind')
    code, out, err = command(run, "-f", "md")
    assert (code, err) == (0, "")
    assert "- The last line is cut off: the run was killed. The 90 frames before it are shown." in out


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no such modes here")
def test_a_folder_that_cannot_be_written_is_said(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "t.jsonl")
    blocked = tmp_path / "file"
    blocked.write_text("")  # a file where a folder is wanted: refused to root too
    code, _, err = command(run, "-f", "md", "--out", blocked / "r.md")
    assert code == SinkError.exit_code
    assert "the report cannot be written" in err
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() != 0:
        code, _, err = command(run, "-f", "md", "--out", locked / "r.md")
        assert (code, "Permission denied" in err) == (SinkError.exit_code, True)
        assert list(locked.iterdir()) == []


def test_a_write_that_fails_halfway_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = write_run(tmp_path / "t.jsonl"), tmp_path / "r.md"
    out.write_text("old")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SinkError, match="No space left on device"):
        write_report([run], "md", out)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.md", "t.jsonl"]


def test_a_report_never_replaces_what_it_is_about(command: Command, tmp_path: Path) -> None:
    run = write_run(tmp_path / "t.jsonl")
    before = run.read_bytes()
    code, _, err = command(run, "--out", tmp_path / "." / "t.jsonl", "-f", "md")
    assert (code, "choose another --out" in err) == (SinkError.exit_code, True)
    assert run.read_bytes() == before


@pytest.mark.parametrize("missing", ["jinja2", "vl_convert"])
def test_a_missing_extra_is_named_and_the_other_formats_work_without_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    run = write_run(tmp_path / "t.jsonl")
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = command(run, "--out", tmp_path / "r.html")
    assert code == 4
    assert "pip install 'edge-runtime[report]'" in err
    assert command(run, "-f", "md")[0] == 0
    assert command(write_profile(tmp_path / "a.json", bundle=BUNDLE), "-f", "csv")[0] == 0
