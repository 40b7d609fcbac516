"""The agreement of two engines: which points are compared, and how it is counted."""

from __future__ import annotations

from types import SimpleNamespace

import click
import numpy as np
import pytest

from benchmarks.engine_agreement import Agreement, compare_logits, pairs_of, render, summary


def _bundle(**points: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(points_for=lambda engine: [SimpleNamespace(name=n) for n in points.get(engine, ())])


def test_points_are_compared_with_those_of_the_same_name() -> None:
    onnx = _bundle(onnxruntime=("w0.50-r064-fp32", "w0.50-r064-int8", "w1.00-r064-int8"))
    pte = _bundle(executorch=("w0.50-r064-int8-et", "w0.50-r064-fp32-et"))
    assert pairs_of(onnx, pte) == [
        ("w0.50-r064-fp32", "w0.50-r064-fp32-et"), ("w0.50-r064-int8", "w0.50-r064-int8-et"),
    ]  # fmt: skip
    with pytest.raises(click.ClickException, match="no point is there for both engines"):
        pairs_of(onnx, onnx)


def test_agreement_counts_best_classes_and_not_whether_they_are_right() -> None:
    onnx = np.array([[2.0, 1], [2, 1], [1, 2], [1, 2]], np.float32)
    pte = np.array([[9.0, 1], [1, 2], [1, 2], [1, 2]], np.float32)
    row = compare_logits("w1.00-r064-int8", onnx, pte, np.array([0, 1, 0, 0]))
    assert row == Agreement("w1.00-r064-int8", 0.75, 0.25, 0.5)


def test_table_says_how_many_points_reach_what_is_expected() -> None:
    rows = [
        Agreement("a-fp32", 1.0, 0.9, 0.9),
        Agreement("a-int8", 0.995, 0.9, 0.9),
        Agreement("b-int8", 0.98, 0.8, 0.7),
    ]
    found = summary(rows)
    assert (found["fp32"]["enough"], found["int8"]["enough"], found["int8"]["worst"]) == (1, 1, 0.98)
    text = "\n".join(render(rows, "where"))
    assert "| b-int8 | 98.0 % | 80.0 % | 70.0 % |" in text
    assert "int8: 1 of 2 points agree on at least 99.5%, worst 98.0%" in text
