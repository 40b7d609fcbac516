"""From checkpoint to .pte and back: one point, both engines, both precisions, lowered once."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from built_bundle import Built

from converters.build import BuildRequest, build
from converters.build_choices import choose
from converters.delegation import Delegation, require_delegated
from converters.errors import ConversionError
from converters.executorch_cache import LoweredCache
from converters.int8_graph import QuantSpec
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.device_profile import load_profile
from edge_runtime.errors import BackendError, ProfileError
from edge_runtime.self_check import require_passed, verify_bundle
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None or importlib.util.find_spec("torchao") is None,
    reason="executorch and torchao are not installed (extra [convert])",
)


@pytest.fixture(scope="module")
def both(narrow: Checkpoint, source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("both")
    quant = QuantSpec(reduce_range=True, calib_pictures=4, max_drop=1.0)
    request = BuildRequest(
        narrow, source, folder / "both.bundle", "both", ("fp32", "int8"), quant,
        backends=("onnxruntime", "executorch"), min_delegated=0.8, cache_folder=folder / "cache",
    )  # fmt: skip
    lines: list[str] = []
    return Built(*build(request, lines.append), lines)


@needs_executorch
def test_both_engines_give_the_same_logits_in_float(both: Built) -> None:
    bundle = Bundle.load(both.path)
    onnx, pte = (bundle.vectors[f"logits/w0.50-r016-fp32{end}"] for end in ("", "-et"))
    assert np.abs(onnx).max() > 0
    np.testing.assert_allclose(pte, onnx, atol=1e-4 * np.abs(onnx).max())
    int8 = bundle.vectors["logits/w0.50-r016-int8-et"]
    assert 0 < np.abs(int8 - onnx).max() < 0.25 * np.abs(onnx).max()  # 8 bits: near, never equal


@needs_executorch
def test_both_engines_compute_with_the_same_integers_and_ranges(both: Built) -> None:
    """Only rounding inside the engines may differ; a range of its own would change every logit by whole steps."""
    bundle = Bundle.load(both.path)
    onnx, pte = (bundle.vectors[f"logits/w0.50-r016-int8{end}"] for end in ("", "-et"))
    assert np.abs(onnx - pte).mean() < 0.005 * np.abs(onnx).max()
    np.testing.assert_array_equal(onnx.argmax(1), pte.argmax(1))


@needs_executorch
def test_device_verifies_every_point_of_both_engines(both: Built) -> None:
    verdicts = verify_bundle(Bundle.load(both.path))
    assert {(v.backend, v.point.removeprefix("w0.50-r016-")) for v in verdicts} == {
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("executorch", "fp32-et"), ("executorch", "int8-et"),
    }  # fmt: skip
    require_passed(verdicts)


@needs_executorch
def test_bundle_for_executorch_alone_holds_no_weights_beside_its_programs(
    narrow: Checkpoint, source: PictureSource, both: Built, tmp_path: Path
) -> None:
    quant = QuantSpec(reduce_range=True, calib_pictures=4, max_drop=1.0)
    request = BuildRequest(
        narrow, source, tmp_path / "alone.bundle", "alone", ("fp32", "int8"), quant, backends=("executorch",),
        min_delegated=0.8, cache_folder=both.path.parent / "cache",
    )  # fmt: skip
    path, checks = build(request)
    files = sorted(p.name for p in path.rglob("*") if p.is_file())
    assert files == ["all-fp32.pte", "all-int8.pte", "manifest.json", "selftest.npz"]
    assert [c.point for c in checks] == ["w0.50-r016-fp32-et", "w0.50-r016-int8-et"]
    name = "logits/w0.50-r016-int8-et"
    np.testing.assert_array_equal(Bundle.load(path).vectors[name], Bundle.load(both.path).vectors[name])
    require_passed(verify_bundle(Bundle.load(path)))


@needs_executorch
def test_missing_method_is_named_with_those_that_exist(both: Built, tmp_path: Path) -> None:
    manifest = json.loads((both.path / "manifest.json").read_text(encoding="utf-8"))
    point = next(p for p in manifest["points"] if p["name"] == "w0.50-r016-fp32-et")
    point["method"] = "w0_75_r016"
    before = (both.path / "manifest.json").read_bytes()
    try:
        (both.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        bundle = Bundle.load(both.path)
    finally:
        (both.path / "manifest.json").write_bytes(before)
    backend = open_backend("executorch", bundle, BackendOptions(1))
    with pytest.raises(BackendError, match=r"no method 'w0_75_r016'; it has w0_50_r016; make the bundle again"):
        backend.load(bundle.point("w0.50-r016-fp32-et"))


def test_low_delegation_and_a_convolution_left_out_are_refused() -> None:
    require_delegated(Delegation("m", 9, 10, ("mean",)))
    with pytest.raises(ConversionError, match=r"method m: XNNPACK takes 8 of 10 operators"):
        require_delegated(Delegation("m", 8, 10, ("mean", "sub")))
    with pytest.raises(ConversionError, match="convolution would run on slow portable kernels"):
        require_delegated(Delegation("m", 99, 100, ("convolution",)))
    require_delegated(Delegation("m", 10, 100, ("convolution",)), 0.0)  # whoever asks for nothing gets it


def test_damaged_cache_entry_counts_as_absent(tmp_path: Path) -> None:
    cache, rows = LoweredCache(tmp_path), [Delegation("m", 9, 10, ("mean",))]
    assert cache.get("k") is None
    assert cache.put("k", b"program", rows) is None
    assert cache.get("k") == (b"program", rows)
    (tmp_path / "k.pte").write_bytes(b"progra!")
    assert cache.get("k") is None


def test_profile_chooses_and_the_command_line_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    present = {"onnxruntime", "executorch"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name in present or find(name, *rest))
    chosen = choose("generic-arm64")
    assert (chosen.backends, chosen.precisions) == (("executorch",), ("fp32", "int8"))
    assert choose("laptop-x86").reduce_range
    assert not choose("server-x86-vnni").reduce_range
    assert choose("generic-arm64", backend="onnxruntime", precision="int8", threads=3).threads == 3
    assert choose(None).backends == ("onnxruntime",)
    assert (choose("generic-arm64").max_points, choose("generic-arm64", max_points=5).max_points) == (20, 5)
    assert choose(None).max_points is None
    with pytest.raises(ProfileError, match="no device profile is named"):
        choose("no-such-board")


def test_dominated_points_leave_only_where_the_profile_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    here = load_profile("laptop-x86")
    monkeypatch.setattr("converters.build_choices.match_profile", lambda facts: (here, "it is"))
    assert choose("laptop-x86").drop_dominated
    assert not choose("laptop-x86", drop_dominated=False).drop_dominated
    assert not choose("generic-arm64", backend="onnxruntime").drop_dominated
    assert not choose(None).drop_dominated


def test_profile_that_wants_an_absent_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(ConversionError, match=r"profile 'generic-arm64' asks for executorch, which is not installed"):
        choose("generic-arm64")
    with pytest.raises(ConversionError, match="--backend is 'tflite', expected onnxruntime or executorch"):
        choose(None, backend="tflite")


@needs_executorch
def test_what_executorch_refuses_in_int8_stays_in_float_and_on_the_other_engine(
    both: Built, narrow: Checkpoint, source: PictureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise ConversionError("XNNPACK does not compile it")

    monkeypatch.setattr("converters.executorch_build.quantize_point", refuse)
    quant = QuantSpec(reduce_range=True, calib_pictures=4, max_drop=1.0)
    request = BuildRequest(
        narrow, source, tmp_path / "most.bundle", "most", ("fp32", "int8"), quant,
        backends=("onnxruntime", "executorch"), min_delegated=0.8, cache_folder=both.path.parent / "cache",
    )  # fmt: skip
    lines: list[str] = []
    path, _ = build(request, lines.append)
    bundle = Bundle.load(path)
    assert {p.name for p in bundle.manifest.points} == {"w0.50-r016-fp32", "w0.50-r016-int8", "w0.50-r016-fp32-et"}
    (note,) = (note for note in bundle.manifest.notes if "left out" in note)
    assert note == "int8 for ExecuTorch is left out: XNNPACK does not compile it"
    assert note in lines
    assert not list(path.rglob("*int8.pte"))
    with pytest.raises(ConversionError, match="does not compile"):
        build(replace(request, precisions=("int8",), target=tmp_path / "none.bundle"))
    assert not (tmp_path / "none.bundle").exists()
