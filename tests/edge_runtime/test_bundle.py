"""Loading bundles: a good one opens, and each way of being broken or hostile gives one sentence."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import default_files, file_values, manifest_values, point_values, write_bundle
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle import MAX_MANIFEST_BYTES, Bundle
from edge_runtime.bundle_files import file_facts, read_verified
from edge_runtime.errors import BundleError


def refusal(root: Path) -> str:
    """The sentence with which loading is refused."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(root)
    message = str(caught.value)
    assert message.startswith(str(root))
    assert "\n" not in message
    assert caught.value.exit_code == 3
    return message


def test_a_good_bundle_opens(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle"))
    assert [p.name for p in bundle.points_for("null")] == [p.name for p in bundle.manifest.points]
    assert bundle.point("w0.50-r016").size_hw == (16, 16)
    assert bundle.program(bundle.point("w0.50-r016")).name == "null-fp32"
    np.testing.assert_array_equal(bundle.weights["stem"], np.arange(6, dtype=np.float32))
    assert bundle.tables == {}
    assert bundle.vectors == {}
    assert bundle.spec.mean == (127.5, 127.5, 127.5)


def test_what_the_bundle_does_not_have_is_named(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle"))
    with pytest.raises(BundleError, match=r"no operating point 'w9'; the bundle has w0.25-r016, "):
        bundle.point("w9")
    with pytest.raises(BundleError, match="holds no program for onnxruntime; it has null fp32"):
        bundle.points_for("onnxruntime")
    with pytest.raises(BundleError, match="holds no program for executorch int8"):
        bundle.points_for("executorch", "int8")


def _changed(root: Path) -> None:
    content = bytearray((root / "weights.npz").read_bytes())
    content[100] ^= 1
    (root / "weights.npz").write_bytes(content)


def _link_file(root: Path) -> None:
    (root / "weights.npz").rename(root.parent / "outside.npz")
    (root / "weights.npz").symlink_to(root.parent / "outside.npz")


def _link_folder(root: Path) -> None:
    (root / "programs").rename(root.parent / "outside")
    (root / "programs").symlink_to(root.parent / "outside")


def _link_manifest(root: Path) -> None:
    (root / "manifest.json").rename(root.parent / "outside.json")
    (root / "manifest.json").symlink_to(root.parent / "outside.json")


def _pipe(root: Path) -> None:
    (root / "weights.npz").unlink()
    os.mkfifo(root / "weights.npz")


def _folder(root: Path) -> None:
    (root / "weights.npz").unlink()
    (root / "weights.npz").mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (_changed, "'weights.npz' was altered"),
    "a missing file": (lambda root: (root / "weights.npz").unlink(), "'weights.npz' is missing; copy the bundle again"),
    "a cut file": (lambda root: os.truncate(root / "weights.npz", 100), "'weights.npz' is not"),
    "a longer file": (lambda root: os.truncate(root / "weights.npz", 1 << 33), "'weights.npz' is not"),
    "a link for a file": (_link_file, "'weights.npz' passes through a link"),
    "a link for a folder": (_link_folder, "'programs/null.bin' passes through a link"),
    "a link for the manifest": (_link_manifest, "holds no manifest.json"),
    "a pipe for a file": (_pipe, "'weights.npz' is not a plain file"),
    "a folder for a file": (_folder, "'weights.npz' is not a plain file"),
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "holds no manifest.json"),
    "an empty manifest": (lambda root: os.truncate(root / "manifest.json", 0), "not a valid manifest"),
    "half a manifest": (lambda root: os.truncate(root / "manifest.json", 200), "not a valid manifest"),
    "a huge manifest": (lambda root: os.truncate(root / "manifest.json", 1 << 34), "larger than"),
    "a manifest that is no text": (lambda root: (root / "manifest.json").write_bytes(b"\xff\xfe{"), "not a valid"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_bundle_is_refused(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[case]
    root = write_bundle(tmp_path / "a.bundle")
    damage(root)
    assert message in refusal(root)


def test_a_path_that_is_no_folder_says_what_to_do(tmp_path: Path) -> None:
    assert "not a bundle folder; check the path" in refusal(tmp_path / "absent.bundle")
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert "unpack it first (edge-runtime unpack)" in refusal(tmp_path / "a.zip")


def test_a_file_that_changes_after_loading_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "a.bundle"))
    _changed(bundle.root)
    with pytest.raises(BundleError, match="was altered"):
        bundle.weights  # noqa: B018


OUTSIDE = [
    "../outside.bin", "/etc/passwd", "a/../../outside.bin", "..", "programs\\null.bin", "C:/x", "\\\\host\\x", "",
    "a\0b", "//host/x",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_the_folder_is_refused_though_its_hash_is_right(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"secret")
    files = {**file_values(default_files()), name: file_values({"x": b"secret"})["x"]}
    root = write_bundle(tmp_path / "a.bundle", manifest_values(files=files))
    message = refusal(root)
    assert "leaves the bundle" in message or "no text" in message


def test_a_name_longer_than_any_file_system_takes_is_refused(tmp_path: Path) -> None:
    files = {**file_values(default_files()), "n" * 3000: file_values({"x": b""})["x"]}
    assert "cannot be read" in refusal(write_bundle(tmp_path / "a.bundle", manifest_values(files=files)))


def test_a_file_that_is_not_listed_is_never_read(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    (root / "extra.bin").write_bytes(b"x")
    bundle = Bundle.load(root)
    with pytest.raises(BundleError, match=r"'extra.bin' is used but not listed under files"):
        bundle.read("extra.bin")


@pytest.mark.parametrize("name", ["weights.npz", "programs/null.bin"])
def test_a_used_file_that_is_not_listed_is_refused_at_once(name: str, tmp_path: Path) -> None:
    files = {k: v for k, v in file_values(default_files()).items() if k != name}
    assert "used but not listed" in refusal(write_bundle(tmp_path / "a.bundle", manifest_values(files=files)))


def with_point(**changes: Any) -> dict[str, Any]:
    return manifest_values(points=[{**point_values(0.5, 16), **changes}])


def with_program(**changes: Any) -> dict[str, Any]:
    return manifest_values(programs=[{**manifest_values()["programs"][0], **changes}])


def with_pixels(**changes: Any) -> dict[str, Any]:
    return manifest_values(preprocessing={**manifest_values()["preprocessing"], **changes})


def with_clip(frames: object = 8, clip: object = None, version: int = 3) -> dict[str, Any]:
    """A bundle of clips with one point."""
    points = [{**point_values(0.5, 16), "frames": frames}]
    return manifest_values(schema_version=version, points=points, clip=clip or {"duration_ms": 500.0})


FACT = {"sha256": "0" * 64, "size_bytes": 1}
BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "schema version 4": (manifest_values(schema_version=4), "schema version 4 is unknown, this runtime reads 1 to 3"),
    "schema version as text": (manifest_values(schema_version="1"), "schema version '1' is unknown"),
    "schema version true": (manifest_values(schema_version=True), "schema version True is unknown"),
    "schema version null": (manifest_values(schema_version=None), "schema version NoneType is unknown"),
    "schema version 1.0": (manifest_values(schema_version=1.0), "schema_version: expected int"),
    "an unknown key": (manifest_values(extra=1), "unknown key 'extra'"),
    "an unknown key of a point": (with_point(speed=1), "points[0]: unknown key 'speed'"),
    "another task": (manifest_values(task="poetry"), "task is 'poetry'"),
    "one label": (manifest_values(labels=["cup"]), "expected at least two"),
    "a label that steers the terminal": (manifest_values(labels=["a", "\x1b[2J"]), "signs that are no text"),
    "no points": (manifest_values(points=[]), "expected at least one"),
    "two points of one name": (manifest_values(points=[point_values(0.5, 16)] * 2), "two points have the same name"),
    "two programs of one name": (
        manifest_values(programs=manifest_values()["programs"] * 2), "two programs have the same name"
    ),
    "a point without program": (with_point(program="absent"), "wants program 'absent', not in the bundle"),
    "a width that was not trained": (with_point(width=0.2), "has width 0.2, but the net was trained for 0.25 to 1.0"),
    "width 0": (with_point(width=0.0), "width is 0.0"),
    "width 2": (with_point(width=2), "width is 2.0"),
    "size 0": (with_point(size_hw=[0, 16]), "size_hw is (0, 16)"),
    "a negative size": (with_point(size_hw=[-16, 16]), "size_hw is (-16, 16)"),
    "a huge size": (with_point(size_hw=[16, 1 << 20]), "expected 8 to 8192 pixels"),
    "three sides": (with_point(size_hw=[16, 16, 16]), "expected 2 values"),
    "no work": (with_point(madds=0), "madds is 0"),
    "negative work": (with_point(madds=-5), "madds is -5"),
    "accuracy in percent": (with_point(accuracy={"select": 60.0}), "accuracy must be 0 to 1"),
    "no accuracy": (with_point(accuracy={"test": 0.5}), "accuracy on the select split is missing"),
    "temperature 0": (with_point(temperature=0.0), "temperature is 0.0"),
    "a threshold above 1": (with_point(unsure_below=1.5), "unsure_below is 1.5"),
    "a negative latency": (with_point(latency_ms=-1.0), "latency_ms is -1.0"),
    "latency 0": (with_point(latency_ms=0.0), "latency_ms is 0.0"),
    "a name with a slash": (with_point(name="a/b"), "has other signs than letters"),
    "an empty name": (manifest_values(name=""), "has other signs than letters"),
    "an unknown backend": (with_program(backend="magic"), "backend is 'magic'"),
    "an unknown precision": (with_program(precision="fp8"), "precision is 'fp8'"),
    "std 0": (with_pixels(std=[0.0, 1.0, 1.0]), "std is (0.0, 1.0, 1.0)"),
    "std nearly 0": (with_pixels(std=[1e-300, 1.0, 1.0]), "std is (1e-300, 1.0, 1.0)"),
    "an endless mean": (with_pixels(mean=[1e300, 1.0, 1.0]), "mean is (1e+300, 1.0, 1.0)"),
    "mean of 400 digits": (with_pixels(mean=[10**400, 1.0, 1.0]), "mean[0]: is larger than any possible value"),
    "mean of one channel": (with_pixels(mean=[1.0]), "expected 3 values"),
    "an unknown fit": (with_pixels(fit="stretch"), "fit is 'stretch'"),
    "an unknown resize": (with_pixels(resize="lanczos"), "resize is 'lanczos'"),
    "crop share 0": (with_pixels(crop_share=0.0), "crop_share is 0.0"),
    "one frame": (with_clip(1), "frames is 1, expected 2 to 64"),
    "many frames": (with_clip(65), "frames is 65, expected 2 to 64"),
    "frames of a picture": (with_point(frames=8), "frames is 8, but clip is missing"),
    "a picture of a clip": (with_clip(None), "frames is None, but clip is given"),
    "a clip of an older version": (with_clip(version=2), "clip: expected schema version 3"),
    "a clip of no time": (with_clip(clip={"duration_ms": 0.0}), "duration_ms is 0.0, expected 1 to 600000"),
    "a clip of a day": (with_clip(clip={"duration_ms": 9e7}), "duration_ms is 90000000.0, expected 1 to 600000"),
    "a clip of text": (with_clip(clip={"duration_ms": "long"}), "duration_ms: expected"),
    "a clip of terabytes": (
        manifest_values(
            schema_version=3, clip={"duration_ms": 500.0},
            points=[{**point_values(0.5, 16), "frames": 64, "size_hw": [8192, 8192]}],
        ),
        "expected at most 67108864 pixels together",
    ),
    "tolerance 0": (manifest_values(vectors={"file": "weights.npz", "tolerance": 0.0}), "tolerance is 0.0"),
    "divisor 0": (
        manifest_values(channel_rule={"rule": "x", "divisor": 0, "width_min": 0.5, "width_max": 1.0}), "divisor is 0"
    ),
    "a hash in capitals": (manifest_values(files={"a": {**FACT, "sha256": "A" * 64}}), "lower-case hexadecimal"),
    "a short hash": (manifest_values(files={"a": {**FACT, "sha256": "00"}}), "expected 64"),
    "a negative length": (manifest_values(files={"a": {**FACT, "size_bytes": -1}}), "size_bytes is -1"),
    "a half sign in a file name": (manifest_values(files={"\ud800": FACT}), "signs that are no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_VALUES)
def test_an_impossible_value_is_refused(case: str, tmp_path: Path) -> None:
    values, message = BAD_VALUES[case]
    assert message in refusal(write_bundle(tmp_path / "a.bundle", values))


BAD_TEXTS = {
    "NaN": ('{"schema_version": 1, "x": NaN}', "the number NaN is not allowed"),
    "Infinity": ('{"schema_version": 1, "x": -Infinity}', "the number -Infinity is not allowed"),
    "a number that overflows": (json.dumps(manifest_values(files={})).replace("127.5", "1e999"), "is inf"),
    "deep nesting": ('{"schema_version": ' + "[" * 100_000 + "]" * 100_000 + "}", "not a valid manifest"),
    "nesting just within the parser": ('{"schema_version": ' + "[" * 900 + "]" * 900 + "}", "schema version list"),
    "one key twice": ('{"schema_version": 1, "schema_version": 1}', "one key twice"),
    "a number of 5000 digits": ('{"schema_version": ' + "1" * 5000 + "}", "not a valid manifest"),
    "a list": ("[1, 2]", "schema version NoneType is unknown"),
    "a word": ("manifest", "not a valid manifest"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_hostile_manifest_text_is_refused(case: str, tmp_path: Path) -> None:
    text, message = BAD_TEXTS[case]
    assert message in refusal(write_bundle(tmp_path / "a.bundle", text))


def test_a_manifest_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle", " " * (MAX_MANIFEST_BYTES + 1))
    assert f"larger than {MAX_MANIFEST_BYTES} bytes" in refusal(root)


PLAIN = json.dumps(manifest_values(files=file_values(default_files())))
SPANS = st.tuples(
    st.integers(0, len(PLAIN)),
    st.integers(0, 30),
    st.sampled_from(["", "1", "-1", "1e999", "null", "true", '"../x"', "[", "}", "NaN", '"\\ud800"', "9" * 30, "[]"]),
)


@pytest.fixture(scope="module")
def fuzz_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("fuzz") / "a.bundle")


@given(edits=st.lists(SPANS, min_size=1, max_size=3))
def test_any_edit_of_the_manifest_gives_a_bundle_or_a_bundle_error(
    fuzz_root: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = PLAIN
    for at, length, replacement in edits:
        text = text[:at] + replacement + text[at + length :]
    (fuzz_root / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        bundle = Bundle.load(fuzz_root)
    except BundleError:
        return
    assert bundle.manifest.schema_version == 1


VALUES = st.sampled_from([None, True, 0, -1, 1, 2**70, 1e-320, 1e308, "", "x", "../x", [], [1], {}, {"a": 1}, "\ud800"])


def paths_of(values: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a nested object is."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [at, *(p for k, v in items for p in paths_of(v, (*at, k)))]


PATHS = [p for p in paths_of(json.loads(PLAIN)) if p]


@given(where=st.sampled_from(PATHS), value=VALUES)
def test_any_value_at_any_place_gives_a_bundle_that_works_or_a_bundle_error(
    fuzz_root: Path, where: tuple[Any, ...], value: Any
) -> None:
    values = json.loads(PLAIN)
    parent = values
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    (fuzz_root / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            bundle = Bundle.load(fuzz_root)
        except BundleError:
            return
        assert all(np.isfinite(constant).all() for constant in bundle.spec.constants)


def test_hashes_cover_every_file_but_the_manifest_and_its_signature(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    (root / "manifest.json.sig").write_bytes(b"x")
    facts = file_facts(root)
    assert set(facts) == set(default_files())
    assert read_verified(root, "programs/null.bin", facts) == b"nothing to run"
