"""A .pte holds the methods of its points and no others, and they answer bit for bit as before."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_bundle import Built

import converters.executorch_build
from converters.build import BuildRequest, build
from converters.errors import ConversionError
from converters.executorch_subset import keep_methods, require_same_answers
from converters.int8_graph import QuantSpec
from converters.select_points import select_points
from converters.verification import PointCheck
from edge_runtime.backends.executorch import LoadedProgram, import_engine
from edge_runtime.bundle import Bundle
from edge_runtime.self_check import require_passed, verify_bundle
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None or importlib.util.find_spec("torchao") is None,
    reason="executorch and torchao are not installed (extra [convert])",
)
FLOATS, INTS = "programs/all-fp32.pte", "programs/all-int8.pte"
ALL = ("w0_50_r016", "w0_50_r024", "w1_00_r016", "w1_00_r024")


@dataclass(frozen=True)
class Builds:
    """Two widths at two resolutions in two precisions: lowered once, built as often as a test needs."""

    request: BuildRequest
    whole: Built

    def again(self, target: Path, **changes: Any) -> Built:
        lines: list[str] = []
        return Built(*build(replace(self.request, target=target, **changes), lines.append), lines)


@pytest.fixture(scope="module")
def builds(checkpoint: Checkpoint, source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    folder = tmp_path_factory.mktemp("whole")
    quant = QuantSpec(reduce_range=True, calib_pictures=4, max_drop=1.0)
    request = BuildRequest(
        checkpoint, source, folder / "whole.bundle", "whole", ("fp32", "int8"), quant, backends=("executorch",),
        min_delegated=0.8, cache_folder=folder / "cache",
    )  # fmt: skip
    lines: list[str] = []
    return Builds(request, Built(*build(request, lines.append), lines))


@pytest.fixture
def latency_by_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies that follow from the points alone, so that the choice of points does not depend on this machine."""

    def scripted(bundle: Bundle, threads: int, backend: str) -> dict[str, float]:
        share = {"fp32": 1.0, "int8": 0.5}
        return {p.name: p.madds * share[bundle.program(p).precision] / 1e5 for p in bundle.points_for(backend)}

    monkeypatch.setattr("converters.build.measure_latency_ms", scripted)


def _methods(content: bytes) -> tuple[str, ...]:
    return LoadedProgram(import_engine()[1], content).methods


def _require_thin(path: Path, whole: Built) -> None:
    """Every .pte holds what its points use, is smaller than before, and gives the numbers of before."""
    bundle, before = Bundle.load(path), Bundle.load(whole.path)
    for program in bundle.manifest.programs:
        used = {p.method for p in bundle.manifest.points if p.program == program.name}
        assert set(_methods(bundle.read(program.file))) == used < set(ALL)
        assert len(bundle.read(program.file)) < len(before.read(program.file))
    for point in bundle.manifest.points:
        name = f"logits/{point.name}"
        assert np.abs(before.vectors[name]).max() > 0
        np.testing.assert_array_equal(bundle.vectors[name], before.vectors[name])
    require_passed(verify_bundle(bundle))


def test_build_that_leaves_out_nothing_keeps_the_program_as_it_was_lowered(builds: Builds) -> None:
    bundle = Bundle.load(builds.whole.path)
    lowered = {p.read_bytes() for p in (builds.whole.path.parent / "cache").glob("*.pte")}
    assert {bundle.read(FLOATS), bundle.read(INTS)} == lowered
    assert _methods(bundle.read(FLOATS)) == _methods(bundle.read(INTS)) == ALL
    assert not any(": keeps " in line for line in builds.whole.lines)


@pytest.mark.usefixtures("latency_by_cost")
def test_points_beyond_the_limit_leave_with_their_methods_and_nothing_is_lowered_again(
    builds: Builds, tmp_path: Path
) -> None:
    few = builds.again(tmp_path / "few.bundle", max_points=3)
    assert len(Bundle.load(few.path).manifest.points) == 3
    _require_thin(few.path, builds.whole)
    assert sum(" methods from the cache, " in line for line in few.lines) == 2
    assert not any(line.startswith("lowering") for line in few.lines)
    assert any(": keeps " in line and "of 4 methods" in line for line in few.lines)


