"""A smaller bundle computes what the larger one does, and holds nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from built_bundle import Built

from converters.errors import ConversionError
from converters.select_points import select_points
from edge_runtime.bundle import Bundle
from edge_runtime.self_check import require_passed, verify_bundle


def test_selected_points_pass_the_self_test_with_the_old_numbers(built: Built, tmp_path: Path) -> None:
    path, count = select_points(built.path, tmp_path / "narrow.bundle", precision="fp32", pattern="w0.50-*")
    old, new = Bundle.load(built.path), Bundle.load(path)
    assert [p.name for p in new.manifest.points] == [p.name for p in old.manifest.points if p.width == 0.5]
    assert count == len(new.manifest.points) < len(old.manifest.points)
    require_passed(verify_bundle(new))
    for name, values in new.vectors.items():
        assert np.array_equal(values, old.vectors[name])
    assert new.manifest.name == "narrow"
    assert new.manifest.provenance["selected_from"] == old.manifest.name


def test_programs_and_tables_of_other_points_are_left_behind(built: Built, tmp_path: Path) -> None:
    path, _ = select_points(built.path, tmp_path / "narrow.bundle", pattern="w0.50-*")
    programs = sorted(p.name.partition(".onnx")[0] for p in (path / "programs").iterdir() if ".onnx" in p.name)
    assert programs == ["w0.50-fp32"]
    assert {k.partition("/")[0].partition("-")[0] for k in Bundle.load(path).tables} == {"w0.50"}


def test_a_selection_of_nothing_is_refused_and_leaves_nothing(built: Built, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no point has precision int8 and a name like"):
        select_points(built.path, tmp_path / "a.bundle", precision="int8")
    with pytest.raises(ConversionError, match="no point has precision any and a name like 'w9"):
        select_points(built.path, tmp_path / "a.bundle", pattern="w9*")
    assert list(tmp_path.iterdir()) == []
