"""The result file: read back as it was written, and refused with a sentence when it cannot be trusted."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import everything_under
from hypothesis import given
from hypothesis import strategies as st
from profile_results import blocks_of, point_of, result_of

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result import Block, load_result, result_values, save_result

EXAMPLE = Path(__file__).parent / "results" / "example.json"


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    result = result_of({"small": 1.25, "large": 4.0}, notes=("a note",))
    assert load_result(save_result(result, tmp_path / "deep" / "a.json")) == result


def test_the_example_is_of_this_schema_and_stays_the_same_when_saved_again(tmp_path: Path) -> None:
    result = load_result(EXAMPLE)
    assert save_result(result, tmp_path / "a.json").read_bytes() == EXAMPLE.read_bytes()
    assert {point.threads for point in result.points} == {1, 2}
    assert all(point.operators.rows and point.load.cold_ms for point in result.points)
    assert result.sustained


def test_a_file_of_version_1_has_no_yardsticks_and_is_read(tmp_path: Path) -> None:
    values = _values()
    values["schema_version"] = 1
    for block in values["points"][0]["latency"]["blocks"]:
        del block["arithmetic_ms"], block["memory_ms"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(values))
    assert all(block.arithmetic_ms is None for block in load_result(path).points[0].latency.blocks)


def test_raw_samples_stay_on_one_line_each_block(tmp_path: Path) -> None:
    lines = save_result(result_of({"small": 1.0}), tmp_path / "a.json").read_text().splitlines()
    assert sum('"samples_ms": [' in line and line.endswith("],") for line in lines) == 8


def _values() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(result_values(result_of({"small": 1.0}))))
    return values


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """An edit: the last argument is put at the path before it."""

    def edit(values: dict[str, Any]) -> None:
        *keys, last, value = path
        found: Any = values
        for key in keys:
            found = found[key]
        found[last] = value

    return edit


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a newer schema": (_set("schema_version", 3), "schema version 3 is unknown, expected 2; update edge-runtime"),
    "an older schema": (_set("schema_version", 0), "schema version 0 is unknown, expected 2; profile the bundle again"),
    "a schema that is no number": (_set("schema_version", True), "schema version True is unknown"),
    "another kind of file": (_set("format", "telemetry"), "not a profile result; make one with edge-runtime profile"),
    "an unknown key": (_set("speed", 3), "unknown key 'speed'"),
    "no points": (_set("points", []), "points is empty"),
    "a clock that went backwards between blocks": (
        _set("points", 0, "latency", "blocks", 1, "started_s", -5.0),
        "the clock went backwards",
    ),
    "a clock that went backwards inside a block": (
        _set("points", 0, "latency", "blocks", 0, "samples_ms", [1.0, -1.0]),
        "samples_ms holds a time that is not positive: the clock went backwards",
    ),
    "runs that were taken out": (
        _set("points", 0, "latency", "blocks", 0, "samples_ms", [1.0]),
        "count is 48, but the blocks hold 43 samples",
    ),
    "a median that no run had": (_set("points", 0, "latency", "p50_ms", "value", 9.0), "p50_ms is 9.0, outside"),
    "a median of nothing": (_set("points", 0, "latency", "p50_ms", "value", 0.0), "p50_ms is 0.0, outside"),
    "an interval upside down": (_set("points", 0, "latency", "mean_ms", "low", 9.0), "expected low <= high"),
    "accuracy above one": (_set("points", 0, "accuracy", {"select": 1.5}), "accuracy must be 0 to 1"),
    "energy that is unknown and known": (_set("points", 0, "energy", "energy_mj", 1.0), "unless kind is unknown"),
    "a mode of its own": (_set("mode", "slow"), "mode is 'slow', expected one of quick, standard, full"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_sentence(name: str, tmp_path: Path) -> None:
    edit, sentence = REFUSED[name]
    values = _values()
    edit(values)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ResultError) as caught:
        load_result(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_values()).replace('"duration_s": 10.0', f'"duration_s": {text}'))
    with pytest.raises(ResultError, match=r"not allowed|finite"):
        load_result(path)


def test_two_points_of_one_name_backend_and_threads_are_refused(tmp_path: Path) -> None:
    values = _values()
    values["points"] *= 2
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(ResultError, match="two points have the same name, backend and threads"):
        load_result(tmp_path / "a.json")


def test_a_truncated_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(EXAMPLE.read_bytes()[:-200])
    with pytest.raises(ResultError, match="not a whole JSON file"):
        load_result(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_error(content: bytes) -> None:
    path = Path(os.environ["EDGE_RUNTIME_DATA"]) / "any.json"
    path.write_bytes(content)
    with pytest.raises(ResultError):
        load_result(path)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.just([[1]]), st.just({"value": 1}),
)  # fmt: skip


@given(st.data(), ODD)
def test_any_value_in_any_place_is_read_or_refused(data: st.DataObject, odd: Any) -> None:
    values = found = _values()
    while True:
        keys = list(found) if isinstance(found, dict) else list(range(len(found)))
        key: Any = data.draw(st.sampled_from(keys))
        if not isinstance(found[key], (dict, list)) or not found[key] or data.draw(st.booleans()):
            found[key] = odd
            break
        found = found[key]
    path = Path(os.environ["EDGE_RUNTIME_DATA"]) / "odd.json"
    path.write_text(json.dumps(values))
    with contextlib.suppress(ResultError):
        assert load_result(path).points


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="cannot be read: No such file or directory; check the path"):
        load_result(tmp_path / "none.json")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_result(result_of({"old": 1.0}), tmp_path / "a.json")

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResultError, match="No space left on device; choose another with --out"):
        save_result(result_of({"new": 1.0}), path)
    assert everything_under(tmp_path) == {"a.json"}
    assert [point.name for point in load_result(path).points] == ["old"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultError, match="cannot be written"):
        save_result(result_of({"new": 1.0}), tmp_path / "file" / "a.json")


def test_a_block_without_runs_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="expected at least one run"):
        Block(0.0, ())


def test_a_point_keeps_every_run() -> None:
    blocks = blocks_of(2.0, rounds=5, runs=7, noise=0.1)
    assert point_of("a", blocks).latency.count == 35
