"""Any bytes for any part of a bundle: hypothesis edits good ones, and atheris, where it is there, runs briefly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bundle_targets
import pytest
from bundle_targets import StrayReadError, good_manifest, only_inside, run, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CALM = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
NAMES = st.sampled_from(["../secret", "/etc/passwd", "weights.npz/..", "a/../../secret", "..", "secret\0", "link", ""])


def paths(values: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be replaced."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [here, *(path for key, value in inner for path in paths(value, (*here, key)))]


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return value
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@CALM
@given(st.data(), st.sampled_from(["recipe", "manifest"]))
def test_one_value_replaced_gives_a_value_or_a_bundle_error(data: st.DataObject, target: str) -> None:
    good = json.loads(seeds()[target][0])
    path = data.draw(st.sampled_from(paths(good)))
    content = json.dumps(replaced(good, path, data.draw(NESTED | NAMES))).encode()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights.npz").write_bytes(b"")
        run(target, content, Path(folder))


@CALM
@given(st.sampled_from(sorted(bundle_targets.TARGETS)), st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_bundle_error(target: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(target, content, Path(folder))


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "folder/secret"])
def test_a_file_outside_is_never_opened_though_its_hash_is_right(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a.bundle"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"")
    (folder / "weights.npz").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    values = good_manifest(b"")
    values["files"][name] = values["files"]["weights.npz"]
    assert not run("manifest", json.dumps(values).encode(), folder)


def test_the_good_seeds_are_good_and_a_stray_read_is_noticed(tmp_path: Path) -> None:
    for target in ("recipe", "packed"):
        assert run(target, seeds()[target][0], tmp_path)
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(StrayReadError), only_inside(tmp_path / "inside"):
        (tmp_path / "secret").read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", ["recipe", "manifest"])
def test_a_short_run_of_atheris_finds_nothing(target: str) -> None:
    script = Path(bundle_targets.__file__).with_name("fuzz_bundle.py")
    command = [sys.executable, str(script), target, "-runs=1500", "-max_total_time=20", "-rss_limit_mb=2048"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parents[2], timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