def test_point_that_fails_the_accuracy_gate_leaves_with_its_method(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = converters.executorch_build.compare

    def one_is_bad(point: str, *rest: Any) -> PointCheck:
        check = real(point, *rest)
        return replace(check, accuracy={"select": -1.0}) if point == "w0.50-r024-int8-et" else check

    monkeypatch.setattr("converters.executorch_build.compare", one_is_bad)
    found = builds.again(tmp_path / "gate.bundle")
    bundle = Bundle.load(found.path)
    assert _methods(bundle.read(FLOATS)) == ALL
    assert _methods(bundle.read(INTS)) == tuple(m for m in ALL if m != "w0_50_r024")
    assert any("w0.50-r024-int8-et is left out" in note for note in bundle.manifest.notes)
    require_passed(verify_bundle(bundle))


def test_selected_points_take_their_methods_along_and_no_others(builds: Builds, tmp_path: Path) -> None:
    lines: list[str] = []
    path, count = select_points(
        builds.whole.path, tmp_path / "narrow.bundle", pattern="w0.50-*", report=lines.append
    )  # fmt: skip
    assert count == 4
    _require_thin(path, builds.whole)
    assert [line.partition(", ")[0] for line in lines] == [f"{f}: keeps 2 of 4 methods" for f in (FLOATS, INTS)]


def test_selection_of_everything_copies_the_program(builds: Builds, tmp_path: Path) -> None:
    lines: list[str] = []
    path, _ = select_points(builds.whole.path, tmp_path / "floats.bundle", precision="fp32", report=lines.append)
    assert Bundle.load(path).read(FLOATS) == Bundle.load(builds.whole.path).read(FLOATS)
    assert lines == []


@pytest.mark.parametrize("file", [FLOATS, INTS])
def test_weights_of_methods_that_left_are_gone(builds: Builds, file: str) -> None:
    """Parts are as small as their constants allow, and every method kept gives the very bytes that went in."""
    content = Bundle.load(builds.whole.path).read(file)
    assert keep_methods(content, ALL, file) == content
    one, two = keep_methods(content, ALL[:1], file), keep_methods(content, ALL[:2], file)
    assert len(one) < len(two) < len(content) / 2  # the wide methods have most of the weights
    assert keep_methods(two, ALL[:1], file) == one


def test_absent_method_is_named_with_those_that_exist(builds: Builds) -> None:
    content = Bundle.load(builds.whole.path).read(FLOATS)
    with pytest.raises(ConversionError, match=r"all-fp32.pte: has no method w0_75_r016; it has w0_50_r016, w0_50_r024"):
        keep_methods(content, ["w0_50_r016", "w0_75_r016"], FLOATS)
    with pytest.raises(ConversionError, match="none was named"):
        keep_methods(content, [], FLOATS)


def test_changed_weight_is_noticed(builds: Builds) -> None:
    content = keep_methods(Bundle.load(builds.whole.path).read(FLOATS), ALL[:1], FLOATS)
    require_same_answers(content, content, ALL[:1], FLOATS)
    changed = content[:-1] + bytes([content[-1] ^ 0x40])  # the last number is a bias of the classifier
    with pytest.raises(ConversionError, match=r"all-fp32.pte: method 'w0_50_r016' answers differently"):
        require_same_answers(content, changed, ALL[:1], FLOATS)
    with pytest.raises(ConversionError, match="has methods w0_50_r016, expected w0_50_r024"):
        require_same_answers(content, content, ["w0_50_r024"], FLOATS)


def test_damaged_program_is_refused_in_a_sentence_and_leaves_nothing(builds: Builds, tmp_path: Path) -> None:
    content = Bundle.load(builds.whole.path).read(FLOATS)
    for damaged in (content[: len(content) // 2], b"", b"no program at all", content[:64] + bytes(256) + content[320:]):
        with pytest.raises(ConversionError, match=r"all-fp32.pte: ExecuTorch refuses this program: .* damaged"):
            keep_methods(damaged, ALL[:1], FLOATS)
    bundle = tmp_path / "damaged.bundle"
    _copy_with(builds.whole.path, bundle, FLOATS, content[: len(content) // 2])
    with pytest.raises(ConversionError, match="ExecuTorch refuses this program"):
        select_points(bundle, tmp_path / "out.bundle", pattern="w0.50-*")
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.bundle"]


def _copy_with(source: Path, target: Path, file: str, content: bytes) -> None:
    """A copy of a bundle whose manifest vouches for another content of one file."""
    for path in (p for p in source.rglob("*") if p.is_file()):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (target / file).write_bytes(content)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    facts = manifest["files"][file]
    assert {"sha256", "size_bytes"} <= set(facts)
    facts |= {"sha256": sha256(content).hexdigest(), "size_bytes": len(content)}
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
